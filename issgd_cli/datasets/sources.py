"""What a dataset is before it is prepared: where its examples come from, as a stream of blocks."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.contents import Contents, InputType, TargetType
from issgd_cli.errors import DataError

Progress = Callable[[str, int, int], None]
"""Called with (message, done, total); total 0 makes the message a notice rather than a bar."""

Block = tuple[NDArray[np.uint8 | np.float32 | np.int32], NDArray[np.integer[Any] | np.float32]]
"""Inputs (b, features), images in CHW order, and their targets: labels (b,), or vectors (b, K)."""


def silent(message: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True)
class Part:
    """A stream of examples whose number is known before the first one is read.

    Attributes:
        count: How many examples `blocks` yields in all.
        blocks: Blocks of any size, in the source's own order. Read once.
    """

    count: int
    blocks: Iterable[Block]


@dataclass(frozen=True)
class Dataset:
    """A dataset as its source holds it: not split, not shuffled, not yet on disk in our format.

    Attributes:
        shape: Of one example's inputs, for instance (3, 32, 32): channels, height, width.
        outputs: The number of classes, or the length of a vector of targets.
        train: What is split into train and valid.
        test: Stays as it is.
        sources: Says where it all came from, for meta.json: file names with their md5, or generator parameters.
            Called once, in a thread, while the examples are written: the md5 of 1.5 GB takes its time.
        inputs, targets, tokens: See Contents.
        standardise: Whether the inputs are to be given less their mean, divided by their standard deviation, feature by
            feature. Tokens never are.
        others: Content of the files that belong to it, by their names.
    """

    shape: tuple[int, ...]
    outputs: int
    train: Part
    test: Part
    sources: Callable[[], list[dict[str, Any]]]
    inputs: InputType = "uint8"
    targets: TargetType = "classes"
    tokens: int = 0
    standardise: bool = True
    others: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def contents(self) -> Contents:
        """What its examples are."""
        return Contents(self.shape, self.outputs, self.inputs, self.targets, self.tokens, tuple(self.others))


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        source: Folder (or archive) with official files; None downloads or generates.
        downloads: Folder that keeps downloaded files.
        size: Number of train and valid examples, for generated datasets only.
        split_seed: Seed of every random choice that preparing makes.
        validation_fraction: Of the train part, held out for validation.
    """

    source: Path | None
    downloads: Path
    size: int | None = None
    split_seed: int = 42
    validation_fraction: float = 0.05


@dataclass(frozen=True)
class Recipe:
    """How to obtain a dataset, decided without reading its data.

    Attributes:
        parameters: All that decides the result, as JSON values. Equal parameters mean equal prepared data, so a
            prepared folder with the same parameters need not be made again.
        open: Downloads or opens the data. Slow; only called when the folder has to be made.
    """

    parameters: Mapping[str, Any]
    open: Callable[[Progress], Dataset]


def identities(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Name, size and time of change of each file: enough to see, without reading them, that they are the same."""
    return [
        {"file": path.name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
        for path in files
        for stat in [path.stat()]
    ]


def described(path: Path, official_md5s: Iterable[str]) -> dict[str, Any]:
    """A source file's entry in meta.json: name, size, md5 and whether it is the official file."""
    import hashlib

    with open_for_reading(path) as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return {"file": path.name, "bytes": path.stat().st_size, "md5": md5, "official": md5 in set(official_md5s)}


def open_for_reading(path: Path) -> Any:
    """The file, opened for reading bytes.

    Raises:
        DataError: It is missing, a folder, or not readable.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {os.strerror(error.errno or 0)}. Check the path.") from error


def joined(*parts: Part) -> Part:
    """Several parts, one after the other, as one."""

    def blocks() -> Iterator[Block]:
        for part in parts:
            yield from part.blocks

    return Part(sum(part.count for part in parts), blocks())


def ahead(blocks: Iterable[Block]) -> Iterator[Block]:
    """The same blocks, the next one read by a thread while this one is used: inflating leaves other threads free."""
    iterator = iter(blocks)
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, iterator, None)
        while (block := following.result()) is not None:
            following = thread.submit(next, iterator, None)
            yield block


def generated_size(name: str, request: Request, usual: int, largest: int = 10_000_000) -> int:
    """How many train and valid examples of a dataset that is made on the spot are asked for.

    Raises:
        DataError: Fewer than 1, or more than the largest; or official files were named, of which there are none.
    """
    if request.source is not None:
        raise DataError(f"{name} is made on the spot and reads no files. Leave out `--from`.")
    size = usual if request.size is None else request.size
    if not 1 <= size <= largest:
        raise DataError(f"{name} of size {size} cannot be made. Choose a size between 1 and {largest:,}.")
    return size


def refuse_size(name: str, request: Request) -> None:
    """Say so when `size` is given for a dataset that is not generated."""
    if request.size is not None:
        raise DataError(
            f"{name} has the size it has; `size` is for generated data. "
            f"Leave it out, or train on the first examples only with `--set data.train_size={request.size}`."
        )
