"""`issgd doctor`: what this machine has, what is missing, and the command that mends it."""

import errno
import os
import platform
import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from issgd_cli.cli.address import DatabaseFile, address, blaming, default
from issgd_cli.cli.output import refuse_lost
from issgd_cli.cli.signals import tidying

Finding = tuple[bool, str, str]  # all right?, what, and the remedy or nothing

LEAST_FREE_GIB = 5.0


def doctor(
    data_dir: Annotated[Path, typer.Option(help="Where prepared datasets are.")] = Path("data"),
    results_dir: Annotated[Path, typer.Option(help="Where runs go.")] = Path("results"),
    database: Annotated[
        str | None, typer.Option(help="URL of a server to try; unless given, ISSGD_DATABASE's.")
    ] = None,
    database_file: DatabaseFile = None,
    network: Annotated[
        str | None, typer.Option(help="Instead, how each layer's norms of this network are found, and at what cost.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="The prepared dataset that this network is for.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, of this network.")] = None,
) -> None:
    """Say what this machine has: Python, torch, devices, Redis, data, disk. Exits 1 if something is missing."""
    if network is not None:
        from issgd_cli.cli.explain import explain

        explain(network, data, str(data_dir), set_ or [])
        refuse_lost()
        return
    url = address(database, database_file)
    findings = [_python(), *_torch()]

    from issgd_cli.database import redis, server  # noqa: F401 - here: within `tidying` nothing heavy is loaded

    with tidying():
        findings += [_server(default() if url is None else url), *_data(data_dir), _results(results_dir)]
    for good, what, remedy in findings:
        typer.echo(f"{'ok     ' if good else 'MISSING'} {what}" + (f"\n        -> {remedy}" if remedy else ""))
    refuse_lost()
    if not all(good for good, _, _ in findings):
        raise typer.Exit(1)


def _python() -> Finding:
    from issgd_cli.runs.folder import cpu_name

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


def _server(url: str) -> Finding:
    import tempfile

    from issgd_cli.database.binaries import INSTEAD
    from issgd_cli.database.server import serving
    from issgd_cli.errors import DatabaseError

    try:
        if url:
            with blaming(url):
                return True, f"database at the given URL answers, and can hold a run: {_rehearsed(url)}", ""
        with tempfile.TemporaryDirectory() as directory, serving(Path(directory) / "log") as server:
            return True, f"database server {_rehearsed(server.url)} starts, and can hold a run: {server.binary}", ""
    except DatabaseError as error:
        return False, f"no database: {error.what}", error.remedy or f"see to that, or {INSTEAD}"
    except OSError as error:
        return False, f"no database: {_reason(error)}", "set TMPDIR to a folder that you can write to"


def _rehearsed(url: str) -> str:
    """The server's name and version, when it has done all that a run asks of it."""
    import contextlib
    import secrets

    from issgd_cli.database.redis import RedisDatabase

    with contextlib.closing(RedisDatabase(url, f"doctor-{secrets.token_hex(4)}", patient=False)) as database:
        version = database.ping()
        database.rehearse()
    return version


def _data(data_dir: Path) -> list[Finding]:
    from issgd_cli import datasets
    from issgd_cli.datasets import prepared
    from issgd_cli.errors import DataError

    there = "" if data_dir == Path("data") else f" --data-dir {shlex.quote(str(data_dir))}"
    findings: list[Finding] = []
    try:
        folders = sorted(data_dir.iterdir()) if data_dir.exists() else []
    except OSError as error:
        return [(False, f"no dataset: {_reason(error)}", "name a folder that you can read with --data-dir")]
    own = datasets.own(data_dir)
    for folder in folders:
        if folder.name not in (*datasets.NAMES, *own):
            continue
        try:
            data = prepared.load(folder)
            findings.append((True, f"{folder.name}: {len(data.splits['train']):,} training examples in {folder}", ""))
        except DataError as error:
            again = f"issgd prepare {'FILE.npz' if folder.name in own else folder.name}{there}"
            findings.append((False, f"{folder.name}: {error}", again))
    missing = (False, f"no dataset in {data_dir}", f"issgd prepare house-numbers{there}   (needs no network)")
    return findings or [missing]


def _results(results_dir: Path) -> Finding:
    """Whether a run can be written there and locked, and how much."""
    import secrets
    import tempfile

    from issgd_cli.locks import held

    place, what = results_dir, "written"
    try:
        place = next(p for p in (results_dir.absolute(), *results_dir.absolute().parents) if p.exists())
        with tempfile.NamedTemporaryFile(dir=place, prefix=".issgd-") as file:
            file.write(bytes(4096))
            os.fsync(file.fileno())
        what, lock = "locked", place / f".issgd-{secrets.token_hex(4)}"
        try:
            with held(lock, 0):
                pass
        finally:
            lock.unlink(missing_ok=True)
        free = shutil.disk_usage(place).free / 2**30
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free space there" if is_full else "issgd train --results-dir SOMEWHERE"
        return False, f"no place for runs: {place} cannot be {what} ({error.strerror})", remedy
    enough = free >= LEAST_FREE_GIB
    return enough, f"{free:.1f} GiB free at {place}", "" if enough else f"free {LEAST_FREE_GIB:.0f} GiB there"


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
