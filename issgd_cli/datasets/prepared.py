"""Prepared data on the disk: plain .npy arrays, memory-mapped by every process that trains; see `contents`.

Every split is stored in a seeded random order, so any run of consecutive rows, a worker's chunk or a prefix, is a fair
sample of it. Inputs stay as they are; whoever uses them subtracts the mean and divides by the standard deviation.
Source of the split and of the normalisation: the original implementation (95% / 5% by a seeded draw).
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.arrays import array_of
from issgd_cli.datasets.contents import FORMATS, SPLITS, Contents, SplitName, TargetType, contents_of
from issgd_cli.datasets.sources import Progress, silent
from issgd_cli.errors import DataError


@dataclass(frozen=True)
class Split:
    """The examples of one split, in stored order.

    Attributes:
        inputs: uint8, float32 or int32, (n, features), images in CHW order; a read-only memory map. Where there are
            `rows`, it may hold others, too.
        targets: Labels, int64, (n,), in 0..classes - 1; or numbers, float32, (n, K), a read-only memory map.
        rows: Where its examples' inputs are among `inputs`, ascending, (n,); None: there are no others.
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset, memory-mapped.

    Attributes:
        name: For instance "svhn".
        splits: By name: train, valid, test.
        mean: float32, (features,): of each feature over the whole train part, even when a prefix is loaded; 0 where
            inputs are to stay as they are.
        std: float32, (features,): likewise; 1 where a feature never varies, or is to stay as it is.
        outputs: That a network gives for an example: the number of classes, or K.
        fingerprint: Two datasets with the same fingerprint hold the same examples in the same order.
        shape: Of one example's inputs, for instance (3, 32, 32).
        directory: The folder that it was loaded from.
        stamps: Size in bytes and time of the last change in nanoseconds of each file there, by its name, as JSON has
            them; from before it was read. Empty for data that is in no file.
        targets: What they are.
        tokens: Inputs are numbers in 0..tokens - 1 of a vocabulary's words; 0: they are none.
    """

    name: str
    splits: dict[SplitName, Split]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    outputs: int
    fingerprint: str
    shape: tuple[int, ...]
    directory: Path = Path()
    stamps: dict[str, list[int]] = field(default_factory=dict)
    targets: TargetType = "classes"
    tokens: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """Examples of each split."""
        return {name: len(split) for name, split in self.splits.items()}

    @property
    def features(self) -> int:
        """Numbers in one example's inputs: the product of their shape."""
        return math.prod(self.shape)

    @property
    def classes(self) -> int:
        """How many there are; 0 where targets are numbers."""
        return self.outputs if self.targets == "classes" else 0

    def refuse_changed(self) -> None:
        """Looks whether the files are still those that were loaded: inputs are mapped, so who changes them changes what
        is trained on. Reads none of them, and takes some tens of microseconds.

        Raises:
            DataError: One has been removed or changed.
        """
        for name, loaded in self.stamps.items():
            path = f"{self.directory}/{name}"  # joined as text: a Path would take longer than the look
            try:
                found = _stamp(path)
            except OSError as error:
                gone = isinstance(error, (FileNotFoundError, NotADirectoryError))
                what = "removed" if gone else f"made unreadable ({error.strerror})"
                raise DataError(f"{path} has been {what} since it was loaded. {_put_back(self.directory)}") from None
            if found != loaded:
                raise DataError(f"{path} has been changed since it was loaded. {_put_back(self.directory)}")


# Reading


def load(directory: Path, train_size: int | None = None) -> Prepared:
    """The prepared dataset in a folder, memory-mapped: nothing but labels is read.

    Args:
        directory: The prepared folder, for instance data/svhn.
        train_size: Use only the first so many train examples; the stored order is random, so they are a fair sample.

    Raises:
        DataError: No such folder, or one that is incomplete, damaged or of another format; says which file.
    """
    stamps = _stamps(directory, ["meta.json"])  # before it is read: what is changed meanwhile is then seen to be
    meta = read_meta(directory)
    contents: Contents = meta["contents"]
    stamps |= _stamps(directory, contents.files)
    remake = _remake(directory)
    splits = {name: _split(directory, contents, name, meta["counts"][name]) for name in SPLITS}
    mean, std = (
        array_of(directory / f"{name}.npy", np.dtype(np.float32), (contents.features,), remake)
        for name in ("mean", "std")
    )
    if not np.isfinite(mean).all():
        raise DataError(f"{directory / 'mean.npy'} holds values that are not finite. {remake}")
    if not (np.isfinite(std).all() and (std > 0).all()):
        raise DataError(f"{directory / 'std.npy'} holds values that are not finite and positive. {remake}")

    fingerprint = meta["fingerprint"]
    if train_size is not None:
        available = len(splits["train"])
        if not 1 <= train_size <= available:
            raise DataError(
                f"data.train_size is {train_size}, but {directory} holds {available} train examples. "
                f"Set it between 1 and {available}, or leave it out."
            )
        if train_size < available:
            train = splits["train"]
            splits["train"] = Split(train.inputs[:train_size], train.targets[:train_size])
            fingerprint = f"{fingerprint}-train{train_size}"
    return Prepared(
        meta["name"],
        splits,
        mean,
        std,
        contents.outputs,
        fingerprint,
        contents.shape,
        directory,
        stamps,
        contents.targets,
        contents.tokens,
    )


