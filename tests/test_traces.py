"""trace.csv and events.csv: append-only, whole rows only, floats to the bit."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.errors import RunError
from issgd_cli.traces import Event, Row, TraceWriter, drop_from, read, read_events


def written(path: Path, rows: list[Row]) -> Path:
    writer = TraceWriter(path, Row._fields)
    writer.append(rows)
    writer.close()
    return path


def row(step: int, quantity: str = "loss/train", value: float = 0.5) -> Row:
    return Row(step, step / 10, quantity, value)


def test_what_is_appended_is_what_is_read_in_order(tmp_path: Path) -> None:
    path = written(tmp_path / "trace.csv", [row(0), row(0, "error/train"), row(5)])
    written(path, [row(10)])
    table = read(path)
    assert list(table.columns) == ["step", "seconds", "quantity", "value"]
    assert table.step.tolist() == [0, 0, 5, 10]
    assert table.quantity.tolist() == ["loss/train", "error/train", "loss/train", "loss/train"]
    assert path.read_text().count("step,seconds") == 1


def test_floats_survive_to_the_bit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    patterns = np.concatenate([random.integers(0, 2**64, 2000, dtype=np.uint64).view(np.float64)])
    values = [float(value) for value in patterns if math.isfinite(value)]
    values += [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, 1e22, float(np.float32(0.1))]
    path = written(tmp_path / "trace.csv", [row(step, value=value) for step, value in enumerate(values)])
    again = read(path).value.tolist()
    assert [struct.pack("<d", value) for value in again] == [struct.pack("<d", value) for value in values]


def test_infinite_and_missing_values_are_kept(tmp_path: Path) -> None:
    values = [math.inf, -math.inf, math.nan]
    table = read(written(tmp_path / "trace.csv", [row(step, value=value) for step, value in enumerate(values)]))
    assert table.value.tolist()[:2] == values[:2]
    assert math.isnan(table.value[2])


def test_numpy_numbers_are_written_as_plain_ones(tmp_path: Path) -> None:
    path = written(tmp_path / "trace.csv", [Row(1, np.float64(0.5), "loss/train", np.float64(0.25))])
    assert path.read_text().splitlines()[1] == "1,0.5,loss/train,0.25"


@pytest.mark.parametrize("torn", ["7", "7,0.7,los", "7,0.7,loss/train,0.1234"])
def test_a_torn_last_row_is_cut_off_before_more_is_appended(tmp_path: Path, torn: str) -> None:
    path = written(tmp_path / "trace.csv", [row(0), row(5)])
    with path.open("a") as file:
        file.write(torn)
    assert read(path).step.tolist() == [0, 5]  # a reader leaves it out too
    written(path, [row(7)])
    assert read(path).step.tolist() == [0, 5, 7]
    assert read(path).value.tolist() == [0.5, 0.5, 0.5]


def test_a_torn_header_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("step,sec")
    assert read(written(path, [row(3)])).step.tolist() == [3]


def test_a_new_trace_is_readable_before_its_first_row(tmp_path: Path) -> None:
    table = read(written(tmp_path / "trace.csv", []))
    assert len(table) == 0
    assert list(table.columns) == ["step", "seconds", "quantity", "value"]


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


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"hello\n",
        b"a,b,c,d\n1,2,3,4\n",
        b"step,seconds,quantity,value\nx,0.1,loss/train,0.5\n",
        b"step,seconds,quantity,value\n1,0.1,loss/train,much\n",
        b"step,seconds,quantity,value\n1.5,0.1,loss/train,1\n",
        b"step,seconds,quantity,value\n1,0.1,loss/train,1\n1,2,3,4,5,6\n",
        b"step,seconds,quantity\n1,0.1,loss/train\n",
        b"\xff\xfe\x00\x01\n",
        b"PK\x03\x04\x00\x00\n\x00\n",
    ],
)
def test_a_file_that_is_no_trace_is_refused_by_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"trace\.csv"):
        read(path)


def test_a_missing_trace_is_refused_by_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"trace\.csv cannot be read"):
        read(tmp_path / "trace.csv")


def test_events_survive(tmp_path: Path) -> None:
    events = [Event("master", 0.1, 0.25, "publish", 1), Event("worker-0", 1 / 3, 2.0, "score", 12)]
    writer = TraceWriter(tmp_path / "events.csv", Event._fields)
    writer.append(events)
    writer.close()
    table = read_events(tmp_path / "events.csv")
    assert [Event(*values) for values in table.itertuples(index=False)] == events
