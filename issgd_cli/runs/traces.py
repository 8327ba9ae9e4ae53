"""The trace of a run: trace.csv, append-only and tidy, and events.csv, who did what when.

Plots, tables and verdicts read nothing else.
"""

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from issgd_cli.database.records import Event
from issgd_cli.errors import RunError
from issgd_cli.files import write_text, writing

if TYPE_CHECKING:
    import pandas as pd


class Row(NamedTuple):
    """One measured value."""

    step: int  # the master's, of the parameters it was measured at (their newest, where records are mixed)
    seconds: float  # since the run's start, by the database's clock
    quantity: str  # a name of QUANTITIES
    value: float


T = TypeVar("T", Row, Event)
HEADER = ",".join(Row._fields)  # of a trace

IN_EXAMPLES = "work/in_examples"

# Prefixed with audit/ where recomputed exactly, at one parameter version, over all examples (or estimated so, on
# monitor.audit_examples of them). What proposal/ and staleness/ call in use is of the newest table: a block of
# systematic draws that is under way began with an older one.
QUANTITIES = {
    "loss/{train,valid,test}": "mean of the database's newest records, at mixed parameter versions",
    "error/{train,valid,test}": "likewise, fraction of wrong predictions; none of a loss that knows no errors",
    "trace/ideal": "eq. 7 from the database's records, minus the bound of B.2; not square-rooted",
    "trace/uniform": "eq. 8, likewise",
    "trace/stale": "eq. 9, likewise: the records' previous norms plus the smoothing in use; once all have some",
    "trace/stale+{c}": "eq. 9 with smoothing constant c",
    "audit/trace/in_use": "eq. 6 with the weights that the master really draws from; mis and omis: of their draws; "
    "peers: with those of the table at that step, of which each had read an older one",
    "audit/trace/in_use_systematic": "what systematic draws have in its place: a block's squared error, times its "
    "draws, by Monte Carlo; of exact audits alone: none where monitor.audit_examples has them on a sample",
    "audit/trace/uniform_in_use": "eq. 8 over the same examples, where the weights in use leave some out (drop)",
    "audit/trace/by_outputs": "eq. 6 with each example's gradient norm by the network's outputs alone as its weight",
    "audit/rank_correlation": "Spearman's, of these norms and the gradient norms by all parameters",
    "audit/estimator/error_ratio": "squared error of a mean of draws by the weights in use, over Tr / K: 1 if unbiased",
    "gradient_norm2/bound": "||g_TRUE||^2, B.2's upper bound from chunks of worker.chunk_size examples",
    "gradient_norm2/unbiased": "||g_TRUE||^2, unbiased estimate from the same chunks, unclipped",
    "audit/gradient_norm2": "||g_TRUE||^2, exact",
    "audit/{quantity}/standard_error": "of an audit's estimate, where audits are on a sample; none of ranks",
    "proposal/entropy": "of the sampling distribution in use, nats",
    "proposal/effective_sample_size": "(sum omega)^2 / sum omega^2",
    "proposal/kept_fraction": "usable examples / N",
    "proposal/smoothing": "the constant in use; inf is uniform",
    "proposal/rate": "what a step's learning rate is multiplied by, of a method that does so",
    "proposal/floored": "usable weights raised to the positive floor",
    "proposal/fallback": "1 while draws are uniform because too few weights were usable",
    "staleness/{mean,max}_seconds": "age of the weights in use, since they were scored",
    "staleness/mean_versions": "age of the weights in use, in published parameter versions",
    "staleness/gradients/{mean,max}_versions": "age of peers' gradients at their turn, dropped ones too, of all so far",
    "staleness/gradients/count/{age}": "how many were so old, or older up to the next power of two, so far",
    "staleness/gradients/{dropped,damped,refused}": "how many were, so far; a refused one has no age",
    "work/examples_{trained,scored}": "by all actors, so far",
    "work/examples_looked_at": "before minibatches were drawn, so far: their forward pass alone",
    "work/in_examples": "all that the method needs, of all actors, so far; its unit: an example that is trained on",
    "audit/work/in_examples": "likewise, to the step, where nobody but the master works for the method",
    "audit/epochs": "that a method has made of which an epoch is not N draws",
    "work/bytes_sent": "parameters, weights, scores and samples through the database, by all actors, so far",
}


# The last of the rows that belong together: of a report of the proposal, of a sample, of an audit. Rows after the last
# of them are part of something that its writer did not live to finish.
BLOCK_ENDS = ("proposal/entropy", "work/bytes_sent", "audit/trace/in_use")