def _split(directory: Path, contents: Contents, name: SplitName, count: int) -> Split:
    (inputs_file, targets_file), remake = contents.files_of(name), _remake(directory)
    inputs = array_of(directory / inputs_file, contents.input_dtype, (count, contents.features), remake, mapped=True)
    shape, is_numbers = contents.targets_shape(count), contents.targets == "numbers"
    targets = array_of(directory / targets_file, contents.target_dtype, shape, remake, mapped=is_numbers)
    if is_numbers:
        return Split(inputs, targets)
    if len(strayed := targets[(targets < 0) | (targets >= contents.outputs)]):
        raise DataError(
            f"{directory / targets_file} holds the label {strayed[0]}; "
            f"{contents.outputs} classes allow 0 to {contents.outputs - 1}. {remake}"
        )
    return Split(inputs, targets.astype(np.int64))


def verify(directory: Path, progress: Progress = silent) -> None:
    """Reads a prepared folder from end to end, and refuses it unless it holds what was prepared: a second or so a GB.

    For a folder whose stamps are not those that a run noted: files that were put back from a copy have other ones, and
    so have files that were changed.

    Raises:
        DataError: The content is not that of the fingerprint in meta.json, or cannot be read.
    """
    meta = read_meta(directory)
    try:
        found = fingerprint_of(directory, meta["contents"], progress)
    except OSError as error:
        raise DataError(
            f"{error.filename or directory} cannot be read: {error.strerror}. {_remake(directory)}"
        ) from None
    if found != meta["fingerprint"]:
        raise DataError(
            f"{directory} does not hold what was prepared there: its files give the fingerprint {found[:12]}, "
            f"meta.json says {meta['fingerprint'][:12]}. {_put_back(directory)}"
        )


def fingerprint_of(folder: Path, contents: Contents, progress: Progress = silent) -> str:
    """sha256 over all that a run can see of the data: every file's bytes, and what meta.json says of the contents.

    Raises:
        OSError: A file is missing or unreadable.
    """
    digest = hashlib.sha256(contents.heading())
    total = sum((folder / name).stat().st_size for name in contents.files)
    done = 0
    for name in contents.files:
        with (folder / name).open("rb") as file:
            while piece := file.read(2**22):
                digest.update(piece)
                done += len(piece)
                progress("computing the fingerprint", done, total)
    return digest.hexdigest()


def read_meta(directory: Path) -> dict[str, Any]:
    """What meta.json says, checked for every key that `load` needs; under `contents`, the Contents that it tells of.

    Raises:
        DataError: No such folder, no meta.json, or one that is damaged or of another format version.
    """
    if not directory.is_dir():
        raise DataError(_missing(directory))
    path = directory / "meta.json"
    remedy = _remake(directory)
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{directory} is not prepared data: it has no meta.json. {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}. {remedy}") from error
    if not isinstance(meta, dict) or meta.get("format") not in [*FORMATS]:
        found = meta.get("format") if isinstance(meta, dict) else None
        raise DataError(f"{path} is of format {found!r}, this version reads formats 1 and 2. {remedy}")
    counts, contents = meta.get("counts"), contents_of(meta)
    whole = (
        isinstance(meta.get("name"), str)
        and {"validation_fraction", "split_seed"} <= meta.keys()
        and isinstance(meta.get("fingerprint"), str)
        and isinstance(counts, dict)
        and all(isinstance(counts.get(name), int) and counts[name] >= 0 for name in SPLITS)
        and contents is not None
        and isinstance(meta.get("parameters"), dict)
    )
    if not whole:
        raise DataError(f"{path} lacks a key or holds one of the wrong type. {remedy}")
    return {**meta, "contents": contents}


def _stamps(directory: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """Of the files that are there; `load` itself complains of those that are not."""
    return {name: _stamp(directory / name) for name in names if (directory / name).is_file()}


def _stamp(path: str | Path) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


def _put_back(directory: Path) -> str:
    return (
        f"Put back what was there, or delete {directory} and prepare it again with the same source and seed; "
        "then go on with `--resume`."
    )


def _missing(directory: Path) -> str:
    name = directory.name
    titles = {
        "svhn": "SVHN",
        "svhn-train": "SVHN",
        "cifar10": "CIFAR-10",
        "cifar100": "CIFAR-100",
        "flowers-102": "Flowers-102",
        "mnist": "MNIST",
        "fashion-mnist": "Fashion-MNIST",
    }
    if name in ("house-numbers", "polynomial", "toy"):
        return f"No {name} at {directory}. Make it with `issgd prepare {name}`; it needs no network."
    if name in ("trec", "sst2", "mr", "modelnet40", "image"):
        return f"No {name} at {directory}. Prepare it with `issgd prepare {name} --from PATH`, where it comes from."
    return (
        f"No {titles.get(name, name)} at {directory}. Fetch it with `issgd prepare {name}`, "
        "or run on the built-in data with `--data house-numbers`."
    )


def _remake(directory: Path) -> str:
    return f"Delete {directory} and prepare it again with `issgd prepare`."
