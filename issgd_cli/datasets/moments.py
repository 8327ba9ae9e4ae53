"""Mean and standard deviation of each feature over a stream of examples: what inputs are standardised by."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.contents import Contents

Standard = tuple[NDArray[np.float32], NDArray[np.float32]]
# Of the mean: less is the rounding of float64, since float32 numbers that differ at all spread by more than that.
LEAST_RELATIVE_STD = 2.0**-40


class Moments(Protocol):
    """See the module."""

    def add(self, inputs: NDArray[np.generic]) -> None:
        """Takes a block of examples along, (b, features)."""

    def mean_and_std(self) -> Standard:
        """Of all that were added: float32, (features,) each; std 1 where a feature never varies."""


def moments_of(contents: Contents, standardise: bool) -> Moments:
    """What sums up inputs of these contents; tokens, and what is not to be standardised, have mean 0 and std 1."""
    if contents.inputs == "int32" or not standardise:
        return AsTheyAre(contents.features)
    return OfBytes(contents.features) if contents.inputs == "uint8" else OfNumbers(contents.features)


class AsTheyAre:
    """Of inputs that stay what they are."""

    def __init__(self, features: int) -> None:
        self._features = features

    def add(self, inputs: NDArray[np.generic]) -> None:
        """Looks at nothing."""

    def mean_and_std(self) -> Standard:
        """0 and 1."""
        return np.zeros(self._features, np.float32), np.ones(self._features, np.float32)


class OfBytes:
    """Of uint8 inputs: exact, so that the order and the size of the blocks leave no trace."""

    def __init__(self, features: int) -> None:
        self._count = 0
        self._sum = np.zeros(features, np.uint64)
        self._sum_of_squares = np.zeros(features, np.uint64)

    def add(self, inputs: NDArray[np.generic]) -> None:
        """Sums integers."""
        self._count += len(inputs)
        for first in range(0, len(inputs), 256):  # float32 holds sums of 256 squares of bytes exactly
            x = inputs[first : first + 256].astype(np.float32)
            self._sum += x.sum(axis=0).astype(np.uint64)
            self._sum_of_squares += np.einsum("bf,bf->f", x, x).astype(np.uint64)

    def mean_and_std(self) -> Standard:
        """Rounded once, at the end."""
        n = self._count
        sums = self._sum.astype(object)  # whole numbers of any length: exact until the last division
        variances = (n * self._sum_of_squares.astype(object) - sums * sums).astype(np.float64) / n**2
        std = np.sqrt(variances)
        mean = self._sum.astype(np.float64) / n
        return mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)


class OfNumbers:
    """Of float32 inputs: block by block about each one's own mean (Chan et al. 1983), so that no digits cancel."""

    def __init__(self, features: int) -> None:
        self._count = 0
        self._mean = np.zeros(features)
        self._squares = np.zeros(features)  # sums of squared distances from the mean

    def add(self, inputs: NDArray[np.generic]) -> None:
        """Merges the block's mean and squares, in float64."""
        if len(inputs) == 0:
            return
        x = inputs.astype(np.float64)
        mean, total = x.mean(axis=0), self._count + len(x)
        apart = mean - self._mean
        self._squares += np.square(x - mean).sum(axis=0) + apart**2 * (self._count * len(x) / total)
        self._mean += apart * (len(x) / total)
        self._count = total

    def mean_and_std(self) -> Standard:
        """Rounded at the end."""
        std = np.sqrt(self._squares / self._count)
        least = np.maximum(LEAST_RELATIVE_STD * np.abs(self._mean), np.finfo(np.float32).tiny)
        return self._mean.astype(np.float32), np.where(std > least, std, 1.0).astype(np.float32)
