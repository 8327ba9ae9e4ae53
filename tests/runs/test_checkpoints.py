"""What a run saves is read back to the bit, replaced at once, and never trusted when damaged."""

import io
import os
import shutil
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issgd_cli.database import SPLITS, Layout, Records
from issgd_cli.database.records import FIELDS
from issgd_cli.errors import DamagedError, RunError
from issgd_cli.runs.arrays import load_arrays, save_arrays
from issgd_cli.runs.checkpoints import Checkpoint, load_checkpoint, recover, save_checkpoint, total_work
from tests import disks

LAYOUT = Layout(23, 5, 7, 10)
LIMITS = {  # of what records may hold
    **{"errors": (0, 2), "versions": (3, 5), "previous_versions": (1, 3), "gradient_versions": (1, 3)}
}


def records(seed: int) -> Records:
    random = np.random.default_rng(seed)
    return Records(
        **{
            name: random.integers(*LIMITS.get(name, (0, 9)), LAYOUT.shape("train", name)).astype(kind.dtype)
            for name, kind in FIELDS.items()
        }
    )


def checkpoint(step: int = 12) -> Checkpoint:
    random = np.random.default_rng(step)
    return Checkpoint(
        step=step,
        version=5,
        seconds=1 / 3,
        parameters=random.standard_normal(17).astype(np.float32),
        optimizer={"momentum": random.standard_normal(17).astype(np.float32)},
        proposal={"step": 9, "seconds": 0.1, "values": {"proposal/smoothing": float("inf")}},
        work={"work/examples_trained": 1536, "work/bytes_sent": 1e12},
        records={split: records(number) for number, split in enumerate(SPLITS)},
    )


def assert_same(one: Checkpoint, two: Checkpoint) -> None:
    for name in ("step", "version", "seconds", "proposal", "work"):
        assert getattr(one, name) == getattr(two, name)
    assert set(one.optimizer) == set(two.optimizer)
    pairs = [(one.parameters, two.parameters)]
    pairs += [(one.optimizer[name], two.optimizer[name]) for name in one.optimizer]
    pairs += [
        (getattr(one.records[split], field.name), getattr(two.records[split], field.name))
        for split in SPLITS
        for field in fields(Records)
    ]
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.npz", checkpoint())
    assert_same(load_checkpoint(tmp_path / "checkpoint.npz"), checkpoint())


def test_a_checkpoint_takes_the_older_ones_place_which_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    for step in (6, 12, 24):
        save_checkpoint(path, checkpoint(step))
    assert_same(load_checkpoint(path), checkpoint(24))
    assert_same(load_checkpoint(tmp_path / "previous.npz"), checkpoint(12))
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoint.npz", "previous.npz"}


def test_work_is_added_up_over_all_lives() -> None:
    assert total_work({}) == {}
    lives = {"before": {"work/bytes_sent": 2**53}, "master:1": {"work/bytes_sent": 3, "work/examples_trained": 8}}
    assert total_work(lives) == {"work/bytes_sent": 2.0**53 + 3, "work/examples_trained": 8}
    assert all(type(count) is float for count in total_work(lives).values())  # of any size, for the database's reader


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_disk_that_is_full_leaves_the_older_checkpoint(tmp_path: Path, size: int) -> None:
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, checkpoint(12))
    with disks.full(size), pytest.raises(RunError, match=r"checkpoint\.npz cannot be written: .*--resume"):
        save_checkpoint(path, checkpoint(24))
    assert_same(load_checkpoint(path), checkpoint(12))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.npz"]


