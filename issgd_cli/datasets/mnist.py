"""MNIST and Fashion-MNIST: 28x28 grey digits, or articles of clothing; 60,000 for train and valid, 10,000 for test.

Source: LeCun, Cortes, Burges, idx files, from the mirror that PyTorch keeps; Xiao, Rasul, Vollgraf 2017, likewise.
"""

import gzip
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

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

SHAPE = (1, 28, 28)
CLASSES = 10
MOST = 1_000_000


class File(NamedTuple):
    """One of a set's four files: size and md5 of its .gz, md5 of the file within."""

    size: int
    md5: str
    md5_within: str


@dataclass(frozen=True)
class Idx:
    """A set of four idx files.

    Attributes:
        name: As `issgd prepare` knows it, and their subfolder.
        title: For people.
        url: Where its files are.
        official: By their names.
    """

    name: str
    title: str
    url: str
    official: Mapping[str, File]

    def recipe(self, request: Request) -> Recipe:
        """The set, fetched, or read from a folder (or its subfolder of the set's name), plain or .gz.

        Raises:
            DataError: The folder lacks a file; or `size` was given.
        """
        refuse_size(self.name, request)
        if request.source is None:
            return Recipe(
                {"origin": "official", "files": list(self.official)},
                lambda progress: self._open(
                    [self._fetched(each, request.downloads, progress) for each in self.official]
                ),
            )
        files = [self._found(each, request.source) for each in self.official]
        return Recipe({"origin": "files", "files": identities(files)}, lambda progress: self._open(files))

    def _fetched(self, name: str, downloads: Path, progress: Progress) -> Path:
        file, known = f"{name}.gz", self.official[name]
        return download.fetch(self.url + file, downloads / self.name / file, known.md5, progress, size=known.size)

    def _found(self, name: str, folder: Path) -> Path:
        for place in (folder, folder / self.name):
            for path in (place / name, place / f"{name}.gz"):
                if path.is_file():
                    return path
        raise DataError(
            f"{folder} holds neither {name} nor {name}.gz. Name the folder that holds {self.title}'s four files, "
            "or leave out `--from` to fetch them."
        )

    def _open(self, files: list[Path]) -> Dataset:
        md5s = [md5 for known in self.official.values() for md5 in (known.md5, known.md5_within)]
        train_images, train_labels, test_images, test_labels = files
        train, test = part(train_images, train_labels), part(test_images, test_labels)
        return Dataset(SHAPE, CLASSES, train, test, lambda: [described(path, md5s) for path in files])


MNIST = Idx(
    "mnist",
    "MNIST",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    {
        "train-images-idx3-ubyte": File(
            9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"
        ),
        "train-labels-idx1-ubyte": File(28_881, "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
        "t10k-images-idx3-ubyte": File(
            1_648_877, "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"
        ),
        "t10k-labels-idx1-ubyte": File(4_542, "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    },
)
FASHION_MNIST = Idx(
    "fashion-mnist",
    "Fashion-MNIST",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # the only address it has; its md5s are known
    {
        "train-images-idx3-ubyte": File(
            26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"
        ),
        "train-labels-idx1-ubyte": File(29_515, "25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
        "t10k-images-idx3-ubyte": File(
            4_422_102, "bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"
        ),
        "t10k-labels-idx1-ubyte": File(5_148, "bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
    },
)


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
        raise DataError(f"{path} announces {shape[0]:,} images; the official files hold 60,000. Fetch the file again.")
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
