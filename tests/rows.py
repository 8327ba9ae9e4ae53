"""Rows of a trace, and traces that hold them."""

from pathlib import Path

from issgd_cli.runs.traces import Row, TraceWriter


def written(path: Path, rows: list[Row], block_ends: tuple[str, ...] = ()) -> Path:
    """The path, once these rows are appended to the trace there."""
    writer = TraceWriter(path, Row._fields, block_ends)
    writer.append(rows)
    writer.close()
    return path


def row(step: int, quantity: str = "loss/train", value: float = 0.5) -> Row:
    """One measured at a step."""
    return Row(step, step / 10, quantity, value)


# Rows that belong together, by what wrote them.
BLOCKS = {
    "sample": [row(4), row(4, "error/train"), row(4, "work/examples_trained"), row(4, "work/bytes_sent")],
    "audit": [row(4, "audit/loss/train"), row(4, "audit/trace/ideal"), row(4, "audit/trace/in_use")],
    "report": [row(4, "proposal/smoothing"), row(4, "staleness/mean_seconds"), row(4, "proposal/entropy")],
}
