"""What can be seen of a run, by a file in its folder."""

import json
from collections.abc import Callable

import pytest

from issgd_cli.clusters.cluster import Snapshot
from issgd_cli.clusters.jobs import live_of
from issgd_cli.clusters.live import read, write
from issgd_cli.runs.folder import RunFolder

NewFolder = Callable[[str], RunFolder]


def test_a_snapshot_is_read_as_it_was_written(new_folder: NewFolder) -> None:
    folder = new_folder("run")
    assert read(folder) is None
    snapshot = Snapshot(3.5, 1.0, 0.0, {}, {"master": "running"}, ["a notice"])
    write(folder, snapshot)
    assert read(folder) == snapshot


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "9" * 5000, "[" * 100_000])
def test_what_is_no_snapshot_is_nothing_to_be_seen(new_folder: NewFolder, text: str) -> None:
    folder = new_folder("run")
    live_of(folder).write_text(text)
    assert read(folder) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": "1"},
        {"seconds": float("nan")},
        {"notices": [1]},
        {"processes": {"master": 1}},
        {"statuses": []},
        {"statuses": {"master": {"step": "many"}}},
        {"statuses": {"master": None}},
        {"more": 1},
    ],
)
def test_no_part_of_it_is_of_another_kind(new_folder: NewFolder, wrong: dict[str, object]) -> None:
    folder = new_folder("run")
    write(folder, Snapshot())
    live_of(folder).write_text(json.dumps({**json.loads(live_of(folder).read_text()), **wrong}))
    assert read(folder) is None


def test_a_folder_that_is_gone_is_no_matter(new_folder: NewFolder) -> None:
    write(RunFolder(new_folder("run").path / "missing"), Snapshot())
