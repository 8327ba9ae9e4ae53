"""Scatters blocks of examples over the arrays of prepared data while they stream by: memory stays at a few blocks."""

import errno
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.prepared import SPLITS, SplitName
from issgd_cli.datasets.sources import Part, ahead
from issgd_cli.errors import DataError


class SplitArrays:
    """Within, the six arrays of a prepared folder's splits are open for blocks to be scattered over them."""

    def __init__(self, folder: Path, counts: Mapping[SplitName, int], features: int, classes: int) -> None:
        """Opens nothing yet.

        Args:
            folder: Where the arrays are made.
            counts: Examples of each split.
            features: Numbers in one image.
            classes: Labels must lie in 0..classes - 1.
        """
        self._folder = folder
        self._features = features
        self._classes = classes
        self._labels = [np.zeros(counts[name], np.uint8) for name in SPLITS]
        self._files: list[int] = []
        self._offsets: list[int] = []
        self._sum = np.zeros(features, np.uint64)
        self._sum_of_squares = np.zeros(features, np.uint64)
        self._train_count = counts["train"]

    def __enter__(self) -> "SplitArrays":
        for name, labels in zip(SPLITS, self._labels, strict=True):
            path = self._folder / f"{name}-images.npy"
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), self._features)}
            with path.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
            self._offsets.append(path.stat().st_size)
            # Plain writes, not a memory map: on a full disk a map kills the process, a write raises an error.
            descriptor = os.open(path, os.O_WRONLY)
            self._files.append(descriptor)
            # Left sparse: reserving the space first makes the scattered writes twice as slow on ext4.
            os.ftruncate(descriptor, self._offsets[-1] + len(labels) * self._features)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        for descriptor in self._files:
            os.close(descriptor)
        if kind is None:
            for name, labels in zip(SPLITS, self._labels, strict=True):
                save_array(self._folder / f"{name}-labels.npy", labels)

    def scatter(self, part: Part, splits: NDArray[np.int8], rows: NDArray[np.int64], what: str) -> Iterator[int]:
        """Write every example to its row; yields how many are done.

        Args:
            part: The stream.
            splits: (count,): the number of each example's split in SPLITS.
            rows: (count,): its row there.
        """
        done = 0
        for images, labels in ahead(part.blocks):
            if done + len(labels) > part.count:
                raise DataError(f"{what}: more examples than the {part.count} announced. The source is inconsistent.")
            self._check(images, labels, done, what)
            images = np.ascontiguousarray(images)
            chosen, places = splits[done : done + len(labels)], rows[done : done + len(labels)]
            for number in np.unique(chosen):
                members = chosen == number
                self._labels[number][places[members]] = labels[members]
                if number == 0:
                    self._add(images[members])
            self._write(images, chosen.tolist(), places.tolist())
            done += len(labels)
            yield done
        if done != part.count:
            raise DataError(f"{what}: {done} examples where {part.count} were announced. The source is incomplete.")

    def mean_and_std(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of each pixel over the train part: float32, (features,) each; std 1 where it would be 0."""
        n = self._train_count
        sums = self._sum.astype(object)  # whole numbers of any length: exact until the last division
        variances = (n * self._sum_of_squares.astype(object) - sums * sums).astype(np.float64) / n**2
        std = np.sqrt(variances)
        mean = self._sum.astype(np.float64) / n
        return mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)

    def _check(self, images: NDArray[np.uint8], labels: NDArray[np.integer[Any]], done: int, what: str) -> None:
        if images.dtype != np.uint8 or images.shape != (len(labels), self._features):
            raise DataError(
                f"{what}: expected uint8 images of {self._features} values, "
                f"found {images.dtype} of shape {images.shape} after example {done}."
            )
        if len(labels) and not (labels.min() >= 0 and labels.max() < self._classes):
            wrong = int(np.flatnonzero((labels < 0) | (labels >= self._classes))[0])
            raise DataError(
                f"{what}: example {done + wrong} has the label {labels[wrong]}; {self._classes} classes allow "
                f"0 to {self._classes - 1}. The source is damaged or not what its name says."
            )

    def _add(self, images: NDArray[np.uint8]) -> None:
        for first in range(0, len(images), 256):  # float32 holds sums of 256 squares of bytes exactly
            x = images[first : first + 256].astype(np.float32)
            self._sum += x.sum(axis=0).astype(np.uint64)
            self._sum_of_squares += np.einsum("bf,bf->f", x, x).astype(np.uint64)

    def _write(self, images: NDArray[np.uint8], splits: list[int], rows: list[int]) -> None:
        size, files, offsets = self._features, self._files, self._offsets
        view = memoryview(images.data).cast("B")
        for position, (split, row) in enumerate(zip(splits, rows, strict=True)):
            image = view[position * size : (position + 1) * size]
            if os.pwrite(files[split], image, offsets[split] + row * size) != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def save_array(path: Path, array: NDArray[Any]) -> None:
    """As np.save, which on a full disk raises an error that does not say so."""
    content = io.BytesIO()
    np.save(content, array)
    path.write_bytes(content.getbuffer())
