"""The on-disk format: what is written is what is read, and nothing half-written or damaged is trusted."""

import errno
import json
import math
import os
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from issgd_cli.datasets import prepared, writing
from issgd_cli.datasets.sources import Block, Dataset, Part
from issgd_cli.errors import DataError

SHAPE = (3, 4, 4)
FEATURES = 48


def arrays(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, FEATURES), dtype=np.uint8)
    images[:, 5] = 77  # a pixel that never varies
    return images, random.integers(0, 10, count, dtype=np.uint8)


def dataset(train: int = 1000, test: int = 100, rows: int = 64) -> Dataset:
    parts = (Part(count, writing.blocks_of(*arrays(count, seed), rows)) for seed, count in ((0, train), (1, test)))
    return Dataset(SHAPE, 10, next(parts), next(parts), lambda: [{"file": "made.up"}])


def written(directory: Path, seed: int = 42, rows: int = 64, train: int = 1000) -> Path:
    writing.write(directory, "made-up", dataset(rows=rows, train=train), {"a": 1}, split_seed=seed)
    return directory


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_every_example_lands_in_exactly_one_place(tmp_path: Path) -> None:
    data = prepared.load(written(tmp_path / "d"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 950, "valid": 50, "test": 100}

    def rows(images: NDArray[np.uint8], labels: NDArray[np.generic]) -> list[tuple[bytes, int]]:
        return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))

    train, valid, test = (data.splits[name] for name in prepared.SPLITS)
    both = np.concatenate([train.images, valid.images]), np.concatenate([train.labels, valid.labels])
    assert rows(*both) == rows(*arrays(1000, 0))
    assert rows(test.images, test.labels) == rows(*arrays(100, 1))
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int64
    assert isinstance(train.images, np.memmap)
    assert (data.name, data.shape, data.features, data.classes) == ("made-up", SHAPE, 48, 10)


def test_stored_in_random_order(tmp_path: Path) -> None:
    source = arrays(1000, 0)[0]
    place = {image.tobytes(): index for index, image in enumerate(source)}
    stored = [place[image.tobytes()] for image in prepared.load(written(tmp_path / "d")).splits["train"].images]
    assert abs(np.corrcoef(stored, np.arange(len(stored)))[0, 1]) < 0.1
    assert abs(np.mean(stored[:200]) - 500) < 75  # a prefix is a fair sample


def test_split_follows_the_seed_and_nothing_else(tmp_path: Path) -> None:
    first = bytes_of(written(tmp_path / "a", seed=1, rows=64))
    assert first == bytes_of(written(tmp_path / "b", seed=1, rows=1000))
    other = bytes_of(written(tmp_path / "c", seed=2))
    assert first["valid-labels.npy"] != other["valid-labels.npy"]
    assert prepared.load(tmp_path / "a").fingerprint != prepared.load(tmp_path / "c").fingerprint


def test_mean_and_std_are_those_of_the_train_part(tmp_path: Path) -> None:
    data = prepared.load(written(tmp_path / "d", rows=700))
    images = data.splits["train"].images.astype(np.float64)
    np.testing.assert_array_equal(data.mean, images.mean(axis=0).astype(np.float32))
    expected = images.std(axis=0)
    assert expected[5] == 0
    expected[5] = 1
    np.testing.assert_allclose(data.std, expected, rtol=1e-6)
    assert data.mean.dtype == data.std.dtype == np.float32
    assert data.std[5] == 1


def test_sums_stay_exact_with_extreme_pixels(tmp_path: Path) -> None:
    images = np.full((5000, FEATURES), 255, np.uint8)
    images[::2] = 254
    part, test = (Part(5000, writing.blocks_of(images, np.zeros(5000, np.uint8), 5000)) for _ in range(2))
    writing.write(tmp_path / "d", "d", Dataset(SHAPE, 10, part, test, list), {}, validation_fraction=0)
    data = prepared.load(tmp_path / "d")
    assert (data.mean == 254.5).all()
    assert (data.std == 0.5).all()


@pytest.mark.parametrize(
    ("count", "fraction", "held_out"), [(604_388, 0.05, 30_220), (10, 0.1, 1), (10, 0.3, 3), (7, 0.0, 0), (1, 0.05, 1)]
)
def test_valid_count(count: int, fraction: float, held_out: int) -> None:
    assert writing.valid_count(count, fraction) == held_out


