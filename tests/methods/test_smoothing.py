"""The three ways to choose the smoothing constant do what appendix B.3, or our own promise, says."""

import math

import numpy as np
import pytest

from issgd_cli.equations.alain2015 import Float64s, entropy, stale_trace
from issgd_cli.errors import ConfigError
from issgd_cli.methods.smoothing import entropy_constant, smoothed, smoothing, variance_optimal_constant

SEEDS = range(6)


def norms(seed: int, examples: int = 200) -> Float64s:
    return 10 ** np.random.default_rng(seed).normal(0, 0.8, examples)


def second_moment(constant: float, old: Float64s, new: Float64s) -> float:
    """Eq. 9 without its last term."""
    return stale_trace(new**2, smoothed(old, constant), 0.0)


def mixed(mix: float, old: Float64s) -> float:
    """The constant that belongs to lambda."""
    return math.inf if mix == 1 else mix / (1 - mix) * float(old.mean())


# Constants


def test_a_constant_is_added_to_every_weight() -> None:
    np.testing.assert_array_equal(smoothed([0.0, 2.0], 10.0), [10, 12])
    np.testing.assert_array_equal(smoothed([0.0, 2.0], 0.0), [0, 2])


def test_an_infinite_constant_makes_all_weights_equal_and_positive() -> None:
    np.testing.assert_array_equal(smoothed([0.0, 2.0], math.inf), [1, 1])
    np.testing.assert_array_equal(smoothed([0.0, 0.0], math.inf), [1, 1])


def test_smoothing_leaves_its_input_alone() -> None:
    weights = np.array([1.0, 2.0])
    smoothed(weights, 0.0)[:] = 7
    smoothed(weights, math.inf)[:] = 7
    np.testing.assert_array_equal(weights, [1, 2])


def test_each_setting_chooses_its_own_rule() -> None:
    weights, old, new = norms(0), norms(1), norms(2)
    assert smoothing(3.5)(weights, old, new) == 3.5
    assert smoothing("entropy:0.99")(weights, old, new) == entropy_constant(weights, 0.99)
    assert smoothing("variance-optimal")(weights, old, new) == variance_optimal_constant(old, new)
    assert smoothing("second-moment")(weights, old, new) == 0  # weights that are made otherwise


@pytest.mark.parametrize("setting", [-1.0, math.nan, math.inf, "entropy", "entropy:0", "entropy:1.1", "variance", ""])
def test_an_unknown_setting_is_refused(setting: float | str) -> None:
    with pytest.raises(ConfigError, match="is unknown"):
        smoothing(setting)


# Entropy target


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fraction", [0.9, 0.95, 0.99, 0.9999])
def test_the_entropy_target_is_reached(seed: int, fraction: float) -> None:
    weights = norms(seed)
    target = fraction * math.log(len(weights))
    constant = entropy_constant(weights, fraction)
    if entropy(weights) >= target:
        assert constant == 0
    else:
        assert constant > 0
        assert entropy(smoothed(weights, constant)) == pytest.approx(target, abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_entropy_target_needs_no_constant_when_the_norms_are_above_it_already(seed: int) -> None:
    weights = norms(seed)
    reached = entropy(weights) / math.log(len(weights))
    assert entropy_constant(weights, reached * 0.999) == 0
    assert entropy_constant(weights, reached * 1.001) > 0


def test_the_entropy_target_is_reached_from_a_single_positive_norm() -> None:
    weights = np.zeros(1000)
    weights[3] = 5.0
    for fraction in (0.01, 0.5, 0.99):
        reached = entropy(smoothed(weights, entropy_constant(weights, fraction)))
        assert reached == pytest.approx(fraction * math.log(1000), abs=1e-6)


def test_the_full_entropy_means_uniform_draws() -> None:
    assert entropy_constant([1.0, 2.0, 3.0], 1.0) == math.inf


def test_the_entropy_target_of_norms_that_are_all_zero_means_uniform_draws() -> None:
    assert entropy_constant(np.zeros(5), 0.5) == math.inf


def test_the_entropy_constant_scales_with_the_norms() -> None:
    weights = norms(1)
    assert entropy_constant(1000 * weights, 0.97) == pytest.approx(1000 * entropy_constant(weights, 0.97), rel=1e-5)


# Variance-optimal


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("change", [0.1, 0.5, 1.0, 2.0])
def test_the_variance_optimal_constant_equals_the_best_of_a_fine_grid(seed: int, change: float) -> None:
    old = norms(seed)
    new = old * np.exp(np.random.default_rng([seed, 1]).normal(0, change, len(old)))
    moments = np.array([second_moment(mixed(mix, old), old, new) for mix in np.linspace(0, 1, 2001)])
    best = second_moment(variance_optimal_constant(old, new), old, new)
    assert best <= moments.min() * (1 + 1e-9)
    assert best == pytest.approx(moments.min(), rel=1e-4)
    # Never worse than unsmoothed or uniform draws, on these pairs.
    assert best <= moments[0] * (1 + 1e-12)
    assert best <= moments[-1] * (1 + 1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_9_is_convex_in_lambda_so_a_search_in_one_dimension_finds_the_minimum(seed: int) -> None:
    old, new = norms(seed), norms(seed + 50)
    moments = np.array([second_moment(mixed(mix, old), old, new) for mix in np.linspace(0, 1, 501)])
    assert (np.diff(moments, 2) >= -1e-9 * moments.max()).all()


def test_norms_that_have_not_changed_need_no_constant() -> None:
    old = norms(0)
    assert variance_optimal_constant(old, old) == pytest.approx(0, abs=1e-4 * old.mean())


def test_new_norms_that_owe_nothing_to_the_old_ones_ask_for_nearly_uniform_draws() -> None:
    old, new = norms(0, 20_000), norms(1, 20_000)
    constant = variance_optimal_constant(old, new)
    assert constant > 5 * old.mean()


def test_equal_new_norms_mean_uniform_draws() -> None:
    old = norms(0)
    constant = variance_optimal_constant(old, np.ones_like(old))
    assert second_moment(constant, old, np.ones_like(old)) == pytest.approx(1.0, rel=1e-9)


def test_equal_old_norms_are_uniform_whatever_the_constant() -> None:
    old, new = np.full(50, 2.0), norms(0, 50)
    constant = variance_optimal_constant(old, new)
    assert second_moment(constant, old, new) == pytest.approx((new**2).mean(), rel=1e-12)


def test_an_old_norm_of_zero_whose_gradient_came_back_rules_the_unsmoothed_proposal_out() -> None:
    old, new = norms(0), norms(0).copy()
    old[7] = 0.0
    constant = variance_optimal_constant(old, new)
    assert constant > 0
    assert math.isfinite(second_moment(constant, old, new))


def test_an_old_norm_of_zero_that_stayed_zero_asks_for_nothing() -> None:
    old = norms(0)
    old[7] = 0.0
    assert variance_optimal_constant(old, old) == pytest.approx(0, abs=1e-4 * old.mean())


def test_without_pairs_to_learn_from_draws_are_uniform() -> None:
    assert variance_optimal_constant([], []) == math.inf
    assert variance_optimal_constant(np.zeros(4), np.ones(4)) == math.inf


def test_the_variance_optimal_constant_is_the_same_from_float32_records() -> None:
    old, new = norms(0).astype(np.float32), norms(0).astype(np.float32) * 2
    new[::3] *= 5
    wide = variance_optimal_constant(old.astype(np.float64), new.astype(np.float64))
    assert variance_optimal_constant(old, new) == wide
