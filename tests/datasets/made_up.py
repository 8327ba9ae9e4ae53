"""A small dataset of no meaning, and folders that hold it prepared."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets import writing
from issgd_cli.datasets.sources import Block, Dataset, Part

SHAPE = (3, 4, 4)
FEATURES = 48


def blocks_of(inputs: NDArray[Any], targets: NDArray[Any], rows: int = 2048) -> Iterator[Block]:
    """Arrays in memory as blocks: inputs (N, ...) flattened to (N, features), targets (N, ...)."""
    for first in range(0, len(targets), rows):
        last = min(first + rows, len(targets))
        yield inputs[first:last].reshape(last - first, -1), targets[first:last]


def arrays(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (count, FEATURES) and labels (count,)."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, FEATURES), dtype=np.uint8)
    images[:, 5] = 77  # a pixel that never varies
    return images, random.integers(0, 10, count, dtype=np.uint8)


def dataset(train: int = 1000, test: int = 100, rows: int = 64) -> Dataset:
    """Of so many examples, which come in blocks of so many rows."""
    parts = (Part(count, blocks_of(*arrays(count, seed), rows)) for seed, count in ((0, train), (1, test)))
    return Dataset(SHAPE, 10, next(parts), next(parts), lambda: [{"file": "made.up"}])


def written(directory: Path, seed: int = 42, rows: int = 64, train: int = 1000) -> Path:
    """The folder, once the dataset is prepared there."""
    writing.write(directory, "made-up", dataset(rows=rows, train=train), {"a": 1}, split_seed=seed)
    return directory


def bytes_of(directory: Path) -> dict[str, bytes]:
    """Of each file."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def numbers(train: int = 200, test: int = 30, rows: int = 64, **kinds: Any) -> Dataset:
    """Regression: two numbers of a point of the plane in 3 channels, which a network can learn."""
    random = np.random.default_rng(7)

    def part(count: int) -> Part:
        points = (5 + 3 * random.standard_normal((count, 3, 2))).astype(np.float32)
        flat = points.reshape(count, -1)
        return Part(count, blocks_of(points, np.stack([flat.sum(1) / 10, np.sin(flat[:, 0])], 1), rows))

    kinds = {"inputs": "float32", "targets": "numbers", **kinds}
    return Dataset((3, 2), 2, part(train), part(test), lambda: [{"file": "made.up"}], **kinds)


def sentences(train: int = 200, test: int = 30, length: int = 7, tokens: int = 20) -> Dataset:
    """Classes of sequences of tokens, with a vocabulary."""
    random = np.random.default_rng(8)

    def part(count: int) -> Part:
        words = random.integers(0, tokens, (count, length), dtype=np.int32)
        return Part(count, blocks_of(words, words[:, 0] % 3))

    vocabulary = {"vocabulary.json": b"[]"}
    return Dataset((length,), 3, part(train), part(test), list, "int32", "classes", tokens, others=vocabulary)