@pytest.mark.parametrize("failing", ["fsync", "writing"])
def test_a_disk_that_fails_in_the_middle_leaves_the_older_checkpoint_and_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, checkpoint(12))

    def full(*arguments: Any, **names: Any) -> None:
        raise OSError(28, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(zipfile.ZipFile, "open", full)
    with pytest.raises(RunError, match=r"checkpoint\.npz cannot be written: No space left"):
        save_checkpoint(path, checkpoint(24))
    monkeypatch.undo()
    assert_same(load_checkpoint(path), checkpoint(12))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.npz"]


def damaged_versions(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    return {
        "empty": b"",
        "half": content[:middle],
        "other": b"not a checkpoint",
        "flipped": content[:300] + bytes([content[300] ^ 255]) + content[301:],
        "npy": array_file(np.zeros(3)),
    }


def array_file(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("damage", ["empty", "half", "other", "flipped", "npy"])
def test_a_damaged_checkpoint_is_refused_by_one_clear_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, checkpoint())
    path.write_bytes(damaged_versions(path.read_bytes())[damage])
    with pytest.raises(DamagedError, match=r"checkpoint\.npz is damaged"):
        load_checkpoint(path)


# After a kill, or damage


def saved(place: Path, *steps: int) -> Path:
    """The newest of some checkpoints, saved one after the other."""
    place.mkdir(exist_ok=True)
    for step in steps:
        save_checkpoint(place / "checkpoint.npz", checkpoint(step))
    return place / "checkpoint.npz"


def spoil(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


@pytest.fixture
def as_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """What a kill just before each move of a file, from now on, would have left of its folder."""
    found: list[Path] = []
    move = Path.replace

    def replace(self: Path, target: Path) -> Path:
        found.append(tmp_path / f"killed-{len(found)}")
        shutil.copytree(self.parent, found[-1])
        return move(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    return found


def test_a_kill_while_a_checkpoint_is_saved_leaves_one_to_go_on_from(tmp_path: Path, as_killed: list[Path]) -> None:
    saved(tmp_path / "run", 12, 24)
    _, early, late = as_killed  # the first checkpoint is moved once, the second's way is cleared first
    assert (early / "checkpoint.npz").exists()
    assert not (late / "checkpoint.npz").exists()
    missing = (
        "checkpoint.npz is missing, as after a kill while it was saved; going on from the one before it, of step 12."
    )
    for place, told in ((early, []), (late, [missing])):
        path = place / "checkpoint.npz"
        assert recover(path) == told
        assert load_checkpoint(path).step == 12
        assert [file.name for file in place.iterdir()] == ["checkpoint.npz"]  # no partial one
        assert recover(path) == []


def test_a_checkpoint_that_is_well_or_never_was_needs_no_recovery(tmp_path: Path) -> None:
    assert recover(tmp_path / "checkpoint.npz") == []
    path = saved(tmp_path, 12, 24)
    (tmp_path / "checkpoint.npz.partial").write_bytes(b"half")
    assert recover(path) == []
    assert load_checkpoint(path).step == 24
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoint.npz", "previous.npz"}


def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_it_gone_on_from(
    tmp_path: Path, as_killed: list[Path]
) -> None:
    path = saved(tmp_path / "run", 12, 24)
    spoil(path)
    damaged = path.read_bytes()
    (told,) = recover(path)
    assert told.startswith("checkpoint.npz is damaged (")
    assert told.endswith("going on from the one before it, of step 12. The damaged one is kept as damaged.npz.")
    assert "\n" not in told
    assert_same(load_checkpoint(path), checkpoint(12))
    assert (path.parent / "damaged.npz").read_bytes() == damaged
    assert len(as_killed) == 3 + 2
    for place in as_killed[3:]:  # killed while at it
        assert len(recover(place / "checkpoint.npz")) == 1
        assert load_checkpoint(place / "checkpoint.npz").step == 12
    save_checkpoint(path, checkpoint(24))
    assert load_checkpoint(path).step == 24


@pytest.mark.parametrize("steps", [[12], [12, 24]])
def test_where_no_checkpoint_can_be_read_nothing_is_moved_and_the_error_stays(tmp_path: Path, steps: list[int]) -> None:
    path = saved(tmp_path, *steps)
    for file in tmp_path.iterdir():
        spoil(file)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    which = "and so is the one before it" if len(steps) == 2 else "and there is none before it"
    for _ in range(2):  # a run must not start anew by itself because it was asked for twice
        with pytest.raises(DamagedError, match=rf"checkpoint\.npz is damaged .*{which}.*Remove the run's folder"):
            recover(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_where_the_only_checkpoint_left_is_damaged_that_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path, 12, 24)
    path.unlink()
    spoil(tmp_path / "previous.npz")
    with pytest.raises(DamagedError, match=r"previous\.npz is damaged .*Remove the run's folder"):
        recover(path)


# What is no checkpoint


def save_as_ours(path: Path, arrays: dict[str, Any]) -> None:
    """With the right sum."""
    arrays.pop("sha256")
    save_arrays(path, arrays)


@pytest.mark.parametrize("work", ["[1]", '{"work/bytes_sent": -1}', '{"work/bytes_sent": "1"}', "NaN", '{"a": NaN}'])
def test_a_checkpoint_whose_work_is_no_counts_is_refused(tmp_path: Path, work: str) -> None:
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, checkpoint())
    save_as_ours(path, {**np.load(path), "work": work})
    with pytest.raises(DamagedError, match=r"is damaged \(its work is"):
        load_checkpoint(path)


@pytest.mark.parametrize("key", ["step", "parameters", "work", "valid/versions"])
def test_a_checkpoint_that_lacks_something_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, checkpoint())
    arrays = dict(np.load(path))
    del arrays[key]
    save_as_ours(path, arrays)
    with pytest.raises(DamagedError, match=rf"is damaged \('{key}'\)"):
        load_checkpoint(path)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"No .*checkpoint\.npz\. Put it back, or remove") as error:
        load_checkpoint(tmp_path / "checkpoint.npz")
    assert not isinstance(error.value, DamagedError)


def test_renumbering_moves_all_versions_but_those_never_scored() -> None:
    moved, before = checkpoint().renumbered(1000), checkpoint()
    assert moved.version == before.version + 1000
    for split in SPLITS:
        for name in ("versions", "previous_versions", "gradient_versions"):
            old, new = getattr(before.records[split], name), getattr(moved.records[split], name)
            np.testing.assert_array_equal(new, np.where(old > 0, old + 1000, 0))
            assert new.dtype == old.dtype
        np.testing.assert_array_equal(moved.records[split].norms, before.records[split].norms)
        np.testing.assert_array_equal(moved.records[split].seconds, before.records[split].seconds)
    assert_same(checkpoint().renumbered(0), checkpoint())


@pytest.mark.parametrize("refused", [OSError(24, "Too many open files"), MemoryError()])
def test_a_checkpoint_that_cannot_be_read_just_now_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Exception
) -> None:
    path = saved(tmp_path, 3, 6)
    content = path.read_bytes()

    def refuse(*arguments: object) -> None:
        raise refused

    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZipFile", refuse)
        with pytest.raises(RunError, match="--resume") as raised:
            recover(path)
    assert not isinstance(raised.value, DamagedError)
    assert path.read_bytes() == content
    assert load_checkpoint(path).step == 6