@pytest.mark.parametrize("fraction", [-0.1, 1.0, math.nan])
def test_impossible_fraction(fraction: float) -> None:
    with pytest.raises(DataError, match="validation_fraction"):
        writing.valid_count(10, fraction)


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave none"):
        written(tmp_path / "d", train=1)


def test_prefix(tmp_path: Path) -> None:
    whole = prepared.load(written(tmp_path / "d"))
    prefix = prepared.load(tmp_path / "d", 100)
    assert len(prefix.splits["train"]) == 100
    assert len(prefix.splits["valid"]) == 50
    np.testing.assert_array_equal(prefix.splits["train"].images, whole.splits["train"].images[:100])
    assert len({whole.fingerprint, prefix.fingerprint, prepared.load(tmp_path / "d", 101).fingerprint}) == 3
    assert prepared.load(tmp_path / "d", 950).fingerprint == whole.fingerprint
    for size in (0, 951):
        with pytest.raises(DataError, match="between 1 and 950"):
            prepared.load(tmp_path / "d", size)


def test_fingerprint_tells_one_changed_pixel(tmp_path: Path) -> None:
    first = prepared.load(written(tmp_path / "a")).fingerprint
    images, labels = arrays(1000, 0)
    images[123, 45] ^= 1
    changed = Part(1000, writing.blocks_of(images, labels)), Part(100, writing.blocks_of(*arrays(100, 1)))
    writing.write(tmp_path / "b", "made-up", Dataset(SHAPE, 10, *changed, list), {})
    assert prepared.load(tmp_path / "b").fingerprint != first


# Folders that cannot be trusted


def test_missing_folder_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No SVHN at .*svhn\. Fetch it with `issgd prepare svhn`.*house-numbers"):
        prepared.load(tmp_path / "svhn")
    with pytest.raises(DataError, match="Make it with `issgd prepare house-numbers`"):
        prepared.load(tmp_path / "house-numbers")


@pytest.mark.parametrize("name", ["train-images.npy", "valid-labels.npy", "mean.npy", "meta.json"])
def test_missing_or_cut_file_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "d") / name
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    with pytest.raises(DataError, match=f"{name}.*Delete .* prepare it again"):
        prepared.load(tmp_path / "d")
    path.write_bytes(b"")
    with pytest.raises(DataError, match=f"{name}.*Delete .* prepare it again"):
        prepared.load(tmp_path / "d")
    path.unlink()
    with pytest.raises(DataError, match=f"{name}.*Delete .* prepare it again"):
        prepared.load(tmp_path / "d")


def damage(array: NDArray[np.generic], name: str) -> NDArray[np.generic]:
    """An array that has no business in this file."""
    if name == "valid-labels.npy":
        return np.full_like(array, 10)
    if name == "std.npy":
        return np.zeros_like(array)
    if name == "mean.npy":
        return np.full_like(array, np.nan)
    if name == "test-images.npy":
        return array.astype(np.int8)
    return array[1:]


@pytest.mark.parametrize("name", ["valid-labels.npy", "std.npy", "mean.npy", "test-images.npy", "train-labels.npy"])
def test_wrong_content_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "d") / name
    np.save(path, damage(np.load(path), name))
    with pytest.raises(DataError, match=f"{name}.*Delete .* prepare it again"):
        prepared.load(tmp_path / "d")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "d") / "train-labels.npy"
    np.save(path, np.array([{"a": 1}] * 950, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="train-labels"):
        prepared.load(tmp_path / "d")


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", 2), ("counts", {}), ("classes", 0), ("shape", [0]), ("fingerprint", 3), ("name", None)],
)
def test_meta_is_checked(tmp_path: Path, key: str, value: object) -> None:
    path = written(tmp_path / "d") / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(DataError, match=r"meta\.json"):
        prepared.load(tmp_path / "d")


# Files that change after they were loaded


def age(directory: Path) -> Path:
    """Makes its files an hour old, since a clock of files may stand still for some milliseconds."""
    for path in directory.iterdir():
        earlier = path.stat().st_mtime_ns - 3600 * 10**9
        os.utime(path, ns=(earlier, earlier))
    return directory


