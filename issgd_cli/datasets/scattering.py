"""Scatters blocks of examples over the arrays of prepared data while they stream by: memory stays at a few blocks."""

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.arrays import save_array
from issgd_cli.datasets.contents import SPLITS, Contents, SplitName
from issgd_cli.datasets.moments import moments_of
from issgd_cli.datasets.sources import Part, ahead
from issgd_cli.errors import DataError


class SplitArrays:
    """Within, the six arrays of a prepared folder's splits are open for blocks to be scattered over them.

    The inputs go to the disk at once; the targets, which are small, are held until the end.

    Attributes:
        moments: Of the inputs of the train part.
    """

    def __init__(
        self, folder: Path, counts: Mapping[SplitName, int], contents: Contents, standardise: bool = True
    ) -> None:
        """Opens nothing yet.

        Args:
            folder: Where the arrays are made.
            counts: Examples of each split.
            contents: What the examples are; others are refused.
            standardise: Whether mean and std are the inputs' own.
        """
        self._folder, self._contents = folder, contents
        self._targets = [np.zeros(contents.targets_shape(counts[name]), contents.target_dtype) for name in SPLITS]
        self._row_bytes = contents.features * contents.input_dtype.itemsize
        self._files: list[int] = []
        self._offsets: list[int] = []
        self.moments = moments_of(contents, standardise)

    def __enter__(self) -> "SplitArrays":
        for name, targets in zip(SPLITS, self._targets, strict=True):
            path = self._folder / self._contents.files_of(name)[0]
            shape = (len(targets), self._contents.features)
            header = {"descr": self._contents.input_dtype.str, "fortran_order": False, "shape": shape}
            with path.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
            self._offsets.append(path.stat().st_size)
            # Plain writes, not a memory map: on a full disk a map kills the process, a write raises an error.
            descriptor = os.open(path, os.O_WRONLY)
            self._files.append(descriptor)
            # Left sparse: reserving the space first makes the scattered writes twice as slow on ext4.
            os.ftruncate(descriptor, self._offsets[-1] + len(targets) * self._row_bytes)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        for descriptor in self._files:
            os.close(descriptor)
        if kind is None:
            for name, targets in zip(SPLITS, self._targets, strict=True):
                save_array(self._folder / self._contents.files_of(name)[1], targets)

    def scatter(self, part: Part, splits: NDArray[np.int8], rows: NDArray[np.int64], what: str) -> Iterator[int]:
        """Write every example to its row; yields how many are done.

        Args:
            part: The stream.
            splits: (count,): the number of each example's split in SPLITS.
            rows: (count,): its row there.
        """
        done = 0
        for inputs, targets in ahead(part.blocks):
            if done + len(targets) > part.count:
                raise DataError(f"{what}: more examples than the {part.count} announced. The source is inconsistent.")
            check(self._contents, inputs, targets, done, what)
            inputs = np.ascontiguousarray(inputs, self._contents.input_dtype)
            chosen, places = splits[done : done + len(targets)], rows[done : done + len(targets)]
            for number in np.unique(chosen):
                members = chosen == number
                self._targets[number][places[members]] = targets[members]
                if number == 0:
                    self.moments.add(inputs[members])
            self._write(inputs, chosen.tolist(), places.tolist())
            done += len(targets)
            yield done
        if done != part.count:
            raise DataError(f"{what}: {done} examples where {part.count} were announced. The source is incomplete.")

    def _write(self, inputs: NDArray[Any], splits: list[int], rows: list[int]) -> None:
        size, files, offsets = self._row_bytes, self._files, self._offsets
        view = memoryview(inputs.view(np.uint8).reshape(-1).data)
        for position, (split, row) in enumerate(zip(splits, rows, strict=True)):
            example = view[position * size : (position + 1) * size]
            if os.pwrite(files[split], example, offsets[split] + row * size) != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check(contents: Contents, inputs: NDArray[Any], targets: NDArray[Any], done: int, what: str) -> None:
    """Refuses a block that is not what its dataset's contents say; `done` examples of `what` came before it.

    Raises:
        DataError: Names the first example that is wrong.
    """
    if inputs.dtype != contents.inputs or inputs.shape != (len(targets), contents.features):
        raise DataError(
            f"{what}: expected {contents.inputs} inputs of {contents.features} values, "
            f"found {inputs.dtype} of shape {inputs.shape} after example {done}."
        )
    if targets.shape != contents.targets_shape(len(targets)):
        raise DataError(
            f"{what}: targets of shape {targets.shape} after example {done} for {contents.outputs} outputs."
        )
    if contents.inputs == "float32" and (wrong := _first(~np.isfinite(inputs))) is not None:
        raise DataError(
            f"{what}: the inputs of example {done + wrong} hold a number that is not finite in float32. Leave out such "
            "examples, or put a number in its place."
        )
    if contents.inputs == "int32" and (wrong := _first((inputs < 0) | (inputs >= contents.tokens))) is not None:
        raise DataError(
            f"{what}: example {done + wrong} holds the token {_strayed(inputs[wrong], contents.tokens)}; "
            f"{contents.tokens} tokens allow 0 to {contents.tokens - 1}."
        )
    if contents.targets == "numbers":
        if (wrong := _first(~np.isfinite(targets))) is not None:
            raise DataError(
                f"{what}: the targets of example {done + wrong} hold a number that is not finite in float32. Leave out "
                "such examples."
            )
    elif (wrong := _first((targets < 0) | (targets >= contents.outputs))) is not None:
        raise DataError(
            f"{what}: example {done + wrong} has the label {targets[wrong]}; {contents.outputs} classes allow "
            f"0 to {contents.outputs - 1}. The source is damaged or not what its name says."
        )


def _first(bad: NDArray[np.bool_]) -> int | None:
    """The first example, (b, ...), of which anything is bad."""
    return int(np.argwhere(bad)[0][0]) if bad.any() else None


def _strayed(tokens: NDArray[np.int32], limit: int) -> int:
    return int(tokens[(tokens < 0) | (tokens >= limit)][0])
