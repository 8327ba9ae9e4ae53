"""Eq. 6 to 9, theorem 1 and our estimate of ||g_TRUE||^2, each derived again by listing all draws of a tiny problem."""

import itertools

import numpy as np
import pytest

from issgd_cli.equations.alain2015 import (
    Float64s,
    effective_sample_size,
    entropy,
    gradient_norm2_bound,
    gradient_norm2_unbiased,
    ideal_trace,
    importance_weights,
    stale_trace,
    trace_of_covariance,
    uniform_trace,
)

SEEDS = range(5)


def problem(seed: int, examples: int = 6, dimensions: int = 3) -> Float64s:
    """Every example's gradient, shape (N, d), of norms spread over two orders of magnitude."""
    random = np.random.default_rng(seed)
    sizes = 10 ** random.uniform(-1, 1, (examples, 1))
    return np.asarray(random.normal(0.3, 1.0, (examples, dimensions)) * sizes)


def squares(gradients: Float64s) -> Float64s:
    """||g_n||^2, shape (N,)."""
    return np.asarray((gradients**2).sum(1))


def true_norm2(gradients: Float64s) -> float:
    """||g_TRUE||^2."""
    return float((gradients.mean(0) ** 2).sum())


def random_weights(seed: int, examples: int = 6) -> Float64s:
    return 10 ** np.random.default_rng([seed, 1]).uniform(-1, 1, examples)


def moments_of_minibatches(gradients: Float64s, omega: Float64s, size: int) -> tuple[Float64s, float]:
    """Mean and trace of the covariance of the estimator p/q g, averaged over M draws: all N^M of them are listed."""
    examples = len(gradients)
    q = omega / omega.sum()
    estimates, chances = [], []
    for drawn in itertools.product(range(examples), repeat=size):
        estimates.append(np.mean([gradients[n] * (1 / examples) / q[n] for n in drawn], axis=0))
        chances.append(np.prod([q[n] for n in drawn]))
    listed, weights = np.array(estimates), np.array(chances)
    assert weights.sum() == pytest.approx(1)
    mean = weights @ listed
    return mean, float(weights @ ((listed - mean) ** 2).sum(1))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_eq_6_divided_by_m_is_the_covariance_trace_over_all_minibatches_of_m(seed: int, size: int) -> None:
    gradients, omega = problem(seed), random_weights(seed)
    mean, trace = moments_of_minibatches(gradients, omega, size)
    np.testing.assert_allclose(mean, gradients.mean(0), rtol=1e-12, atol=1e-12)
    eq_6 = trace_of_covariance(squares(gradients), omega, true_norm2(gradients))
    assert eq_6 / size == pytest.approx(trace, rel=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [1, 2])
def test_eq_7_is_the_covariance_trace_when_drawing_in_proportion_to_the_norms(seed: int, size: int) -> None:
    gradients = problem(seed)
    _, trace = moments_of_minibatches(gradients, np.sqrt(squares(gradients)), size)
    assert ideal_trace(squares(gradients), true_norm2(gradients)) / size == pytest.approx(trace, rel=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [1, 2])
def test_eq_8_is_the_covariance_trace_when_drawing_uniformly(seed: int, size: int) -> None:
    gradients = problem(seed)
    _, trace = moments_of_minibatches(gradients, np.ones(len(gradients)), size)
    assert uniform_trace(squares(gradients), true_norm2(gradients)) / size == pytest.approx(trace, rel=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [1, 2])
