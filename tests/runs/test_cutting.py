"""Trace and events are cut back to a moment, in whole rows and blocks, or stay as they are."""

from collections.abc import Callable
from pathlib import Path

import pytest

from issgd_cli.errors import RunError
from issgd_cli.runs.cutting import drop_events_from, drop_from
from issgd_cli.runs.traces import BLOCK_ENDS, Row, read
from tests import disks
from tests.rows import BLOCKS, row, written


def test_drop_from_removes_the_rows_of_a_step_and_later_ones_and_a_torn_one(tmp_path: Path) -> None:
    path = written(tmp_path / "trace.csv", [row(0), row(5), row(10), row(15), row(5, "audit/loss/train")])
    with path.open("a") as file:
        file.write("3,0.3,lo")
    drop_from(path, 10)
    assert read(path).step.tolist() == [0, 5, 5]
    drop_from(path, 0)
    assert read(path).step.tolist() == []
    drop_from(tmp_path / "absent.csv", 3)
    assert not (tmp_path / "absent.csv").exists()


def test_drop_from_keeps_the_audit_of_the_step_that_a_resumed_run_starts_after(tmp_path: Path) -> None:
    """The master saves an audit point when it arrives at a step, not when it leaves it: it would not come again."""
    path = written(tmp_path / "trace.csv", [row(10), row(20), row(10, "audit/loss/train"), row(20, "audit/loss/train")])
    drop_from(path, 10)
    assert read(path)[["step", "quantity"]].to_numpy().tolist() == [[10, "audit/loss/train"]]


def test_dropping_leaves_whole_blocks(tmp_path: Path) -> None:
    def block(kind: str, step: int) -> list[Row]:
        return [each._replace(step=step) for each in BLOCKS[kind]]

    # A sample at step 8 comes with the report of step 4; audits come last.
    rows = block("sample", 0) + block("sample", 4) + block("report", 4) + block("sample", 8) + block("audit", 0)
    path = written(tmp_path / "trace.csv", rows + block("audit", 8))
    drop_from(path, 8)
    kept = block("sample", 0) + block("sample", 4) + block("report", 4) + block("audit", 0) + block("audit", 8)
    assert read(written(path, [], BLOCK_ENDS)).step.tolist() == [each.step for each in kept]
    path = written(tmp_path / "other.csv", block("sample", 4) + block("report", 4) + block("sample", 8))
    drop_from(path, 8)
    assert read(written(path, [], BLOCK_ENDS)).quantity.tolist() == [
        each.quantity for each in block("sample", 4) + block("report", 4)
    ]


@pytest.mark.parametrize(
    "cut",
    [
        lambda place: drop_from(place / "trace.csv", 5),
        lambda place: drop_events_from(place / "events.csv", 5.0),
    ],
)
def test_a_full_disk_is_one_clear_error_whatever_is_cut(tmp_path: Path, cut: Callable[[Path], object]) -> None:
    written(tmp_path / "trace.csv", [row(0), row(5)])
    (tmp_path / "events.csv").write_text("actor,start,end,event,version\nmaster,0.5,1.0,train,3\n")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with disks.full(), pytest.raises(RunError, match=r"csv cannot be written: .*--resume"):
        cut(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "line", ["x,0.1,a,1", "-1,0.1,a,1", "1,0.1,a", "1,0.1,a,1,1", "1,soon,a,1", "1,0.1,a,much", ""]
)
def test_a_row_that_is_none_is_refused_and_nothing_is_cut(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "trace.csv", [row(0)])
    with path.open("a") as file:
        file.write(line + "\n")
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"trace\.csv holds a row that is none"):
        drop_from(path, 0)
    assert path.read_bytes() == before


def test_a_trace_without_its_header_is_refused_and_nothing_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("1,0.1,loss/train,0.5\n2,0.1,loss/train,0.5\n")
    with pytest.raises(RunError, match="is not a table of step, seconds"):
        drop_from(path, 0)