class TraceWriter:
    """Appends blocks of rows, each whole or not at all; opening cuts off what a killed writer left of one."""

    def __init__(self, path: Path, columns: tuple[str, ...], block_ends: tuple[str, ...] = ()) -> None:
        """Opens `path` for appending, with a header if it is new.

        Args:
            path: The file.
            columns: Of its header.
            block_ends: Quantities whose row ends a block; none: every row does.

        Raises:
            RunError: It cannot be read, or written.
        """
        self.path = path
        content = _content(path) if path.exists() else b""
        size = _whole(content, block_ends)
        with writing(path):
            if size == 0:
                write_text(path, ",".join(columns) + "\n")
            elif size < len(content):
                os.truncate(path, size)
            self._file = path.open("ab", buffering=0)  # what a buffer still held would be written on the way out

    def append(self, rows: Iterable[Row] | Iterable[Event]) -> None:
        """Writes the rows as one block; floats in full, so that equal bits are equal text.

        Raises:
            RunError: The disk is full, or gone. The file is as it was before.
        """
        left = memoryview("".join(map(_line, rows)).encode())
        with writing(self.path):
            before = os.fstat(self._file.fileno()).st_size
            try:
                while left:  # a disk that fills takes a part, and refuses the rest
                    left = left[os.write(self._file.fileno(), left) :]
            except BaseException:
                os.ftruncate(self._file.fileno(), before)
                raise

    def missing(self, rows: Iterable[T]) -> list[T]:
        """Those of the rows that the file does not hold yet; reads all of it.

        Raises:
            RunError: It cannot be read.
        """
        lines = [(row, _line(row).encode()) for row in rows]
        wanted = {line for _, line in lines}
        try:
            with self.path.open("rb") as file:
                held = {line for line in file if line in wanted}
        except OSError as error:
            raise _unreadable(self.path, error) from None
        return [row for row, line in lines if line not in held]

    def put_in_order(self) -> None:
        """Sorts a trace as an undisturbed run writes it: first what was sampled, then the audits, each by step.

        A run that went back to a checkpoint after its first audits has sampled its last steps behind them.

        Raises:
            RunError: The disk is full, or gone. The file is as it was before.
        """
        content = _content(self.path)
        header, *lines = content.splitlines(keepends=True)
        ordered = b"".join([header, *sorted(lines, key=_place)])
        if ordered != content:
            with writing(self.path):
                write_text(self.path, ordered.decode())
                self._file.close()
                self._file = self.path.open("ab", buffering=0)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _place(line: bytes) -> tuple[bool, int]:
    step, _, quantity, _ = line.split(b",")
    return quantity.startswith(b"audit/"), int(step)


def _line(row: Row | Event) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(
        [repr(float(cell)) if isinstance(cell, float) else cell for cell in row]
    )
    return text.getvalue()


def _whole(content: bytes, block_ends: tuple[str, ...]) -> int:
    """How many bytes of a file are whole blocks, its header included."""
    lines = content.rfind(b"\n") + 1
    if not block_ends:
        return lines
    last = max(content.rfind(f",{quantity},".encode(), 0, lines) for quantity in block_ends)
    return content.find(b"\n", max(last, 0)) + 1  # without any block, the header's end


def read_lines(path: Path) -> Iterator[tuple[str, Row]]:
    """A trace's whole lines but for its header, each with the row that it is. Without pandas, which is slow to load.

    Raises:
        RunError: No such file, the header is another, or a line is no row.
    """
    for line in whole_lines(path):
        yield line, parsed(line, path)


def whole_lines(path: Path) -> list[str]:
    """A trace's whole lines but for its header.

    Raises:
        RunError: No such file, or the header is another.
    """
    header, *found = read_text(path).split("\n")[:-1] or [HEADER]  # of a torn header nothing is left
    if header != HEADER:
        raise RunError(f"{path} is not a table of {', '.join(Row._fields)}. Remove the run's folder.")
    return found


def parsed(line: str, path: Path) -> Row:
    """The row that a trace's line is.

    Raises:
        RunError: It is none.
    """
    number, *others = line.split(",")
    try:
        seconds, quantity, value = others
        row = Row(int(number), float(seconds), quantity, float(value))
        is_row = number.isdecimal() and row.step < 2**63 and math.isfinite(row.seconds) and quantity != ""
    except ValueError:
        is_row = False
    if not is_row:
        raise RunError(f"{path} holds a row that is none of a trace: {line[:60]!r}. Remove the run's folder.")
    return row


def steps(path: Path) -> dict[str, set[int]]:
    """For each quantity that a trace holds, at which steps.

    Raises:
        RunError: No such file, or not a trace.
    """
    found: dict[str, set[int]] = {}
    for _, row in read_lines(path):
        found.setdefault(row.quantity, set()).add(row.step)
    return found


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

    text = read_text(path)
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


def read_text(path: Path) -> str:
    """All of a trace or an events file, a torn last row included.

    Raises:
        RunError: It cannot be read.
    """
    try:
        return _content(path).decode()
    except UnicodeDecodeError as error:
        raise _unreadable(path, error) from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} cannot be read ({error}). Run the experiment again.")
