"""Multiple importance sampling of gradients, one pure function for each result.

Notation: N training examples, J proposals; `chances[j, i]` = p_j(i), the chance of example i by proposal j;
`counts[j]` = n_j, how many of a minibatch's M examples are drawn by it, with replacement; `mixture[i]` = S(i) =
sum_k n_k p_k(i); `shares[j, i]` = W_j(i) = p_j(i) / S(i). Where examples were drawn, the last axis is of these, of all
proposals together, B of them. Estimates are of sums over all N: divide by N for the mean gradient. All in float64.

The text's W_j = n_j p_j / S gives sum_j a_j / n_j: with W_j = p_j / S as here, sum_j a_j is what is wanted.

Source of all: Salaun, Huang, Georgiev, Mitra, Singh, "Multiple Importance Sampling for Stochastic Gradient Estimation",
2024 (arXiv:2407.15525), by the names of its results; and Kondapaneni et al. 2019, "Optimal multiple importance
sampling", for the linear system of algorithm 2. Marked are those that are ours.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from issgd_cli.equations.alain2015 import Float64s

Vector = TypeVar("Vector")  # NumPy's or torch's


def counts(size: int, proposals: int) -> list[int]:
    """n_j: M draws by J proposals, as even as can be, the first of them one more, J numbers. (Which: ours.)"""
    return [size // proposals + (number < size % proposals) for number in range(proposals)]


def mixture(chances: Vector, counts: Vector) -> Vector:
    """S: how often each example is expected in a minibatch.

    Args:
        chances: p_j, shape (J, B) or (J, N): NumPy's or torch's.
        counts: n_j, float64, shape (J,), of the same kind.
    """
    density: Vector = counts @ chances  # type: ignore[operator]
    return density


def balance_factors(mixture: Vector, examples: int) -> Vector:
    """1 / (N S): the sum of so many times each drawn example's gradient is unbiased for the mean of all.

    Source: the balance heuristic, w_j = n_j p_j / S of the multi-sample estimator.
    """
    factors: Any = mixture
    result: Vector = 1 / (examples * factors)
    return result


def shares(chances: Vector, mixture: Vector) -> Vector:
    """W_j = p_j / S, shape (J, B); sum_j n_j W_j = 1 for each example."""
    share: Any = chances
    result: Vector = share / mixture
    return result


def sampled_matrix(shares: Vector) -> Vector:
    """A of the examples drawn, sum_i W(i) W(i)^T, shape (J, J). Its expectation is `exact_matrix`.

    Source: algorithm 2.
    """
    drawn: Any = shares
    result: Vector = drawn @ drawn.T
    return result


def exact_matrix(chances: ArrayLike, counts: ArrayLike) -> Float64s:
    """A over all N: sum_i p_j(i) p_k(i) / S(i), shape (J, J). A n = 1: with it, sum_j a_j is the balance heuristic."""
    p = np.asarray(chances, np.float64)
    return np.asarray((p / mixture(p, np.asarray(counts, np.float64))) @ p.T)


def solution(matrix: ArrayLike, right: ArrayLike, ridge: float) -> Float64s:
    """x of (A + ridge mean(diag A) I) x = right: a of algorithm 2, shape (J, ...), where `right` is b.

    Args:
        matrix: A, symmetric, of no negative eigenvalue, not 0, shape (J, J).
        right: Shape (J,) or (J, T).
        ridge: > 0, since A of few draws is nearly singular. (Ours: the paper's is not known.)
    """
    a = np.asarray(matrix, np.float64)
    return np.asarray(np.linalg.solve(a + ridge * a.diagonal().mean() * np.eye(len(a)), np.asarray(right, np.float64)))


def multipliers(matrix: ArrayLike, counts: ArrayLike, ridge: float) -> Float64s:
    """w, shape (J,), so that the estimate sum_j a_j is w . b: A^-1 1, for no ridge.

    A ridge takes it towards n, which is the balance heuristic: n + (A + ridge ...)^-1 (1 - A n). (Ours: towards 0, as a
    plain one would, the estimate shrinks.)

    Source: algorithm 2.
    """
    n = np.asarray(counts, np.float64)
    return np.asarray(n + solution(matrix, 1 - np.asarray(matrix, np.float64) @ n, ridge))


def coefficients(multipliers: Vector, shares: Vector, mixture: Vector) -> Vector:
    """c_i = w . W(i) / S(i), shape (B,): with b of the same draws, w . b = sum_i c_i g_i, by one weighted gradient.

    Source: algorithm 2 with beta = 0.
    """
    share: Any = shares
    result: Vector = (multipliers @ share) / mixture
    return result


def residual(shares: Vector) -> Vector:
    """1 - sum_i W_j(i) over the examples drawn, shape (J,): what is left of each control variate, 0 in expectation.

    (Ours.)
    """
    drawn: Any = shares
    result: Vector = 1 - drawn.sum(1)
    return result


def control_variate(gradients: ArrayLike, chances: ArrayLike, mixture: ArrayLike, solution: ArrayLike) -> Float64s:
    """sum_j a_j + sum_i (g_i - sum_j a_j p_j(i)) / S(i): unbiased for sum_n g_n, whatever a of earlier draws is.

    It is the balance heuristic's estimate, and `residual` . a.

    Args:
        gradients: Of the examples drawn, shape (B, T).
        chances: Theirs, shape (J, B).
        mixture: Theirs, shape (B,).
        solution: a, shape (J, T).

    Source: ours; with a of the same draws it is algorithm 2's sum_j a_j for beta = 0, which is biased.
    """
    a, p = np.asarray(solution, np.float64), np.asarray(chances, np.float64)
    left = np.asarray(gradients, np.float64) - p.T @ a
    return np.asarray(a.sum(0) + (left / np.asarray(mixture, np.float64)[:, None]).sum(0))


def trace_of_covariance(
    squared_norms: ArrayLike, mixture: ArrayLike, counts: ArrayLike, mean_norms2: ArrayLike
) -> float:
    """Tr(Sigma) of a minibatch's gradient by the balance heuristic: M times it compares with eq. 6-8 of Alain et al.

    Each proposal's draws are a fixed number, so what they vary about is their own mean, not that of all: it is at most
    eq. 6 / M of draws by the mixture S / M.

    Args:
        squared_norms: ||g(x_n)||^2, shape (N,).
        mixture: S, positive, shape (N,).
        counts: n_j, shape (J,).
        mean_norms2: ||E_j||^2 of E_j = (1/N) sum_n W_j(n) g(x_n), what a draw by p_j gives in expectation, shape (J,).

    Source: ours: sum_j n_j Var_j, in the paper's notation.
    """
    s, g2 = np.asarray(mixture, np.float64), np.asarray(squared_norms, np.float64)
    n, between = np.asarray(counts, np.float64), np.asarray(mean_norms2, np.float64)
    return float((g2 / s).sum() / len(g2) ** 2 - n @ between)


def trace_of_fixed_counts(
    mixture_trace: float, true_gradient_norm2: float, counts: ArrayLike, mean_norms2: ArrayLike
) -> float:
    """M times `trace_of_covariance`, from eq. 6 of Alain et al. for M draws by the mixture S / M, which is no less.

    Args:
        mixture_trace: Eq. 6, with the weights S.
        true_gradient_norm2: ||g_TRUE||^2, of which g_TRUE = sum_j n_j E_j.
        counts: n_j, shape (J,).
        mean_norms2: ||E_j||^2, as there, shape (J,).
    """
    n = np.asarray(counts, np.float64)
    return float(mixture_trace + true_gradient_norm2 - n.sum() * (n @ np.asarray(mean_norms2, np.float64)))
