"""Writes prepared data (see `prepared`): split and ordered by a seed, and trusted only when whole."""

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.arrays import save_array
from issgd_cli.datasets.contents import SplitName
from issgd_cli.datasets.prepared import fingerprint_of
from issgd_cli.datasets.scattering import SplitArrays
from issgd_cli.datasets.sources import Dataset, Progress, silent
from issgd_cli.errors import DataError
from issgd_cli.locks import HeldError, held
from issgd_cli.randomness import generator

TEST_FRACTION = 0.1


def write(
    directory: Path,
    name: str,
    dataset: Dataset,
    parameters: Mapping[str, Any],
    *,
    validation_fraction: float = 0.05,
    split_seed: int = 42,
    progress: Progress = silent,
) -> None:
    """Write a dataset in the prepared format, replacing what was there only when all is written.

    Blocks go straight to their final rows, so memory stays at a few blocks however large the dataset is.

    Args:
        directory: The folder to make, or a link to it, which stays. Its parent is made too.
        name: The dataset's name, for meta.json.
        dataset: What to write; its streams are read once.
        parameters: Kept in meta.json, to know later whether the folder is still what is asked for.
        validation_fraction: Of dataset.train, rounded up to whole examples; in [0, 1).
        split_seed: Seed of the split and of the stored orders.

    Raises:
        DataError: Bad examples (shape, label, number), or a disk that is full. The old folder is then untouched.
    """
    directory = _target(directory)
    held_out = valid_count(dataset.train.count, validation_fraction)
    counts: dict[SplitName, int] = {
        "train": dataset.train.count - held_out,
        "valid": held_out,
        "test": dataset.test.count,
    }
    if counts["train"] < 1:
        raise DataError(
            f"{name}: {dataset.train.count} examples with validation_fraction {validation_fraction} leave none to "
            "train on. Give more examples or a smaller fraction."
        )
    contents = dataset.contents
    partial = directory.with_name(f".{directory.name}.partial")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        target_bytes = math.prod(contents.targets_shape(1)) * contents.target_dtype.itemsize
        example_bytes = contents.features * contents.input_dtype.itemsize + target_bytes
        _check_disk(directory, sum(counts.values()) * example_bytes)
        partial.mkdir()
        with ThreadPoolExecutor(1) as thread, SplitArrays(partial, counts, contents, dataset.standardise) as arrays:
            sources = thread.submit(dataset.sources)
            splits = for_validation(dataset.train.count, validation_fraction, split_seed).astype(np.int8)  # 1 valid
            rows = np.empty(dataset.train.count, np.int64)
            for number in (0, 1):
                members = splits == number
                rows[members] = generator(split_seed, "order", number).permutation(int(members.sum()))
            total = dataset.train.count + dataset.test.count
            for done in arrays.scatter(dataset.train, splits, rows, "train"):
                progress(f"preparing {name}", done, total)
            rows = generator(split_seed, "order", 2).permutation(dataset.test.count)
            for done in arrays.scatter(dataset.test, np.full(dataset.test.count, 2, np.int8), rows, "test"):
                progress(f"preparing {name}", dataset.train.count + done, total)
        mean, std = arrays.moments.mean_and_std()
        save_array(partial / "mean.npy", mean)
        save_array(partial / "std.npy", std)
        for other, content in dataset.others.items():
            (partial / other).write_bytes(content)
        with ThreadPoolExecutor(1) as thread:  # the disk is busy, while the fingerprint keeps a core busy
            flushed = thread.submit(_flush, [*partial.iterdir()])
            fingerprint = fingerprint_of(partial, contents, progress)
            flushed.result()
        meta = {
            "format": contents.format,
            "name": name,
            "counts": counts,
            "features": contents.features,
            **contents.described(),
            "validation_fraction": validation_fraction,
            "split_seed": split_seed,
            "sources": sources.result(),
            "parameters": dict(parameters),
            "fingerprint": fingerprint,
        }
        (partial / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        _flush([partial / "meta.json"])
        _replace(directory, partial)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"The disk of {directory.parent} is full; nothing was kept of {name}. "
                "Free some space, or prepare into another folder with `--data-dir`."
            ) from error
        raise DataError(
            f"{directory} cannot be written: {error.strerror or error}. Check the folder's permissions."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def valid_count(count: int, validation_fraction: float) -> int:
    """Examples held out of `count` for validation, rounded up: 30,220 of SVHN's 604,388 at 0.05.

    Raises:
        DataError: The fraction is not in [0, 1).
    """
    if not 0 <= validation_fraction < 1:
        raise DataError(f"validation_fraction is {validation_fraction}. Set it to at least 0 and below 1.")
    # The fraction as it is written, not its binary neighbour: 0.1 of 10 is 1, and 0.3 of 10 is 3.
    return math.ceil(Fraction(repr(float(validation_fraction))) * count)


def for_validation(count: int, validation_fraction: float, split_seed: int) -> NDArray[np.bool_]:
    """Which of `count` examples are held out for validation, shape (count,): as many as `valid_count` says."""
    chosen = np.zeros(count, bool)
    held_out = valid_count(count, validation_fraction)
    chosen[generator(split_seed, "split").permutation(count)[:held_out]] = True
    return chosen


def for_test(count: int, split_seed: int) -> NDArray[np.bool_]:
    """Which of `count` examples are held out as test, where their source has no such part: a tenth, shape (count,)."""
    chosen = np.zeros(count, bool)
    chosen[generator(split_seed, "split", 1).permutation(count)[: math.ceil(count * TEST_FRACTION)]] = True
    return chosen


@contextlib.contextmanager
def exclusive(directory: Path, progress: Progress = silent) -> Iterator[None]:
    """Hold the right to make a prepared folder, or what a link to it names; waits while another process makes it.

    Whatever a killed process left behind is removed: nobody else can be writing there now.
    """
    directory = _target(directory)
    if os.path.lexists(directory) and not directory.is_dir():
        raise DataError(f"{directory} is not a folder. Move it away, or choose another place with `--data-dir`.")
    lock = directory.with_name(f".{directory.name}.lock")
    with contextlib.ExitStack() as stack:
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(held(lock, 0))
            except HeldError as holder:
                progress(f"another process is preparing {directory.name} ({holder}); waiting for it", 0, 0)
                stack.enter_context(held(lock, None))
        except OSError as error:
            reason = error.strerror or error
            raise DataError(
                f"{directory.parent} cannot be written: {reason}. Choose another folder with `--data-dir`."
            ) from error
        for left_behind in (directory.with_name(f".{directory.name}.{kind}") for kind in ("partial", "replaced")):
            shutil.rmtree(left_behind, ignore_errors=True)
        yield


def _target(directory: Path) -> Path:
    """Where a link leads, there or not yet: so the link stays, and what is written beside is on the folder's disk."""
    return Path(os.path.realpath(directory))


def _check_disk(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory.parent).free
    if free < needed + 16 * 2**20:
        raise DataError(
            f"Preparing {directory.name} needs {needed / 2**20:,.0f} MiB in {directory.parent}, where "
            f"{free / 2**20:,.0f} MiB are free. Free some space, or prepare into another folder with `--data-dir`."
        )


def _flush(paths: Iterable[Path]) -> None:
    """Make sure that files' bytes are on the disk, so that not even a power cut leaves a folder that looks whole."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(directory: Path, partial: Path) -> None:
    """Put the finished folder in its place. Runs that have the old one open keep reading the old one."""
    replaced = directory.with_name(f".{directory.name}.replaced")
    if directory.exists():
        directory.rename(replaced)
    partial.rename(directory)
    shutil.rmtree(replaced, ignore_errors=True)
