"""Prepared data are split and ordered by their seed, and a folder is there as a whole or not at all."""

import errno
import math
import os
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from issgd_cli.datasets import prepared, writing
from issgd_cli.datasets.contents import SPLITS
from issgd_cli.datasets.sources import Block, Dataset, Part
from issgd_cli.errors import DataError
from tests.datasets.made_up import SHAPE, arrays, blocks_of, bytes_of, dataset, numbers, sentences, written


def test_every_example_lands_in_exactly_one_place(tmp_path: Path) -> None:
    data = prepared.load(written(tmp_path / "d"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 950, "valid": 50, "test": 100}

    def rows(images: NDArray[np.uint8], labels: NDArray[np.generic]) -> list[tuple[bytes, int]]:
        return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))

    train, valid, test = (data.splits[name] for name in SPLITS)
    both = np.concatenate([train.inputs, valid.inputs]), np.concatenate([train.targets, valid.targets])
    assert rows(*both) == rows(*arrays(1000, 0))
    assert rows(test.inputs, test.targets) == rows(*arrays(100, 1))
    assert train.inputs.dtype == np.uint8
    assert train.targets.dtype == np.int64
    assert isinstance(train.inputs, np.memmap)
    assert (data.name, data.shape, data.features, data.classes) == ("made-up", SHAPE, 48, 10)


def test_stored_in_random_order(tmp_path: Path) -> None:
    source = arrays(1000, 0)[0]
    place = {image.tobytes(): index for index, image in enumerate(source)}
    stored = [place[image.tobytes()] for image in prepared.load(written(tmp_path / "d")).splits["train"].inputs]
    assert abs(np.corrcoef(stored, np.arange(len(stored)))[0, 1]) < 0.1
    assert abs(np.mean(stored[:200]) - 500) < 75  # a prefix is a fair sample


def test_split_follows_the_seed_and_nothing_else(tmp_path: Path) -> None:
    first = bytes_of(written(tmp_path / "a", seed=1, rows=64))
    assert first == bytes_of(written(tmp_path / "b", seed=1, rows=1000))
    other = bytes_of(written(tmp_path / "c", seed=2))
    assert first["valid-labels.npy"] != other["valid-labels.npy"]
    assert prepared.load(tmp_path / "a").fingerprint != prepared.load(tmp_path / "c").fingerprint


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


# Interruption


def interrupted(count: int, error: BaseException) -> Iterator[Block]:
    yield from blocks_of(*arrays(count), 64)
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
    images = np.array(old.splits["train"].inputs)
    written(tmp_path / "d", seed=2)
    np.testing.assert_array_equal(old.splits["train"].inputs, images)
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


# Other inputs and targets than images of classes


@pytest.mark.parametrize("made", [numbers, sentences])
def test_other_types_are_written_in_format_2_and_read_as_they_were(
    tmp_path: Path, made: Callable[..., Dataset]
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    writing.write(first, "made", made(), {})
    writing.write(second, "made", made(), {})
    assert bytes_of(first) == bytes_of(second)
    data, contents = prepared.load(first), made().contents
    assert prepared.read_meta(first)["format"] == 2
    assert (data.shape, data.outputs, data.targets, data.tokens) == (
        contents.shape,
        contents.outputs,
        contents.targets,
        contents.tokens,
    )
    assert data.classes == (3 if made is sentences else 0)
    assert sorted(data.stamps) == sorted(os.listdir(first))

    def rows(inputs: NDArray[np.generic], targets: NDArray[np.generic]) -> list[bytes]:
        targets = targets.astype(contents.target_dtype)
        return sorted(one.tobytes() + other.tobytes() for one, other in zip(inputs, targets, strict=True))

    source = made()
    expected = [np.concatenate(parts) for parts in zip(*source.train.blocks, strict=True)]
    train, valid = data.splits["train"], data.splits["valid"]
    assert train.inputs.dtype == contents.inputs
    both = np.concatenate([train.inputs, valid.inputs]), np.concatenate([train.targets, valid.targets])
    assert rows(*both) == rows(*expected)
    prepared.verify(first)


@pytest.mark.parametrize("name", ["vocabulary.json", "train-targets.npy", "test-inputs.npy"])
def test_what_belongs_to_the_data_is_part_of_their_fingerprint(tmp_path: Path, name: str) -> None:
    writing.write(tmp_path / "d", "made", sentences(), {})
    path = tmp_path / "d" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match="does not hold what was prepared there"):
        prepared.verify(tmp_path / "d")