def overwrite(path: Path) -> None:
    """One byte, in place, so that whoever has mapped the file sees it."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def put_in_its_place(path: Path) -> None:
    shutil.copyfile(path, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def lengthen(path: Path) -> None:
    """And leaves the time as it was."""
    before = path.stat()
    with path.open("ab") as file:
        file.write(b"more")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove_the_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("train_size", [None, 100])
@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (overwrite, "changed"),
        (put_in_its_place, "changed"),
        (lengthen, "changed"),
        (Path.touch, "changed"),
        (Path.unlink, "removed"),
        (remove_the_folder, "removed"),
    ],
)
def test_a_file_that_is_changed_or_removed_after_it_was_loaded_is_named(
    tmp_path: Path, spoil: Callable[[Path], Any], what: str, train_size: int | None
) -> None:
    data = prepared.load(age(written(tmp_path / "d")), train_size)
    data.refuse_changed()
    spoil(tmp_path / "d" / "train-images.npy")
    name = r"meta\.json" if spoil is remove_the_folder else r"train-images\.npy"
    with pytest.raises(
        DataError, match=rf"d/{name} has been {what} since .* or delete .*same source and seed.*--resume"
    ):
        data.refuse_changed()


def test_every_file_of_the_folder_is_looked_at(tmp_path: Path) -> None:
    data = prepared.load(age(written(tmp_path / "d")))
    assert sorted(data.stamps) == sorted(os.listdir(tmp_path / "d"))
    for name in data.stamps:
        before = (tmp_path / "d" / name).stat()
        (tmp_path / "d" / name).touch()
        with pytest.raises(DataError, match=name):
            data.refuse_changed()
        os.utime(tmp_path / "d" / name, ns=(before.st_atime_ns, before.st_mtime_ns))
        data.refuse_changed()


def test_a_change_while_the_files_are_being_loaded_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(written(tmp_path / "d"))
    load = np.load

    def changed_meanwhile(path: Path, **options: Any) -> Any:
        array = load(path, **options)
        if path.name == "train-labels.npy":
            overwrite(path)
        return array

    monkeypatch.setattr(np, "load", changed_meanwhile)
    data = prepared.load(tmp_path / "d")
    with pytest.raises(DataError, match="train-labels"):
        data.refuse_changed()


def test_an_unreadable_folder_is_neither_changed_nor_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared.load(written(tmp_path / "d"))

    def refused(path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(DataError, match=r"made unreadable \(Permission denied\)"):
        data.refuse_changed()


def test_data_of_no_file_are_never_changed(tmp_path: Path) -> None:
    data = prepared.load(written(tmp_path / "d"))
    made = prepared.Prepared("made", data.splits, data.mean, data.std, 10, "made", SHAPE)
    assert made.stamps == {}
    shutil.rmtree(tmp_path / "d")
    made.refuse_changed()


def test_stamps_can_be_noted_in_a_manifest(tmp_path: Path) -> None:
    data = prepared.load(written(tmp_path / "d"))
    assert json.loads(json.dumps(data.stamps)) == data.stamps == prepared.load(tmp_path / "d", 100).stamps
    image = (tmp_path / "d" / "test-images.npy").stat()
    assert data.stamps["test-images.npy"] == [image.st_size, image.st_mtime_ns]


def test_files_that_are_put_back_as_they_were_are_accepted(tmp_path: Path) -> None:
    before = prepared.load(age(written(tmp_path / "d")))
    shutil.copytree(tmp_path / "d", tmp_path / "copy", copy_function=shutil.copyfile)
    overwrite(tmp_path / "d" / "valid-images.npy")
    shutil.rmtree(tmp_path / "d")
    (tmp_path / "copy").rename(tmp_path / "d")
    after = prepared.load(tmp_path / "d")
    after.refuse_changed()
    assert after.stamps != before.stamps
    prepared.verify(tmp_path / "d")
    assert after.fingerprint == before.fingerprint


@pytest.mark.parametrize("name", [f"{split}-images.npy" for split in prepared.SPLITS] + ["test-labels.npy", "mean.npy"])
def test_content_that_was_changed_while_nobody_looked_is_found(tmp_path: Path, name: str) -> None:
    written(tmp_path / "d")
    prepared.verify(tmp_path / "d")
    overwrite(tmp_path / "d" / name)
    prepared.load(tmp_path / "d")  # reads too little to see it
    with pytest.raises(DataError, match=r"d does not hold what was prepared there.*Put back what was there.*--resume"):
        prepared.verify(tmp_path / "d")


def test_a_folder_that_cannot_be_read_through_is_not_verified(tmp_path: Path) -> None:
    (written(tmp_path / "d") / "test-images.npy").unlink()
    with pytest.raises(DataError, match=r"test-images\.npy cannot be read: No such file.*Delete .* prepare it again"):
        prepared.verify(tmp_path / "d")


# Sources that cannot be trusted


def test_label_out_of_range_is_named(tmp_path: Path) -> None:
    images, labels = arrays(1000)
    labels[700] = 10
    bad = Dataset(SHAPE, 10, Part(1000, writing.blocks_of(images, labels, 64)), dataset().test, list)
    with pytest.raises(DataError, match="example 700 has the label 10"):
        writing.write(tmp_path / "d", "d", bad, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("announced", [999, 1001])
def test_wrong_number_of_examples(tmp_path: Path, announced: int) -> None:
    bad = Dataset(SHAPE, 10, Part(announced, writing.blocks_of(*arrays(1000), 64)), dataset().test, list)
    with pytest.raises(DataError, match=f"{announced}"):
        writing.write(tmp_path / "d", "d", bad, {})
    assert os.listdir(tmp_path) == []


def test_wrong_shape(tmp_path: Path) -> None:
    bad = Dataset((3, 5, 5), 10, dataset().train, dataset().test, list)
    with pytest.raises(DataError, match="75 values"):
        writing.write(tmp_path / "d", "d", bad, {})


# Interruption


def interrupted(count: int, error: BaseException) -> Iterator[Block]:
    yield from writing.blocks_of(*arrays(count), 64)
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("damaged"), MemoryError()])
def test_interruption_keeps_the_old_folder_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    before = bytes_of(written(tmp_path / "d"))
    bad = Dataset(SHAPE, 10, Part(1000, interrupted(500, error)), dataset().test, list)
    with pytest.raises(type(error)):
        writing.write(tmp_path / "d", "d", bad, {})
    assert os.listdir(tmp_path) == ["d"]
    assert bytes_of(tmp_path / "d") == before


def test_left_behind_by_a_killed_process_is_cleaned_up(tmp_path: Path) -> None:
    for kind in ("partial", "replaced"):
        (tmp_path / f".d.{kind}").mkdir()
        (tmp_path / f".d.{kind}" / "train-images.npy").write_bytes(bytes(100))
    with pytest.raises(DataError, match="No d at"):
        prepared.load(tmp_path / "d")
    with writing.exclusive(tmp_path / "d"):
        written(tmp_path / "d")
    assert sorted(os.listdir(tmp_path)) == [".d.lock", "d"]


def test_replacing_keeps_open_maps_readable(tmp_path: Path) -> None:
    old = prepared.load(written(tmp_path / "d", seed=1))
    images = np.array(old.splits["train"].images)
    written(tmp_path / "d", seed=2)
    np.testing.assert_array_equal(old.splits["train"].images, images)
    assert prepared.load(tmp_path / "d").fingerprint != old.fingerprint
    assert os.listdir(tmp_path) == ["d"]


# A full disk

Usage = namedtuple("Usage", "total used free")


def test_too_little_room_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 10**6))
    with pytest.raises(DataError, match=r"needs 0 MiB in .* 1 MiB are free"):
        written(tmp_path / "d")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("short", [True, False])
def test_disk_that_fills_up_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool) -> None:
    written_rows = 0
    pwrite = os.pwrite

    def filling(descriptor: int, content: memoryview, offset: int) -> int:
        nonlocal written_rows
        written_rows += 1
        if written_rows < 300:
            return pwrite(descriptor, content, offset)
        if short:
            return 10
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", filling)
    with pytest.raises(DataError, match=r"disk of .* is full.*--data-dir"):
        written(tmp_path / "d")
    assert os.listdir(tmp_path) == []


def test_disk_that_is_found_full_when_it_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []

    def full(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) == 1:  # a system says so once
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"disk of .* is full.*--data-dir"):
        written(tmp_path / "d")
    assert os.listdir(tmp_path) == []


def test_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(DataError, match="cannot be written"):
        written(tmp_path / "d")
