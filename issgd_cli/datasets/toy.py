"""Points of a square in three classes, the arms of a pinwheel: a problem that can be drawn, importances and all.

Source: Salaun et al. 2024, figure 1 shows such a problem; the borders, spirals from the centre, and sizes are ours.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.sources import Block, Dataset, Part, Progress, Recipe, Request, generated_size

ARMS = 3
TURN, START = 1.5, 0.7  # radians by which the borders turn from the centre to a distance of 1, and where they begin
SIZE, TEST_SIZE = 2_000, 1_000
VERSION = 1


def recipe(request: Request) -> Recipe:
    """Points of a square: `size` train and valid examples (2,000 unless given) and 1,000 test examples.

    Raises:
        DataError: A size below 1 or above 10,000,000; or official files were named, of which there are none.
    """
    size, seed = generated_size("toy", request, SIZE), request.split_seed
    parameters = {"origin": "generated", "version": VERSION, "seed": seed, "size": size, "test_size": TEST_SIZE}

    def open_generator(_: Progress) -> Dataset:
        train, test = Part(size, points("train", size, seed)), Part(TEST_SIZE, points("test", TEST_SIZE, seed))
        return Dataset((2,), ARMS, train, test, lambda: [parameters], "float32", standardise=False)

    return Recipe(parameters, open_generator)


def classes(places: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    """In which arm of the pinwheel points lie, shape (n,), of their places, shape (n, 2)."""
    x, y = places.astype(np.float64).T
    angles = np.arctan2(y, x) + TURN * np.hypot(x, y) + START
    arms: NDArray[np.int32] = (np.floor(angles * ARMS / math.tau) % ARMS).astype(np.int32)
    return arms


def points(part: str, count: int, seed: int) -> Iterator[Block]:
    """Places, uniform on [-1, 1]^2, shape (count, 2), and their classes."""
    draws = np.random.default_rng([seed, part == "test"])
    places = draws.uniform(-1, 1, (count, 2)).astype(np.float32)
    yield places, classes(places)
