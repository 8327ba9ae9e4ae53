"""TensorBoard's event files hold the trace, once."""

from pathlib import Path

import pytest

pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from issgd_cli.errors import RunError
from issgd_cli.runs import cutting
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.traces import read_lines
from issgd_cli.trackers.following import Follower, show
from issgd_cli.trackers.tensorboard import TensorBoard
from tests.figures.conftest import write_run
from tests.rows import row, written

START = 1767261600.0  # 2026-01-01T10:00:00 UTC, as the run's manifest has it


def shown(folder: RunFolder) -> list[tuple[int, float, str, float]]:
    """All that the event files hold, as rows."""
    files = EventAccumulator(str(folder.path / "tensorboard"), size_guidance={"scalars": 0})
    files.Reload()
    return sorted(
        (event.step, round(event.wall_time - START, 4), tag, event.value)
        for tag in files.Tags()["scalars"]
        for event in files.Scalars(tag)
    )


def held(folder: RunFolder) -> list[tuple[int, float, str, float]]:
    """The trace, as precise as event files are: single precision, and times to some microseconds."""
    return sorted(
        (row.step, round(row.seconds, 4), row.quantity, float(np.float32(row.value)))
        for _, row in read_lines(folder.trace)
    )


def test_all_of_a_run_is_shown_once_however_often_it_is_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    for _ in range(2):
        show(TensorBoard, folder)
        assert shown(folder) == held(folder)


def test_a_run_that_goes_on_is_shown_while_it_does(folder: RunFolder) -> None:
    follower = Follower(TensorBoard, folder)
    written(folder.trace, [row(0), row(1), row(2, value=1.0)])
    follower.look()
    cutting.drop_from(folder.trace, 2)
    follower.look()
    written(folder.trace, [row(2, value=2.0), row(3, value=float("inf"))])
    follower.look()
    with pytest.raises(RunError, match="another `--track tensorboard` is already at work"):
        show(TensorBoard, folder)
    follower.close()
    assert shown(folder) == held(folder)
    assert len(held(folder)) == 4
