"""A user's own .npz file: prepared on first use, found again by its content, and refused clearly."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issgd_cli.datasets import load, prepare
from issgd_cli.errors import DataError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (200, 2, 5, 5), dtype=np.uint8)
LABELS = np.arange(200) % 7


@pytest.fixture(params=[np.savez, np.savez_compressed], ids=["plain", "compressed"])
def save(request: pytest.FixtureRequest) -> Any:
    return request.param


def pairs(images: Any, labels: Any) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def test_test_part_is_held_out_by_seed(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "mine.npz"
    save(path, images=IMAGES, labels=LABELS)
    data = load(str(path), tmp_path / "data")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 171, "valid": 9, "test": 20}
    held = set().union(*(pairs(split.images, split.labels) for split in data.splits.values()))
    assert held == pairs(IMAGES, LABELS)
    assert (data.classes, data.shape) == (7, (2, 5, 5))
    other = load(str(path), tmp_path / "other", split_seed=1)
    assert pairs(other.splits["test"].images, other.splits["test"].labels) != pairs(
        data.splits["test"].images, data.splits["test"].labels
    )


def test_own_test_part(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "mine.npz"
    save(path, images=IMAGES[:150], labels=LABELS[:150], test_images=IMAGES[150:], test_labels=LABELS[150:] + 1)
    test = load(str(path), tmp_path).splits["test"]
    assert pairs(test.images, test.labels) == pairs(IMAGES[150:], LABELS[150:] + 1)


def test_changed_file_is_another_dataset(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    first = prepare(str(path), tmp_path)
    assert prepare(str(path), tmp_path) == first
    assert first.name.startswith("mine-")
    np.savez(path, images=IMAGES[:100], labels=LABELS[:100])
    assert load(str(path), tmp_path).fingerprint != load(str(path), tmp_path / "x", train_size=50).fingerprint
    assert prepare(str(path), tmp_path) != first


def test_what_was_prepared_of_a_file_is_what_must_not_change(tmp_path: Path) -> None:
    """The file itself is not read again."""
    path = tmp_path / "mine.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    place = prepare(str(path), tmp_path / "data")
    for part in place.iterdir():
        os.utime(part, (1, 1))
    data = load(str(path), tmp_path / "data", train_size=50)
    path.unlink()
    data.refuse_changed()
    (place / "train-images.npy").touch()
    with pytest.raises(DataError, match=r"mine-.*/train-images\.npy has been changed"):
        data.refuse_changed()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "holds images, but no `labels`; expected"),
        ({"labels": LABELS}, "holds labels, but no `images`; expected"),
        ({"images": IMAGES / 255, "labels": LABELS}, "`images` is float64"),
        ({"images": IMAGES[:, 0, 0, 0], "labels": LABELS}, r"`images` is uint8 of shape \(200,\)"),
        ({"images": IMAGES, "labels": LABELS[1:]}, r"`labels` is int64 of shape \(199,\), for 200 images"),
        ({"images": IMAGES, "labels": LABELS / 2}, "`labels` is float64"),
        ({"images": IMAGES, "labels": LABELS - 1}, r"`labels`\[0\] is -1"),
        ({"images": IMAGES, "labels": LABELS + 250}, r"`labels`\[6\] is 256"),
        ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES}, "no `test_labels`"),
        (
            {"images": IMAGES, "labels": LABELS, "test_images": IMAGES[:, :1], "test_labels": LABELS},
            r"images are of shape \(2, 5, 5\), test_images of \(1, 5, 5\)",
        ),
        ({"images": np.asfortranarray(IMAGES), "labels": LABELS}, "Fortran order"),
        ({"images": np.array([{}, {}]), "labels": LABELS}, "Python objects"),
    ],
)
def test_unusable_arrays(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message):
        load(str(path), tmp_path / "data")


def test_unusable_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with pytest.raises(DataError, match=r"mine\.npz cannot be read: No such file"):
        load(str(path), tmp_path)
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        load(str(path), tmp_path)
    np.savez_compressed(path, images=IMAGES, labels=LABELS)
    content = bytearray(path.read_bytes())
    content[4000:4008] = b"????????"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        load(str(path), tmp_path)
