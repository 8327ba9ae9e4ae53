"""Laws by which norms drift, the best weights of each known: synthetic tables for what is learned of them."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from issgd_cli.equations.alain2015 import Float64s, trace_of_covariance


class Law(ABC):
    """How norms drift: pairs of them by chance, and what the square of the new one is on the average."""

    def pairs(self, random: np.random.Generator, size: int) -> tuple[Float64s, NDArray[np.int64], Float64s]:
        ages = 1 + (random.exponential(80, size) + random.integers(0, 58, size)).astype(np.int64)
        old = np.exp(self.fresh(random, size))
        return old, ages, self.after(old, ages, random)

    def fresh(self, random: np.random.Generator, size: int) -> Float64s:
        return random.normal(0, 1, size)

    @abstractmethod
    def after(self, old: Float64s, ages: NDArray[np.int64], random: np.random.Generator) -> Float64s: ...

    @abstractmethod
    def squares(self, old: Float64s, ages: NDArray[np.int64]) -> Float64s: ...


class Forgetting(Law):
    """Logarithms go back to their mean, as an Ornstein-Uhlenbeck process."""

    def after(self, old: Float64s, ages: NDArray[np.int64], random: np.random.Generator) -> Float64s:
        kept = np.exp(-ages / 400)
        return np.asarray(np.exp(kept * np.log(old) + np.sqrt(1 - kept**2) * random.normal(0, 1, len(old))))

    def squares(self, old: Float64s, ages: NDArray[np.int64]) -> Float64s:
        kept = np.exp(-ages / 400)
        return np.asarray(np.exp(2 * kept * np.log(old) + 2 * (1 - kept**2)))


class Jumping(Law):
    """A norm stays for a time, then it is another example's."""

    def after(self, old: Float64s, ages: NDArray[np.int64], random: np.random.Generator) -> Float64s:
        stays = random.random(len(old)) < np.exp(-ages / 100)
        return np.where(stays, old, np.exp(self.fresh(random, len(old))))

    def squares(self, old: Float64s, ages: NDArray[np.int64]) -> Float64s:
        kept, mean = np.exp(-ages / 100), np.exp(2 * self.fresh(np.random.default_rng(0), 1_000_000)).mean()
        return np.asarray(kept * old**2 + (1 - kept) * mean)


class Learned(Jumping):
    """Six of seven examples are as good as learned, and come back at times."""

    def fresh(self, random: np.random.Generator, size: int) -> Float64s:
        return np.where(random.random(size) < 0.15, random.normal(0, 0.7, size), random.normal(-5, 1.5, size))


class Staying(Law):
    """What is so small stays so small, whatever its age."""

    def after(self, old: Float64s, ages: NDArray[np.int64], random: np.random.Generator) -> Float64s:
        return np.asarray(old * random.exponential(1, len(old)))

    def squares(self, old: Float64s, ages: NDArray[np.int64]) -> Float64s:
        return 2 * old**2


def above_the_least(squares: Float64s, weights: Float64s) -> float:
    """By how much of it draws by these weights exceed the least second moment that a function of norm and age has.

    Args:
        squares: That are to be expected, shape (N,).
        weights: Shape (N,).
    """
    least = trace_of_covariance(squares, np.sqrt(squares), 0.0)
    return trace_of_covariance(squares, weights, 0.0) / least - 1
