"""MNIST's loader on small files of the official layout; damaged ones are refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.datasets import mnist, prepare, prepared
from issgd_cli.errors import DataError

TRAIN = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8), np.arange(60, dtype=np.uint8) % 10
TEST = np.random.default_rng(1).integers(0, 256, (20, 28, 28), dtype=np.uint8), np.arange(20, dtype=np.uint8) % 10


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def official(folder: Path, zipped: bool) -> Path:
    folder.mkdir(parents=True)
    for name, (images, labels) in {"train": TRAIN, "t10k": TEST}.items():
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx(array)
            path = folder / f"{name}-{kind}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("is_within", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_reads_official_files(tmp_path: Path, zipped: bool, is_within: bool, name: str) -> None:
    official(tmp_path / "files" / name if is_within else tmp_path / "files", zipped)
    data = prepared.load(prepare(name, tmp_path, source=tmp_path / "files"))
    assert data.shape == (1, 28, 28)
    test = data.splits["test"]
    found = {image.tobytes(): int(label) for image, label in zip(test.inputs, test.targets, strict=True)}
    assert found == {image.tobytes(): int(label) for image, label in zip(*TEST, strict=True)}
    assert len(data.splits["train"]) == 57


def test_missing_file_is_named(tmp_path: Path) -> None:
    (official(tmp_path / "files", True) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="neither t10k-labels-idx1-ubyte nor"):
        prepare("mnist", tmp_path, source=tmp_path / "files")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 3, 12, 1000, -1])
def test_truncated(tmp_path: Path, zipped: bool, kept: int) -> None:
    path = official(tmp_path / "files", zipped) / f"train-images-idx3-ubyte{'.gz' if zipped else ''}"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"train-images.*(truncated|corrupted|not an idx)"):
        prepare("mnist", tmp_path, source=tmp_path / "files")
    assert not (tmp_path / "mnist").exists()


def test_corrupted_gzip(tmp_path: Path) -> None:
    path = official(tmp_path / "files", True) / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[:20_000] + b"????????" + content[20_008:])
    with pytest.raises(DataError, match=r"train-images.*corrupted"):
        prepare("mnist", tmp_path, source=tmp_path / "files")


def test_labels_and_images_swapped_or_of_other_lengths(tmp_path: Path) -> None:
    folder = official(tmp_path / "files", False)
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    with pytest.raises(DataError, match="not an idx file of bytes in 1"):
        mnist.part(labels, images)
    with pytest.raises(DataError, match=r"of shape \(60, 28, 28\); expected \(20, 28, 28\)"):
        mnist.part(images, folder / "t10k-labels-idx1-ubyte")
    images.write_bytes(images.read_bytes() + b"x")
    with pytest.raises(DataError, match="more than its header announces"):
        list(mnist.part(images, labels).blocks)
