"""Cuts trace and events back to a moment, before a resumed run goes on from there and writes the rest again."""

from collections.abc import Callable
from pathlib import Path

from issgd_cli.errors import RunError
from issgd_cli.files import write_text, writing
from issgd_cli.runs.traces import HEADER, Row, read_lines, read_text


def drop_from(path: Path, step: int) -> None:
    """Removes the trace's rows at `step` and later, before a resumed run writes them again.

    The exact audit of `step` itself stays: its point was saved on the way to the step, which is not gone again.
    (At step 0 it is.)
    """
    _keep(path, lambda row: row.step < step or (row.step == step > 0 and row.quantity.startswith("audit/")))


def drop_after(path: Path, step: int, sampled_at: float, proposal_step: int) -> None:
    """Removes the rows that were written after a moment that is known to the bit.

    Args:
        path: Of the trace.
        step: Of the last audit before it.
        sampled_at: When the database was sampled last before it.
        proposal_step: Of the last proposal that was written before it.
    """

    def is_before(row: Row) -> bool:
        if row.quantity.startswith("audit/"):
            return row.step <= step
        if row.quantity.startswith(("proposal/", "staleness/")):
            return row.step <= proposal_step
        return row.seconds <= sampled_at

    _keep(path, is_before)


def _keep(path: Path, wanted: Callable[[Row], bool]) -> None:
    """Only these rows of a trace, if there is one."""
    if not path.exists():
        return
    kept = [line for line, row in read_lines(path) if wanted(row)]
    with writing(path):
        write_text(path, "".join(f"{line}\n" for line in (HEADER, *kept)))


def drop_events_from(path: Path, seconds: float) -> None:
    """Removes the events that started at `seconds` or later: a resumed run's clock goes on from there."""
    if not path.exists():
        return
    lines = read_text(path).splitlines(keepends=True)
    try:
        kept = [line for line in lines[1:] if line.endswith("\n") and float(line.split(",")[1]) < seconds]
    except (ValueError, IndexError):
        raise RunError(f"{path} holds a row that is none of an event's. Remove the run's folder.") from None
    with writing(path):
        write_text(path, "".join([*lines[:1], *kept]))
