"""The trace of a run: trace.csv, append-only and tidy, and events.csv, who did what when.

Plots, tables and verdicts read nothing else.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from issgd_cli.errors import RunError
from issgd_cli.files import write_text

if TYPE_CHECKING:
    import pandas as pd


class Row(NamedTuple):
    """One measured value."""

    step: int  # the master's, of the parameters it was measured at (their newest, where records are mixed)
    seconds: float  # since the run's start, by the database's clock
    quantity: str  # a name of QUANTITIES
    value: float


class Event(NamedTuple):
    """One actor's operation."""

    actor: str  # master, worker-0, monitor
    start: float  # seconds since the run's start
    end: float
    event: str  # the name of an operations.Operation
    version: int  # of the parameters it concerned


# Prefixed with audit/ where recomputed exactly, at one parameter version, over all examples.
QUANTITIES = {
    "loss/{train,valid,test}": "mean of the database's newest records, at mixed parameter versions",
    "error/{train,valid,test}": "likewise, fraction of wrong predictions",
    "trace/ideal": "eq. 7 from the database's records, minus the bound of B.2; not square-rooted",
    "trace/uniform": "eq. 8, likewise",
    "trace/stale": "eq. 9, likewise: previous norms plus the smoothing in use",
    "trace/stale+{c}": "eq. 9 with smoothing constant c",
    "audit/trace/in_use": "eq. 6 with the weights that the master really draws from",
    "audit/trace/uniform_in_use": "eq. 8 over the same examples, where the weights in use leave some out (drop)",
    "audit/estimator/error_ratio": "squared error of a mean of draws by the weights in use, over Tr / K: 1 if unbiased",
    "gradient_norm2/bound": "||g_TRUE||^2, B.2's upper bound from chunks of worker.chunk_size examples",
    "gradient_norm2/unbiased": "||g_TRUE||^2, unbiased estimate from the same chunks, unclipped",
    "audit/gradient_norm2": "||g_TRUE||^2, exact",
    "proposal/entropy": "of the sampling distribution in use, nats",
    "proposal/effective_sample_size": "(sum omega)^2 / sum omega^2",
    "proposal/kept_fraction": "usable examples / N",
    "proposal/smoothing": "the constant in use; inf is uniform",
    "proposal/floored": "usable weights raised to the positive floor",
    "proposal/fallback": "1 while draws are uniform because too few weights were usable",
    "staleness/{mean,max}_seconds": "age of the weights in use, since they were scored",
    "staleness/mean_versions": "age of the weights in use, in published parameter versions",
    "work/examples_{trained,scored}": "by all actors, so far",
    "work/bytes_sent": "parameters, weights, scores and samples through the database, by all actors, so far",
}


class TraceWriter:
    """Appends whole rows; opening cuts off a row that a killed writer left torn."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        """Opens `path` for appending, with a header if it is new."""
        text = _text(path) if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text or not whole:
            write_text(path, whole or ",".join(columns) + "\n")
        self._file = path.open("a", newline="")

    def append(self, rows: Iterable[Row] | Iterable[Event]) -> None:
        """Writes the rows in one piece; floats in full, so that equal bits are equal text."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [repr(float(cell)) if isinstance(cell, float) else cell for cell in row] for row in rows
        )
        self._file.write(text.getvalue())
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def drop_from(path: Path, step: int) -> None:
    """Removes the trace's rows at `step` and later, before a resumed run writes them again.

    The exact audit of `step` itself stays: its point was saved on the way to the step, which is not gone again.
    (At step 0 it is.)
    """
    if not path.exists():
        return
    lines = _text(path).splitlines(keepends=True)
    kept = lines[:1]
    for line in lines[1:]:
        number, _, rest = line.partition(",")
        if not line.endswith("\n"):
            continue
        if not number.isdecimal():
            raise RunError(f"{path} holds a row that is none of a trace: {line[:60]!r}. Remove the run's folder.")
        if int(number) < step or (int(number) == step > 0 and ",audit/" in rest):
            kept.append(line)
    write_text(path, "".join(kept))


def drop_events_from(path: Path, seconds: float) -> None:
    """Removes the events that started at `seconds` or later: a resumed run's clock goes on from there."""
    if not path.exists():
        return
    lines = _text(path).splitlines(keepends=True)
    try:
        kept = [line for line in lines[1:] if line.endswith("\n") and float(line.split(",")[1]) < seconds]
    except (ValueError, IndexError):
        raise RunError(f"{path} holds a row that is none of an event's. Remove the run's folder.") from None
    write_text(path, "".join([*lines[:1], *kept]))


def read(path: Path) -> "pd.DataFrame":
    """A trace as a table with the columns of Row, in the order written; a torn last row is left out.

    Raises:
        RunError: No such file, or not a trace.
    """
    return _read(path, Row)


def read_events(path: Path) -> "pd.DataFrame":
    """An events file as a table with the columns of Event."""
    return _read(path, Event)


def _read(path: Path, kind: type[Row] | type[Event]) -> "pd.DataFrame":
    import pandas as pd

    text = _text(path)
    whole = text[: text.rfind("\n") + 1]
    types = kind.__annotations__
    try:
        table = pd.read_csv(io.StringIO(whole), dtype=types)
        if tuple(table.columns) != kind._fields:
            raise ValueError(f"columns {list(table.columns)}")
        _check(table.drop(columns="value", errors="ignore"))
    except (ValueError, OverflowError) as error:  # pandas' parser errors are among them
        raise RunError(
            f"{path} is not a table of {', '.join(kind._fields)} ({error}). Run the experiment again."
        ) from None
    return table


def _check(table: "pd.DataFrame") -> None:
    """All that is no measured value must be there, and in its range.

    Raises:
        ValueError: It is not.
    """
    if table.isna().any(axis=None):
        raise ValueError("a cell is empty")
    numbers = table.select_dtypes("number")
    if (numbers.abs() == float("inf")).any(axis=None) or (table.select_dtypes("int64") < 0).any(axis=None):
        raise ValueError("a number is out of range")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}). Run the experiment again.") from None
