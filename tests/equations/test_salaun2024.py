"""Each result derived again, by listing all minibatches that two proposals may draw from five examples."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from issgd_cli.equations import alain2015, salaun2024
from issgd_cli.equations.alain2015 import Float64s

SEEDS = range(4)
N = 5


def problem(seed: int, proposals: int = 2) -> tuple[Float64s, Float64s]:
    """Gradients, shape (5, 3), and chances, shape (J, 5)."""
    random = np.random.default_rng(seed)
    gradients = random.normal(0.3, 1.0, (N, 3)) * 10 ** random.uniform(-1, 1, (N, 1))
    weights = 10 ** random.uniform(-1, 1, (proposals, N))
    return gradients, weights / weights.sum(1, keepdims=True)


def minibatches(chances: Float64s, counts: tuple[int, ...]) -> Iterator[tuple[NDArray[np.int64], float]]:
    """All that n_j draws by each p_j may give, and their chances."""
    by = np.repeat(np.arange(len(counts)), counts)
    for minibatch in itertools.product(range(N), repeat=len(by)):
        drawn = np.array(minibatch)
        yield drawn, float(chances[by, drawn].prod())


def moments(estimates: list[Float64s], chances: list[float]) -> tuple[Float64s, float]:
    """Mean, and trace of the covariance."""
    assert sum(chances) == pytest.approx(1)
    mean = np.asarray(np.array(chances) @ np.array(estimates))
    return mean, float(np.array(chances) @ ((np.array(estimates) - mean) ** 2).sum(1))


def balance(gradients: Float64s, chances: Float64s, n: tuple[int, ...]) -> tuple[Float64s, float]:
    """Of the balance heuristic's estimate of the mean gradient."""
    s = salaun2024.mixture(chances, np.array(n, np.float64))
    listed = list(minibatches(chances, n))
    factors = salaun2024.balance_factors(s, N)
    return moments([factors[drawn] @ gradients[drawn] for drawn, _ in listed], [chance for _, chance in listed])


@pytest.mark.parametrize(("size", "proposals", "expected"), [(8, 3, [3, 3, 2]), (4, 2, [2, 2]), (2, 3, [1, 1, 0])])
def test_counts_differ_by_one_at_most_and_make_the_minibatch(size: int, proposals: int, expected: list[int]) -> None:
    assert salaun2024.counts(size, proposals) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [(1, 1), (2, 1), (2, 2), (3, 0)])