def test_a_checkpoint_of_issgd_0_1_has_its_momentum_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, checkpoint())
    arrays = dict(np.load(path))
    arrays["momentum"] = arrays.pop("optimizer/momentum")
    save_as_ours(path, arrays)
    assert_same(load_checkpoint(path), checkpoint())


# What a method remembers, in a file of its own


def remembering(step: int) -> Checkpoint:
    gradients = np.random.default_rng(step).standard_normal((3, 17)).astype(np.float32)
    return replace(checkpoint(step), remembered=gradients)


def test_what_a_method_remembers_lies_beside_the_checkpoint_and_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, checkpoint(1))
    assert not list(tmp_path.glob("remembered-*"))
    for step in (2, 3, 4):
        save_checkpoint(path, remembering(step))
        np.testing.assert_array_equal(load_checkpoint(path).remembered, remembering(step).remembered)
        # The first of them has none before it that remembers.
        assert len(list(tmp_path.glob("remembered-*"))) == min(2, step - 1)
    before = load_checkpoint(tmp_path / "previous.npz")
    np.testing.assert_array_equal(before.remembered, remembering(3).remembered)
    assert path.stat().st_size == (tmp_path / "previous.npz").stat().st_size
    assert "gradients" not in np.load(path)


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_checkpoint_without_what_was_remembered_is_damaged_and_the_one_before_is_gone_on_from(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "checkpoint.npz"
    for step in (2, 3):
        save_checkpoint(path, remembering(step))
    beside = tmp_path / "remembered-00000003-5.npz"
    if damage == "gone":
        beside.unlink()
    elif damage == "cut":
        beside.write_bytes(beside.read_bytes()[:100])
    else:
        save_arrays(beside, {"gradients": np.full((3, 17), np.nan, np.float32)})
    with pytest.raises(DamagedError, match="remembered-00000003"):
        load_checkpoint(path)
    (line,) = recover(path)
    assert "of step 2" in line
    np.testing.assert_array_equal(load_checkpoint(path).remembered, remembering(2).remembered)
    save_checkpoint(path, remembering(4))  # and goes on
    assert len(list(tmp_path.glob("remembered-*"))) == 2
    np.testing.assert_array_equal(load_checkpoint(tmp_path / "previous.npz").remembered, remembering(2).remembered)


def test_a_kill_between_the_two_files_leaves_the_checkpoint_before_whole(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    for step in (2, 3):
        save_checkpoint(path, remembering(step))
    save_arrays(tmp_path / "remembered-00000004-5.npz", {"gradients": remembering(4).remembered})
    assert recover(path) == []
    assert load_checkpoint(path).step == 3
    save_checkpoint(path, remembering(5))
    assert sorted(each.name for each in tmp_path.glob("remembered-*")) == [
        "remembered-00000003-5.npz",
        "remembered-00000005-5.npz",
    ]


def test_a_name_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    path = folder / "checkpoint.npz"
    save_checkpoint(path, remembering(2))
    arrays = load_arrays(path)
    (folder / "remembered-00000002-5.npz").rename(tmp_path / "elsewhere.npz")
    save_arrays(path, {**arrays, "remembered": "../elsewhere.npz"})
    with pytest.raises(DamagedError, match="Invalid name"):
        load_checkpoint(path)
