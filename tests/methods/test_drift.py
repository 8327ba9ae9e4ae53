"""What is learned of norms that drift, against the best weights there are: on tables whose law of drift is known."""

from abc import ABC, abstractmethod

import numpy as np
import pytest
from numpy.typing import NDArray

from issgd_cli.equations.alain2015 import Float64s, trace_of_covariance
from issgd_cli.methods.drift import KNOTS, NORMS, Drift

PAIRS = 20_000


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


def learned(law: Law, seed: int, size: int = PAIRS) -> tuple[Drift, float]:
    """Of so many pairs; and their unit."""
    old, ages, new = law.pairs(np.random.default_rng(seed), size)
    drift, unit = Drift.none(), float(old.mean())
    drift.add(old / unit, ages, new / unit)
    return drift, unit


def excess(law: Law, drift: Drift, unit: float) -> tuple[float, float]:
    """By how much the second moment is above the least that a function of norm and age has: ours, and uniform's."""
    old, ages, _ = law.pairs(np.random.default_rng(1000), 50_000)
    squares = law.squares(old, ages)
    least = trace_of_covariance(squares, np.sqrt(squares), 0.0)
    ours = trace_of_covariance(squares, drift.weights(old / unit, ages), 0.0)
    return ours / least - 1, trace_of_covariance(squares, np.ones(len(old)), 0.0) / least - 1


@pytest.mark.parametrize("law", [Forgetting(), Jumping(), Learned(), Staying()], ids=lambda law: type(law).__name__)
def test_the_variance_is_within_two_percent_of_the_best_function_of_norm_and_age(law: Law) -> None:
    found = [excess(law, *learned(law, seed)) for seed in range(5)]
    ours, uniform = np.mean(found, 0)
    assert -1e-12 < ours < 0.02
    assert uniform > 0.2


def test_few_pairs_are_better_than_none() -> None:
    for law in (Forgetting(), Jumping(), Learned()):
        ours, uniform = np.mean([excess(law, *learned(law, seed, 500)) for seed in range(5)], 0)
        assert ours < uniform / 2


def test_the_objective_has_no_lower_value_nearby() -> None:
    """The least of eq. 9 on the pairs, roughness added: a convex function, held against small changes of every knot."""
    drift, _ = learned(Jumping(), 0, 2000)
    best, total = drift.fitted(), drift.counts.sum()

    def value(logs: Float64s) -> float:
        by_norm = np.diff(logs.reshape(-1, NORMS), 2, axis=1)
        by_age = np.diff(logs.reshape(-1, NORMS), axis=0)
        rough = (100 * np.square(by_norm).sum() + 10 * np.square(by_age).sum()) / total
        return float(np.log(drift.counts @ np.exp(logs)) + np.log(drift.squares @ np.exp(-logs)) + rough / 2)

    least = value(best)
    for change in np.random.default_rng(0).normal(0, 1, (200, KNOTS)):
        assert value(best + 0.3 * change / np.linalg.norm(change)) > least - 1e-7
        assert value(best + 0.01 * np.roll(np.eye(1, KNOTS)[0], int(abs(change[0]) * 100))) > least - 1e-7


def test_nothing_to_learn_from_means_uniform_draws() -> None:
    norms, ages = np.array([0, 0.1, 1, 30.0]), np.array([1, 5, 100, 1e6])
    assert set(Drift.none().weights(norms, ages)) == {1.0}
    vanished = Drift.none()
    vanished.add([1.0, 2.0], [1, 1], [0.0, 0.0])
    assert set(vanished.weights(norms, ages)) == {1.0}


def test_what_was_never_seen_goes_on_as_the_power_that_it_was() -> None:
    random, drift = np.random.default_rng(0), Drift.none()
    old = 2.0 ** random.uniform(-3, 3, 100_000)
    drift.add(old, random.integers(1, 60, len(old)), np.sqrt(old))
    weights = drift.weights(2.0 ** np.array([-12.0, -6, 0, 6]), np.full(4, 1e4))
    np.testing.assert_allclose(np.log2(weights[1:] / weights[:-1]), 3, rtol=0.2)


def test_weights_are_finite_and_positive_whatever_the_norms() -> None:
    drift, _ = learned(Learned(), 0)
    norms = np.array([0, 1e-300, 1e-30, 1, 1e30, 1e150])
    drift.add(norms, np.ones(6), norms[::-1])
    for ages in (0.5, 1, 1e9):
        weights = drift.weights(norms, np.full(6, ages))
        assert np.isfinite(weights).all()
        assert (weights > 0).all()


def test_pairs_that_fade_count_less() -> None:
    drift, _ = learned(Staying(), 0)
    before = drift.counts.copy(), drift.squares.copy()
    drift.fade(0.25)
    np.testing.assert_array_equal([drift.counts, drift.squares], np.multiply(before, 0.25))
    drift.fade(0.0)
    assert set(drift.weights(np.array([0.1, 10]), np.ones(2))) == {1.0}
