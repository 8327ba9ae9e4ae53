"""Points beside a polynomial of order 6 on [-2, 2]: a regression whose gradients' norms range over orders of magnitude.

Source: Salaun et al. 2024, figure 2 names the task; coefficients, noise and sizes are ours.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.sources import Block, Dataset, Part, Progress, Recipe, Request, generated_size

ORDER = 6
REACH = 2.0
NOISE = 0.1  # standard deviation, where the polynomial's is about 1
SEED = 2024
SIZE, TEST_SIZE = 10_000, 2_000
VERSION = 1


def recipe(request: Request) -> Recipe:
    """Points of a polynomial: `size` train and valid examples (10,000 unless given) and 2,000 test examples.

    Raises:
        DataError: A size below 1 or above 10,000,000; or official files were named, of which there are none.
    """
    size = generated_size("polynomial", request, SIZE)
    parameters = {"origin": "generated", "version": VERSION, "seed": SEED, "size": size, "test_size": TEST_SIZE}

    def open_generator(_: Progress) -> Dataset:
        train, test = Part(size, points("train", size)), Part(TEST_SIZE, points("test", TEST_SIZE))
        return Dataset((1,), 1, train, test, lambda: [parameters], "float32", "numbers", standardise=False)

    return Recipe(parameters, open_generator)


def coefficients() -> NDArray[np.float64]:
    """c_0 to c_6, shape (7,): each term is about 1 at the ends of the interval."""
    return np.random.default_rng(SEED).standard_normal(ORDER + 1) / REACH ** np.arange(ORDER + 1)


def points(part: str, count: int) -> Iterator[Block]:
    """x, uniform on [-2, 2], and the polynomial there with its noise, each of shape (count, 1)."""
    draws = np.random.default_rng([SEED, 1 + (part == "test")])
    x = draws.uniform(-REACH, REACH, count)
    y = np.polynomial.polynomial.polyval(x, coefficients()) + NOISE * draws.standard_normal(count)
    yield x[:, None].astype(np.float32), y[:, None].astype(np.float32)
