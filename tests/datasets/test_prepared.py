"""The on-disk format: what is written is what is read, and nothing half-written or damaged is trusted."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from issgd_cli.datasets import prepared, writing
from issgd_cli.datasets.contents import SPLITS
from issgd_cli.datasets.sources import Dataset, Part
from issgd_cli.errors import DataError
from tests.datasets.made_up import SHAPE, arrays, blocks_of, written


def test_prefix(tmp_path: Path) -> None:
    whole = prepared.load(written(tmp_path / "d"))
    prefix = prepared.load(tmp_path / "d", 100)
    assert len(prefix.splits["train"]) == 100
    assert len(prefix.splits["valid"]) == 50
    np.testing.assert_array_equal(prefix.splits["train"].inputs, whole.splits["train"].inputs[:100])
    assert len({whole.fingerprint, prefix.fingerprint, prepared.load(tmp_path / "d", 101).fingerprint}) == 3
    assert prepared.load(tmp_path / "d", 950).fingerprint == whole.fingerprint
    for size in (0, 951):
        with pytest.raises(DataError, match="between 1 and 950"):
            prepared.load(tmp_path / "d", size)


def test_fingerprint_tells_one_changed_pixel(tmp_path: Path) -> None:
    first = prepared.load(written(tmp_path / "a")).fingerprint
    images, labels = arrays(1000, 0)
    images[123, 45] ^= 1
    changed = Part(1000, blocks_of(images, labels)), Part(100, blocks_of(*arrays(100, 1)))
    writing.write(tmp_path / "b", "made-up", Dataset(SHAPE, 10, *changed, list), {})
    assert prepared.load(tmp_path / "b").fingerprint != first


def test_images_of_classes_have_the_fingerprint_that_version_0_1_gave_them(tmp_path: Path) -> None:
    first = prepared.load(written(tmp_path / "a")).fingerprint
    assert first == "53456d17274fc2f00a24114dd0f13580ff314efe37293fb9e8ff4282acdafd90"
    assert prepared.read_meta(tmp_path / "a")["format"] == 1


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
    [("format", 3), ("counts", {}), ("classes", 0), ("shape", [0]), ("fingerprint", 3), ("name", None)],
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


@pytest.mark.parametrize("name", [f"{split}-images.npy" for split in SPLITS] + ["test-labels.npy", "mean.npy"])
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
