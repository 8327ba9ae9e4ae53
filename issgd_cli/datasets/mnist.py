"""MNIST: 28x28 grey handwritten digits, 60,000 for train and valid, 10,000 for test.

Source: LeCun, Cortes, Burges, idx files; fetched from the mirror that PyTorch keeps.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets import download
from issgd_cli.datasets.sources import (
    Block,
    Dataset,
    Part,
    Progress,
    Recipe,
    Request,
    described,
    identities,
    open_for_reading,
    refuse_size,
)
from issgd_cli.errors import DataError

BASE_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
SHAPE = (1, 28, 28)
CLASSES = 10
MOST = 1_000_000

SIZES = {  # bytes of the .gz
    "train-images-idx3-ubyte": 9_912_422,
    "train-labels-idx1-ubyte": 28_881,
    "t10k-images-idx3-ubyte": 1_648_877,
    "t10k-labels-idx1-ubyte": 4_542,
}
OFFICIAL: dict[str, tuple[str, str]] = {  # md5 of the .gz, md5 of the file within
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}


def recipe(request: Request) -> Recipe:
    """MNIST, fetched, or read from a folder (or its subfolder mnist) with the idx files, plain or .gz.

    Raises:
        DataError: The folder lacks a file; or `size` was given.
    """
    refuse_size("mnist", request)
    if request.source is None:
        return Recipe(
            {"origin": "official", "files": list(OFFICIAL)},
            lambda progress: _open([_fetched(name, request.downloads, progress) for name in OFFICIAL]),
        )
    files = [_found(name, request.source) for name in OFFICIAL]
    return Recipe({"origin": "files", "files": identities(files)}, lambda progress: _open(files))


def part(images: Path, labels: Path) -> Part:
    """The examples of one pair of idx files, (N, 28, 28) and (N,), plain or gzipped.

    Raises:
        DataError: Not such files, or damaged ones. Damage within the pixels shows when the blocks are read.
    """
    with _opened(labels) as file:
        (count,) = _idx_shape(labels, file, 1)
        digits = np.frombuffer(_read(labels, file, count), np.uint8)
    with _opened(images) as file:
        shape = _idx_shape(images, file, 3)
    if shape != (count, 28, 28):
        raise DataError(f"{images} is of shape {shape}; expected {(count, 28, 28)}, as {labels} has labels.")
    return Part(count, _blocks(images, digits))


def _fetched(name: str, downloads: Path, progress: Progress) -> Path:
    file, md5 = f"{name}.gz", OFFICIAL[name][0]
    return download.fetch(BASE_URL + file, downloads / "mnist" / file, md5, progress, size=SIZES[name])


def _found(name: str, folder: Path) -> Path:
    for path in (folder / name, folder / f"{name}.gz", folder / "mnist" / name, folder / "mnist" / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder} holds neither {name} nor {name}.gz. Name the folder that holds MNIST's four files, "
        "or leave out `--from` to fetch them."
    )


def _open(files: list[Path]) -> Dataset:
    md5s = [md5 for pair in OFFICIAL.values() for md5 in pair]
    train_images, train_labels, test_images, test_labels = files
    train, test = part(train_images, train_labels), part(test_images, test_labels)
    return Dataset(SHAPE, CLASSES, train, test, lambda: [described(path, md5s) for path in files])


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with open_for_reading(path) as file:
        yield gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file  # type: ignore[misc]


def _read(path: Path, file: IO[bytes], size: int) -> bytes:
    """Exactly so many bytes."""
    values = _read_up_to(path, file, size)
    if len(values) != size:
        raise DataError(f"{path} ends early: truncated. Fetch the file again.")
    return values


def _read_up_to(path: Path, file: IO[bytes], size: int) -> bytes:
    try:
        return file.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be inflated ({error}): corrupted. Fetch it again.") from error


def _idx_shape(path: Path, file: IO[bytes], dimensions: int) -> tuple[int, ...]:
    """The shape that an idx file's header gives; the file is left at its first value."""
    magic = _read(path, file, 4)
    if magic != bytes([0, 0, 8, dimensions]):  # 8: unsigned bytes
        raise DataError(f"{path} is not an idx file of bytes in {dimensions} dimensions. Fetch the file again.")
    shape = tuple(int(length) for length in np.frombuffer(_read(path, file, 4 * dimensions), ">u4"))
    if shape[0] > MOST:
        raise DataError(f"{path} announces {shape[0]:,} images; MNIST has at most 60,000. Fetch the file again.")
    return shape


def _blocks(images: Path, labels: NDArray[np.uint8], rows: int = 4096) -> Iterator[Block]:
    features = math.prod(SHAPE)
    with _opened(images) as file:
        _idx_shape(images, file, 3)
        for first in range(0, len(labels), rows):
            block = labels[first : first + rows]
            pixels = np.frombuffer(_read(images, file, len(block) * features), np.uint8)
            yield pixels.reshape(len(block), features), block
        if _read_up_to(images, file, 1):  # also verifies a .gz file's checksum
            raise DataError(f"{images} holds more than its header announces. Fetch the file again.")
