"""What is learned of norms that drift, against the best weights there are: on tables whose law of drift is known."""

import numpy as np
import pytest

from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.methods.drift import KNOTS, NORMS, UNIFORM, Drift, with_uniform
from tests.methods.laws import Forgetting, Jumping, Law, Learned, Staying, above_the_least

PAIRS = 20_000


def learned(law: Law, seed: int, size: int = PAIRS) -> tuple[Drift, float]:
    """Of so many pairs; and their unit."""
    old, ages, new = law.pairs(np.random.default_rng(seed), size)
    drift, unit = Drift.none(), float(old.mean())
    drift.add(old / unit, ages, new / unit)
    return drift, unit


def excess(law: Law, drift: Drift, unit: float, share: float = 0.0) -> tuple[float, float]:
    """By how much the second moment is above the least that a function of norm and age has: ours, and uniform's.

    Ours with such a share of uniform draws.
    """
    old, ages, _ = law.pairs(np.random.default_rng(1000), 50_000)
    squares = law.squares(old, ages)
    ours = with_uniform(drift.weights(old / unit, ages), share)
    return above_the_least(squares, ours), above_the_least(squares, np.ones(len(old)))


LAWS = [Forgetting(), Jumping(), Learned(), Staying()]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_the_variance_is_within_two_percent_of_the_best_function_of_norm_and_age(law: Law) -> None:
    found = [excess(law, *learned(law, seed)) for seed in range(5)]
    ours, uniform = np.mean(found, 0)
    assert -1e-12 < ours < 0.02
    assert uniform > 0.2


@pytest.mark.parametrize(("law", "price"), list(zip(LAWS, [0.07, 0.02, 0.02, 0.10], strict=True)))
def test_the_proposal_in_use_costs_what_its_uniform_share_costs(law: Law, price: float) -> None:
    found = [excess(law, *learned(law, seed), UNIFORM) for seed in range(5)]
    ours, uniform = np.mean(found, 0)
    assert ours == pytest.approx(price, abs=0.01)
    assert ours < uniform / 3


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