def test_eq_9_is_the_covariance_trace_of_todays_gradients_drawn_with_yesterdays_smoothed_norms(
    seed: int, size: int
) -> None:
    now, before = problem(seed), problem(seed + 100)
    stale = np.sqrt(squares(before)) + 0.7
    _, trace = moments_of_minibatches(now, stale, size)
    assert stale_trace(squares(now), stale, true_norm2(now)) / size == pytest.approx(trace, rel=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_eq_6_and_9_do_not_depend_on_the_scale_of_the_weights(seed: int) -> None:
    gradients, omega = problem(seed), random_weights(seed)
    arguments = squares(gradients), true_norm2(gradients)
    for equation in (trace_of_covariance, stale_trace):
        assert equation(arguments[0], 1000 * omega, arguments[1]) == pytest.approx(
            equation(arguments[0], omega, arguments[1]), rel=1e-12
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stand_in_for_the_true_gradient_norm_shifts_all_traces_alike_so_their_order_stays(seed: int) -> None:
    gradients, omega = problem(seed), random_weights(seed)
    s = squares(gradients)
    for equation in (ideal_trace, uniform_trace):
        assert equation(s, 0.0) - equation(s, 2.5) == pytest.approx(2.5)
    for weighted in (trace_of_covariance, stale_trace):
        assert weighted(s, omega, 0.0) - weighted(s, omega, 2.5) == pytest.approx(2.5)


@pytest.mark.parametrize("seed", range(20))
def test_theorem_1_no_random_proposal_has_a_smaller_trace_than_the_norms(seed: int) -> None:
    gradients = problem(seed, examples=12)
    s, g2 = squares(gradients), true_norm2(gradients)
    best, norms = ideal_trace(s, g2), np.sqrt(s)
    random = np.random.default_rng([seed, 2])
    for _ in range(200):
        anything = 10 ** random.uniform(-2, 2, len(s))
        nearby = norms * np.exp(random.normal(0, 1e-3, len(s)))
        for proposal in (anything, nearby):
            assert trace_of_covariance(s, proposal, g2) >= best * (1 - 1e-12)
    assert trace_of_covariance(s, norms, g2) == pytest.approx(best, rel=1e-12)
    assert uniform_trace(s, g2) > best


@pytest.mark.parametrize("seed", SEEDS)
def test_the_expected_weighted_gradient_over_all_draws_is_the_mean_gradient(seed: int) -> None:
    gradients, omega = problem(seed), random_weights(seed)
    everyone = np.arange(len(omega))
    weighted = importance_weights(omega, everyone)[:, None] * gradients
    expected = (omega / omega.sum()) @ weighted
    np.testing.assert_allclose(expected, gradients.mean(0), rtol=1e-12, atol=1e-14)


def test_importance_weights_are_one_over_n_q_of_the_drawn_examples() -> None:
    omega = np.array([1.0, 2.0, 5.0])
    np.testing.assert_allclose(importance_weights(omega, [2, 0, 0]), [8 / 3 / 5, 8 / 3, 8 / 3], rtol=1e-15)


def test_importance_weights_are_all_one_when_the_weights_are_equal() -> None:
    np.testing.assert_array_equal(importance_weights(np.full(7, 0.25), [0, 3, 6]), np.ones(3))


@pytest.mark.parametrize("seed", SEEDS)
def test_with_weights_of_zero_the_expected_gradient_is_the_mean_over_the_others(seed: int) -> None:
    gradients, omega = problem(seed), random_weights(seed)
    omega[[1, 4]] = 0
    drawable = np.flatnonzero(omega)
    weighted = importance_weights(omega, drawable)[:, None] * gradients[drawable]
    expected = (omega[drawable] / omega.sum()) @ weighted
    np.testing.assert_allclose(expected, gradients[drawable].mean(0), rtol=1e-12, atol=1e-14)
    assert not np.allclose(expected, gradients.mean(0), rtol=1e-3)


def test_traces_of_float32_records_are_summed_in_float64() -> None:
    values = np.full(1_000_000, 0.1, np.float32)
    exact = float(np.float32(0.1))
    assert uniform_trace(values, 0.0) == pytest.approx(exact, rel=1e-12)
    assert ideal_trace(values, 0.0) == pytest.approx(exact, rel=1e-12)
    assert trace_of_covariance(values, values, 0.0) == pytest.approx(exact, rel=1e-12)


# ||g_TRUE||^2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_gradient_norm2_unbiased_has_the_true_mean_over_all_chunks_of_one_size(seed: int, size: int) -> None:
    gradients = problem(seed)
    m = squares(gradients).mean()
    estimates = [
        gradient_norm2_unbiased([true_norm2(gradients[list(chunk)])], [size], m, len(gradients))
        for chunk in itertools.combinations(range(len(gradients)), size)
    ]
    assert np.mean(estimates) == pytest.approx(true_norm2(gradients), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sizes", [(3, 3), (2, 2, 2), (4, 2), (5, 1), (3, 2, 1), (2, 1)])
def test_gradient_norm2_unbiased_has_the_true_mean_over_all_divisions_into_chunks(
    seed: int, sizes: tuple[int, ...]
) -> None:
    gradients = problem(seed)
    m = squares(gradients).mean()
    ends = np.cumsum(sizes)
    estimates = []
    for order in itertools.permutations(range(len(gradients))):
        chunks = [list(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
        estimates.append(
            gradient_norm2_unbiased([true_norm2(gradients[chunk]) for chunk in chunks], sizes, m, len(gradients))
        )
    assert np.mean(estimates) == pytest.approx(true_norm2(gradients), rel=1e-10, abs=1e-12)


def test_gradient_norm2_unbiased_of_the_whole_set_is_exact() -> None:
    gradients = problem(3)
    exact = true_norm2(gradients)
    assert gradient_norm2_unbiased([exact], [6], squares(gradients).mean(), 6) == pytest.approx(exact, rel=1e-12)


def test_gradient_norm2_unbiased_is_not_clipped_at_zero() -> None:
    gradients = np.array([[1.0], [-1.0], [1.0], [-1.0]])  # g_TRUE is 0
    assert gradient_norm2_unbiased([0.0], [2], 1.0, 4) < 0
    assert gradient_norm2_unbiased([1.0], [2], 1.0, 4) > 0
    assert true_norm2(gradients) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_b2s_bound_is_never_below_the_exact_value_and_tightens_with_larger_chunks(seed: int) -> None:
    gradients = problem(seed)
    exact = true_norm2(gradients)
    means = []
    for size in (1, 2, 3, 6):
        bounds = [
            gradient_norm2_bound(
                [true_norm2(gradients[list(order[first : first + size])]) for first in range(0, 6, size)]
            )
            for order in itertools.permutations(range(6))
        ]
        assert min(bounds) >= exact * (1 - 1e-12)
        means.append(np.mean(bounds))
    assert means == sorted(means, reverse=True)
    assert means[0] > means[-1]
    assert means[-1] == pytest.approx(exact, rel=1e-12)


def test_b2s_bound_is_the_square_of_the_mean_norm_not_the_mean_of_the_squares() -> None:
    assert gradient_norm2_bound([1.0, 9.0]) == pytest.approx(4.0)


# Appendix B.3, and Kish


def test_entropy_is_log_n_for_uniform_weights_and_zero_for_a_single_one() -> None:
    assert entropy(np.full(10, 3.0)) == pytest.approx(np.log(10))
    assert entropy([0.0, 5.0, 0.0]) == pytest.approx(0.0, abs=1e-15)


def test_entropy_is_minus_sum_p_log_p() -> None:
    omega = random_weights(0)
    p = omega / omega.sum()
    assert entropy(omega) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-12)
    assert entropy([1.0, 0.0, 3.0]) == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)), rel=1e-12)


def test_effective_sample_size_is_n_for_uniform_weights_one_for_a_single_one_and_between_otherwise() -> None:
    assert effective_sample_size(np.full(10, 3.0)) == pytest.approx(10)
    assert effective_sample_size([0.0, 5.0, 0.0]) == pytest.approx(1)
    assert effective_sample_size([1.0, 3.0]) == pytest.approx(16 / 10)
