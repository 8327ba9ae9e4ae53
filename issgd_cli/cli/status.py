"""`issgd status`: which runs there are, and how they stand."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from issgd_cli.clusters.cluster import Standing
    from issgd_cli.runs.folder import RunFolder


def status(
    place: Annotated[Path, typer.Argument(help="A folder of results, or of one experiment.")] = Path("results"),
) -> None:
    """List the runs and their states."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from issgd_cli.cli.output import refuse_lost
    from issgd_cli.errors import IssgdError, RunError
    from issgd_cli.runs import folder as runs

    if place != Path("results") and not place.exists():
        raise RunError(f"No folder {place}. Name one of results, or of one experiment.")
    found = runs.find(place)
    if not found:
        typer.echo(f"No runs under {place}. Start one with `issgd train`.")
        refuse_lost()
        return
    known = _standings(found)
    table = Table(box=None, header_style="bold")
    for column in ("run", "dataset", "state", "step", "started", "why"):
        table.add_column(column, justify="right" if column == "step" else "left", overflow="fold")
    for folder in found:
        name = str(folder.path.relative_to(place)) if folder.path != place else folder.path.name
        try:
            manifest, step = folder.read_manifest(), last_step(folder.trace)
        except IssgdError as error:
            table.add_row(escape(name), "", "unreadable", "", "", escape(str(error)))
            continue
        failure = manifest.get("failure") or {}
        reason = str(failure.get("reason", "")).splitlines()
        why = f"{failure['actor']}: {reason[0] if reason else ''}" if failure else ""
        table.add_row(
            escape(name),
            escape(str(manifest.get("dataset_label") or (manifest.get("dataset") or {}).get("name", ""))),
            _state(folder, manifest, known),
            step,
            escape((manifest.get("start") or "")[:16].replace("T", " ")),
            escape(why if (job := _job(folder, known)) is None else job.reason),
        )
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a pipe has no width: little is folded there
    console.print(table)
    refuse_lost()


def _standings(found: "list[RunFolder]") -> "Mapping[str, Standing] | None":
    """How jobs stand, if any of the runs was given to one; None where nobody knows."""
    if not any(folder.jobs.exists() for folder in found):
        return None
    from issgd_cli.clusters.slurm import Slurm

    return Slurm().standings()


def _job(folder: "RunFolder", known: "Mapping[str, Standing] | None") -> "Standing | None":
    from issgd_cli.experiments.submission import standing

    return standing(folder, known) if known else None


def _state(folder: "RunFolder", manifest: "Mapping[str, Any]", known: "Mapping[str, Standing] | None") -> str:
    """The manifest's, unless the run's job knows better."""
    state = str(manifest["state"])
    if state == "finished" or manifest.get("cluster") != "slurm":
        return state
    if (job := _job(folder, known)) is not None:
        return job.state
    return "interrupted" if known is not None and state in ("queued", "running") else state


def last_step(trace: Path) -> str:
    """The step of the trace's last row; empty where there is none, or where it cannot be read."""
    try:
        with trace.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or "unreadable"
    steps = [line.split(",", 1)[0] for line in lines[1:]]
    numbers = [int(step) for step in steps if step.isdecimal()]
    return f"{max(numbers):,}" if numbers else ""