def test_the_balance_heuristic_is_unbiased_with_the_trace_that_is_told(seed: int, n: tuple[int, ...]) -> None:
    gradients, chances = problem(seed)
    mean, trace = balance(gradients, chances, n)
    np.testing.assert_allclose(mean, gradients.mean(0))
    s = salaun2024.mixture(chances, np.array(n, np.float64))
    np.testing.assert_allclose(s, [sum(n[j] * chances[j, i] for j in range(2)) for i in range(N)])
    means = salaun2024.shares(chances, s) @ gradients / N
    told = salaun2024.trace_of_covariance((gradients**2).sum(1), s, n, (means**2).sum(1))
    assert told == pytest.approx(trace)
    of_mixture = alain2015.trace_of_covariance((gradients**2).sum(1), s, (gradients.mean(0) ** 2).sum())
    assert told <= of_mixture / sum(n) + 1e-12
    g2 = float((gradients.mean(0) ** 2).sum())
    by_mixture = salaun2024.trace_of_fixed_counts(of_mixture, g2, n, (means**2).sum(1))
    assert by_mixture == pytest.approx(sum(n) * told, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_of_one_proposal_the_trace_is_eq_6_over_the_minibatch(seed: int) -> None:
    gradients, chances = problem(seed, proposals=1)
    squares, true_norm2 = (gradients**2).sum(1), float((gradients.mean(0) ** 2).sum())
    expected = alain2015.trace_of_covariance(squares, chances[0], true_norm2) / 3
    found = salaun2024.trace_of_covariance(squares, 3 * chances[0], [3], [true_norm2 / 9])
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_matrix_of_the_draws_is_the_exact_one_in_expectation(seed: int) -> None:
    _, chances = problem(seed)
    n = (2, 1)
    share = salaun2024.shares(chances, salaun2024.mixture(chances, np.array(n, np.float64)))
    found = sum(chance * salaun2024.sampled_matrix(share[:, drawn]) for drawn, chance in minibatches(chances, n))
    exact = salaun2024.exact_matrix(chances, n)
    np.testing.assert_allclose(found, exact)
    np.testing.assert_allclose(exact @ n, np.ones(2))
    np.testing.assert_allclose(np.array(n) @ share, np.ones(N))
    residuals = [salaun2024.residual(share[:, drawn]) * chance for drawn, chance in minibatches(chances, n)]
    np.testing.assert_allclose(np.sum(residuals, 0), np.zeros(2), atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ridge", [1e-12, 0.1, 1e6])
def test_with_the_exact_matrix_the_optimal_weights_are_the_balance_heuristics(seed: int, ridge: float) -> None:
    """Whatever the ridge: it takes nothing away from what is there already."""
    gradients, chances = problem(seed)
    n = (2, 1)
    w = salaun2024.multipliers(salaun2024.exact_matrix(chances, n), n, ridge)
    s = salaun2024.mixture(chances, np.array(n, np.float64))
    share = salaun2024.shares(chances, s)
    np.testing.assert_allclose(w, n, rtol=1e-6)
    np.testing.assert_allclose(salaun2024.coefficients(w, share, s), 1 / s, rtol=1e-6)
    b = share / s @ gradients
    np.testing.assert_allclose(salaun2024.solution(np.eye(2), b, 1e-12), b)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sum_of_the_solution_is_one_weighted_gradient(seed: int) -> None:
    """Algorithm 2 at beta = 0 as it is written: A and b of the draws, A a = b, the sum of a."""
    gradients, chances = problem(seed)
    n = (3, 3)
    s = salaun2024.mixture(chances, np.array(n, np.float64))
    share = salaun2024.shares(chances, s)
    drawn = np.array([0, 1, 2, 1, 3, 4])
    matrix = np.zeros((2, 2))
    b = np.zeros((2, 3))
    for i in drawn:
        matrix += np.outer(share[:, i], share[:, i])
        b += np.outer(share[:, i], gradients[i]) / s[i]
    a = salaun2024.solution(matrix, b, 1e-13)
    np.testing.assert_allclose(matrix @ a, b, rtol=1e-8)
    w = salaun2024.multipliers(matrix, n, 1e-13)
    c = salaun2024.coefficients(w, share[:, drawn], s[drawn])
    np.testing.assert_allclose(c @ gradients[drawn], a.sum(0), rtol=1e-6)
    # And the control variate with this very a, which looks unbiased, is the same.
    found = salaun2024.control_variate(gradients[drawn], chances[:, drawn], s[drawn], a)
    np.testing.assert_allclose(found, a.sum(0), rtol=1e-6)


@pytest.mark.parametrize("ridge", [1e-9, 0.1])
def test_a_ridge_solves_what_is_singular_and_takes_it_to_the_balance_heuristic(ridge: float) -> None:
    share = np.array([[0.5], [0.25]])
    w = salaun2024.multipliers(salaun2024.sampled_matrix(share), (1, 1), ridge)
    assert np.isfinite(w).all()
    far = salaun2024.multipliers(salaun2024.sampled_matrix(share), (1, 1), 1e9)
    np.testing.assert_allclose(far, [1, 1], rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_control_variate_is_unbiased_for_any_solution(seed: int) -> None:
    gradients, chances = problem(seed)
    n = (2, 1)
    s = salaun2024.mixture(chances, np.array(n, np.float64))
    share = salaun2024.shares(chances, s)
    a = np.random.default_rng(seed).normal(0, 30, (2, 3))
    listed = list(minibatches(chances, n))
    found = [salaun2024.control_variate(gradients[drawn], chances[:, drawn], s[drawn], a) for drawn, _ in listed]
    mean, _ = moments(found, [chance for _, chance in listed])
    np.testing.assert_allclose(mean, gradients.sum(0))
    drawn, _ = listed[77]
    plain = (1 / s[drawn]) @ gradients[drawn]
    np.testing.assert_allclose(found[77], plain + salaun2024.residual(share[:, drawn]) @ a)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_control_variate_with_the_best_solution_takes_variance_away(seed: int) -> None:
    """a = A^-1 b over all N, and where gradients are made of the proposals, all of it."""
    gradients, chances = problem(seed)
    n = (2, 2)
    s = salaun2024.mixture(chances, np.array(n, np.float64))
    b = salaun2024.shares(chances, s) @ gradients
    a = np.linalg.lstsq(salaun2024.exact_matrix(chances, n), b, rcond=None)[0]
    listed = list(minibatches(chances, n))
    odds = [chance for _, chance in listed]
    found = [salaun2024.control_variate(gradients[i], chances[:, i], s[i], a) / N for i, _ in listed]
    assert moments(found, odds)[1] <= balance(gradients, chances, n)[1] * (1 + 1e-9)
    spanned = chances.T @ np.array([[1.0, -2.0, 0.5], [3.0, 0.1, 1.0]])
    a = np.array([[1.0, -2.0, 0.5], [3.0, 0.1, 1.0]])
    exact = [salaun2024.control_variate(spanned[i], chances[:, i], s[i], a) for i, _ in listed]
    assert moments(exact, odds)[1] == pytest.approx(0, abs=1e-18)


def bias(seed: int, n: tuple[int, ...], ridge: float) -> float:
    """Of algorithm 2 at beta = 0: its norm over that of the mean gradient."""
    gradients, chances = problem(seed)
    s = salaun2024.mixture(chances, np.array(n, np.float64))
    share = salaun2024.shares(chances, s)
    found, odds = [], []
    for drawn, chance in minibatches(chances, n):
        w = salaun2024.multipliers(salaun2024.sampled_matrix(share[:, drawn]), n, ridge)
        found.append(salaun2024.coefficients(w, share[:, drawn], s[drawn]) @ gradients[drawn] / N)
        odds.append(chance)
    mean, _ = moments(found, odds)
    return float(np.linalg.norm(mean - gradients.mean(0)) / np.linalg.norm(gradients.mean(0)))


@pytest.mark.parametrize("seed", SEEDS)
def test_with_a_matrix_of_the_same_draws_it_is_biased_less_with_more_of_them_or_a_ridge(seed: int) -> None:
    few, more = bias(seed, (1, 1), 1e-3), bias(seed, (2, 2), 1e-3)
    assert few > 0.01
    assert more < few
    assert bias(seed, (1, 1), 1e6) < 1e-4
