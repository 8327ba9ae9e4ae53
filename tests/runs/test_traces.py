"""trace.csv and events.csv: append-only, whole rows only, floats to the bit."""

import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.database.records import Event
from issgd_cli.errors import RunError
from issgd_cli.runs.traces import BLOCK_ENDS, Row, TraceWriter, read, read_events, steps
from tests import disks
from tests.rows import BLOCKS, row, written


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


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("before", [[], BLOCKS["sample"], BLOCKS["audit"], BLOCKS["report"]])
def test_a_kill_at_any_byte_leaves_whole_blocks_and_the_lost_one_can_be_written_again(
    tmp_path: Path, kind: str, before: list[Row]
) -> None:
    path = written(tmp_path / "trace.csv", before, BLOCK_ENDS)
    earlier = path.read_bytes()
    whole = written(path, BLOCKS[kind], BLOCK_ENDS).read_bytes()
    for size in range(len(earlier), len(whole)):
        path.write_bytes(whole[:size])
        TraceWriter(path, Row._fields, BLOCK_ENDS).close()
        assert path.read_bytes() == earlier
    assert written(path, BLOCKS[kind], BLOCK_ENDS).read_bytes() == whole
    assert written(path, [], BLOCK_ENDS).read_bytes() == whole


def test_only_the_writer_cuts_off_rows_without_their_blocks_end(tmp_path: Path) -> None:
    """Finished runs of before there were blocks are still read."""
    path = written(tmp_path / "trace.csv", [row(0, "audit/trace/in_use"), row(0, "audit/trace/ideal")])
    assert len(read(path)) == 2


def test_a_full_disk_leaves_what_was_there_and_nothing_for_later(tmp_path: Path) -> None:
    path = written(tmp_path / "trace.csv", BLOCKS["sample"])
    before = path.read_bytes()
    size = len(before)
    whole = written(path, BLOCKS["audit"]).read_bytes()
    for room in range(len(whole) - size):
        path.write_bytes(before)
        writer = TraceWriter(path, Row._fields, BLOCK_ENDS)
        with disks.full(size + room):
            with pytest.raises(RunError, match=r"trace\.csv cannot be written: .* .*--resume"):
                writer.append(BLOCKS["audit"])
        assert path.read_bytes() == before
        writer.close()
        assert path.read_bytes() == before
    writer = TraceWriter(path, Row._fields, BLOCK_ENDS)
    with disks.full(), pytest.raises(RunError, match="cannot be written"):
        writer.append(BLOCKS["audit"])
    writer.append(BLOCKS["audit"])  # there is space again
    writer.close()
    assert path.read_bytes() == whole


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "trace.csv", [row(0)])
    before = path.read_bytes()
    writer, write = TraceWriter(path, Row._fields), os.write

    def interrupted(file: int, content: bytes) -> int:
        write(file, content[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.append([row(5)])
    writer.close()
    assert path.read_bytes() == before


def test_cutting_off_needs_no_space(tmp_path: Path) -> None:
    path = written(tmp_path / "trace.csv", [row(0), row(5)])
    with path.open("a") as file:
        file.write("7,0.7,lo")
    with disks.full():
        TraceWriter(path, Row._fields).close()
    assert path.read_text().endswith("\n5,0.5,loss/train,0.5\n")


def test_a_full_disk_that_takes_no_new_trace_is_one_clear_error(tmp_path: Path) -> None:
    with disks.full(), pytest.raises(RunError, match=r"new\.csv cannot be written: .*--resume"):
        TraceWriter(tmp_path / "new.csv", Row._fields)
    assert not [*tmp_path.iterdir()]


def test_missing_rows_are_those_that_the_file_does_not_hold(tmp_path: Path) -> None:
    events = [Event("master", 0.1 * number, 1 / 3, "train", number) for number in range(4)]
    writer = TraceWriter(tmp_path / "events.csv", Event._fields)
    assert writer.missing(events) == events
    writer.append(events[1:3])
    assert writer.missing(events) == [events[0], events[3]]
    assert writer.missing([]) == []
    writer.close()


def test_a_torn_header_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("step,sec")
    assert read(written(path, [row(3)])).step.tolist() == [3]


def test_a_new_trace_is_readable_before_its_first_row(tmp_path: Path) -> None:
    table = read(written(tmp_path / "trace.csv", []))
    assert len(table) == 0
    assert list(table.columns) == ["step", "seconds", "quantity", "value"]


def test_the_steps_of_each_quantity_are_known_without_a_torn_row(tmp_path: Path) -> None:
    assert steps(written(tmp_path / "trace.csv", [])) == {}
    path = written(tmp_path / "trace.csv", [row(0), row(5), row(5, "audit/loss/train", math.nan), row(5)])
    with path.open("a") as file:
        file.write("7,0.3,loss/train,0.5")
    assert steps(path) == {"loss/train": {0, 5}, "audit/loss/train": {5}}


@pytest.mark.parametrize(
    "line", ["x,0.1,a,1", "-1,0.1,a,1", "1,0.1,a", "1,0.1,a,1,1", "1,soon,a,1", "1,0.1,a,much", ""]
)
def test_a_row_that_is_none_is_refused_before_a_run_goes_on(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "trace.csv", [row(0)])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"trace\.csv holds a row that is none"):
        steps(path)


def test_a_trace_without_its_header_is_refused_before_a_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("1,0.1,loss/train,0.5\n2,0.1,loss/train,0.5\n")
    with pytest.raises(RunError, match="is not a table of step, seconds"):
        steps(path)


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


def test_a_trace_is_put_in_the_order_of_an_undisturbed_run_and_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    calm = [
        *(Row(0, 1.0, "loss/train", 2.0), Row(0, 1.0, "work/bytes_sent", 1.0), Row(0, 0.5, "proposal/entropy", 3.0)),
        *(Row(8, 2.0, "loss/train", 1.0), Row(8, 2.0, "work/bytes_sent", 2.0)),
        *(Row(0, 0.5, "audit/loss/train", 2.0), Row(0, 0.5, "audit/trace/in_use", 5.0)),
        *(Row(4, 1.5, "audit/loss/train", 1.5), Row(4, 1.5, "audit/trace/in_use", 4.0)),
    ]
    for order in ([*calm], [*calm[:3], *calm[5:], *calm[3:5]]):
        path.unlink(missing_ok=True)
        writer = TraceWriter(path, Row._fields, BLOCK_ENDS)
        writer.append(order)
        before = path.stat().st_ino
        writer.put_in_order()
        assert (path.stat().st_ino == before) == (order == calm)  # what is in order is not touched
        last = Row(8, 2.0, "audit/trace/in_use", 6.0)
        writer.append([last])
        writer.close()
        assert path.read_text() == "step,seconds,quantity,value\n" + "".join(
            f"{row.step},{row.seconds},{row.quantity},{row.value}\n" for row in [*calm, last]
        )
