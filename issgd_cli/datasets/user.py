"""A user's own data: a .npz file with `images`, uint8 (N, ...), and `labels`, integers (N,) from 0.

`test_images` and `test_labels` are optional; without them a seeded 10% is held out as test. Images are flattened in
their stored order, so give (N, channels, height, width), (N, height, width) or (N, features).
"""

import hashlib
import math
import os
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.sources import Block, Dataset, Part, Progress, Recipe, Request, described, open_for_reading
from issgd_cli.errors import DataError
from issgd_cli.randomness import generator

SUFFIX = ".npz"
TEST_FRACTION = 0.1
_LONGEST = 200  # bytes of a stem; a file system takes 255 of a name, and ours gets a hash and more
_MOST_INFLATED = 1040
_EXPECTED = (
    "expected `images`, uint8 (N, ...), and `labels`, integers (N,), and optionally `test_images`, `test_labels`"
)


def folder_name(path: Path) -> str:
    """The name of the data, and of their prepared folder: the file's stem and a short hash of its content.

    However the path is spelt and wherever the file lies, the name is the same. A process reads a file once for it.

    Raises:
        DataError: No such file, or a stem that cannot be a folder's name.
    """
    stem = unicodedata.normalize("NFC", path.stem)
    try:
        length = len(stem.encode())
    except UnicodeEncodeError:
        length = 0
    if not (0 < length <= _LONGEST and stem.isprintable()):
        raise DataError(
            f"{str(path)!r} cannot name its data: rename the file to at most {_LONGEST} bytes of printable letters "
            f"before {SUFFIX}."
        )
    with open_for_reading(path) as file:
        stat = os.fstat(file.fileno())
    return f"{stem}-{_short_hash(path.absolute(), stat.st_size, stat.st_mtime_ns)}"


@cache
def _short_hash(path: Path, size: int, modified_ns: int) -> str:
    """Of the file's content; size and time of change are those of the cached answer."""
    with open_for_reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def recipe(request: Request) -> Recipe:
    """The data of the .npz file that request.source names."""
    path = request.source
    if path is None:
        raise DataError("No .npz file was named. Give its path, for instance `issgd prepare mine.npz`.")
    if request.size is not None:
        raise DataError(f"`size` is for generated data; {path} has the size it has. Leave it out.")
    parameters = {"origin": "npz", "folder": folder_name(path), "test_fraction": TEST_FRACTION}
    return Recipe(parameters, lambda progress: dataset(path, request.split_seed, progress))


def dataset(path: Path, split_seed: int, progress: Progress) -> Dataset:
    """What the file holds; images are streamed from it, never held whole.

    Raises:
        DataError: Not a .npz file, or arrays missing, of the wrong type, or that do not belong together.
    """
    shape, count = _images_header(path, "images")
    labels = _labels(path, "labels", count)
    if "test_images.npy" in _members(path):
        test_shape, test_count = _images_header(path, "test_images")
        if test_shape != shape:
            raise DataError(f"{path}: images are of shape {shape}, test_images of {test_shape}. Make them the same.")
        test_labels = _labels(path, "test_labels", test_count)
        train = Part(count, _blocks(path, "images", labels, np.ones(count, bool)))
        test = Part(test_count, _blocks(path, "test_images", test_labels, np.ones(test_count, bool)))
    else:
        held_out = np.zeros(count, bool)
        held_out[generator(split_seed, "split", 1).permutation(count)[: math.ceil(count * TEST_FRACTION)]] = True
        progress(f"{path.name} has no test_images: {held_out.sum()} of its {count} examples are held out as test", 0, 0)
        test_labels = labels[held_out]
        train = Part(int((~held_out).sum()), _blocks(path, "images", labels, ~held_out))
        test = Part(int(held_out.sum()), _blocks(path, "images", labels, held_out))
    classes = int(max(labels.max(initial=0), test_labels.max(initial=0))) + 1
    return Dataset(shape, classes, train, test, lambda: [described(path, ())])


def _members(path: Path) -> list[str]:
    with _archive(path) as archive:
        return archive.namelist()


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with open_for_reading(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{path} cannot be read as .npz ({error}); {_EXPECTED}.") from error


@contextmanager
def _array(path: Path, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], bool, np.dtype[Any]]]:
    """An array's file, left at its first value, and its shape, order and dtype."""
    with _archive(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            held = ", ".join(member.removesuffix(".npy") for member in archive.namelist())
            raise DataError(f"{path} holds {held or 'nothing'}, but no `{name}`; {_EXPECTED}.")
        with archive.open(f"{name}.npy") as file:
            try:
                version = np.lib.format.read_magic(file)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read_header(file)
            except Exception as error:  # numpy's reader raises errors of every kind at what it did not write
                raise DataError(f"{path}: `{name}` is no array ({error}); {_EXPECTED}.") from error
            if dtype.hasobject:
                raise DataError(f"{path}: `{name}` holds Python objects, which are never read; {_EXPECTED}.")
            # Nothing deflates to less than a thousandth: who announces more makes us set aside memory for nothing.
            if math.prod(shape) * dtype.itemsize > _MOST_INFLATED * path.stat().st_size:
                raise DataError(f"{path}: `{name}` announces more values than the file can hold; {_EXPECTED}.")
            yield file, shape, fortran, dtype


def _images_header(path: Path, name: str) -> tuple[tuple[int, ...], int]:
    """Shape of one image, and how many there are."""
    with _array(path, name) as (_, shape, fortran, dtype):
        if dtype != np.uint8 or len(shape) < 2 or math.prod(shape) == 0:
            raise DataError(f"{path}: `{name}` is {dtype} of shape {shape}; {_EXPECTED}.")
        if fortran and len(shape) > 1:
            raise DataError(f"{path}: `{name}` is in Fortran order. Save np.ascontiguousarray({name}) instead.")
        return shape[1:], shape[0]


def _labels(path: Path, name: str, count: int) -> NDArray[np.int64]:
    with _array(path, name) as (file, shape, _, dtype):
        if not np.issubdtype(dtype, np.integer) or shape != (count,):
            raise DataError(f"{path}: `{name}` is {dtype} of shape {shape}, for {count} images; {_EXPECTED}.")
        labels = np.frombuffer(_read(path, name, file, count * dtype.itemsize), dtype).astype(np.int64)
    if labels.min(initial=0) < 0 or labels.max(initial=0) > 255:
        wrong = int(np.flatnonzero((labels < 0) | (labels > 255))[0])
        raise DataError(f"{path}: `{name}`[{wrong}] is {labels[wrong]}. Number the classes from 0, to 255 at most.")
    return labels


def _blocks(path: Path, name: str, labels: NDArray[np.int64], wanted: NDArray[np.bool_]) -> Iterator[Block]:
    """The wanted examples of an image array; labels and wanted are of all its examples."""
    with _array(path, name) as (file, shape, _, _):
        features = math.prod(shape[1:])
        rows = max(1, 2**22 // features)
        for first in range(0, shape[0], rows):
            count = min(rows, shape[0] - first)
            pixels = np.frombuffer(_read(path, name, file, count * features), np.uint8).reshape(count, features)
            chosen = wanted[first : first + count]
            yield pixels[chosen], labels[first : first + count][chosen]


def _read(path: Path, name: str, file: IO[bytes], size: int) -> bytes:
    values = file.read(size)
    if len(values) != size:
        raise DataError(f"{path}: `{name}` ends early: truncated. Save the file again.")
    return values
