"""The paper's numbered results, one pure function each.

Notation: N training examples; `squared_norms[n]` = ||g(x_n)||^2, the squared norm of example n's gradient of its own
loss; `probability_weights` the unnormalised omega, so that example n is drawn with probability omega[n] / sum(omega);
`true_gradient_norm2` = ||g_TRUE||^2 with g_TRUE = (1/N) sum_n g(x_n). Everything is computed in float64.

Source of all: Alain, Lamb, Sankar, Courville, Bengio, "Variance Reduction in SGD by Distributed Importance Sampling",
2015 (arXiv:1511.06481).
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64s = NDArray[np.float64]
Vector = TypeVar("Vector")  # NumPy's or torch's


def importance_weights(probability_weights: Vector, indices: Any, mean: float | None = None) -> Vector:
    """Factors that make the drawn examples' mean gradient unbiased: mean(omega) / omega[i].

    Examples of weight 0 can't be drawn and stand outside: the mean is over the others (appendix B.1), and the
    estimate is unbiased for *their* mean gradient. With no zero among the weights that is the whole training set's.

    Args:
        probability_weights: omega, float64, shape (N,), non-negative, not all zero: NumPy's or torch's, on any device.
        indices: Drawn examples, shape (M,), of the same kind.
        mean: mean(omega) over the positive weights, where it is known already.

    Returns:
        Shape (M,). All ones when the weights are equal.

    Source: section 4.1, the loss of a minibatch.
    """
    omega: Any = probability_weights
    drawn = omega[indices]
    if mean is None:
        mean = omega.sum() / (omega > 0).sum()
    weights: Vector = (0 * drawn + mean) / drawn  # torch divides a mere number by a tensor inexactly
    return weights


def trace_of_covariance(squared_norms: ArrayLike, probability_weights: ArrayLike, true_gradient_norm2: float) -> float:
    """Tr(Sigma(q)) of the one-example gradient estimator that draws in proportion to `probability_weights`.

    A minibatch of M independent draws has this divided by M.

    Args:
        squared_norms: ||g(x_n)||^2, shape (N,).
        probability_weights: omega, shape (N,), positive.
        true_gradient_norm2: ||g_TRUE||^2, or any stand-in for it.

    Source: eq. 6 (corollary 1).
    """
    omega = np.asarray(probability_weights, np.float64)
    return float(omega.mean() * (np.asarray(squared_norms, np.float64) / omega).mean() - true_gradient_norm2)


def ideal_trace(squared_norms: ArrayLike, true_gradient_norm2: float) -> float:
    """Tr(Sigma) of the best proposal of all, omega[n] = ||g(x_n)||: (mean norm)^2 - ||g_TRUE||^2.

    Args:
        squared_norms: ||g(x_n)||^2, shape (N,).
        true_gradient_norm2: ||g_TRUE||^2.

    Source: eq. 7 (theorem 1).
    """
    return float(np.sqrt(np.asarray(squared_norms, np.float64)).mean() ** 2 - true_gradient_norm2)


def uniform_trace(squared_norms: ArrayLike, true_gradient_norm2: float) -> float:
    """Tr(Sigma) of plain SGD's uniform proposal: mean of the squared norms - ||g_TRUE||^2.

    Args:
        squared_norms: ||g(x_n)||^2, shape (N,).
        true_gradient_norm2: ||g_TRUE||^2.

    Source: eq. 8.
    """
    return float(np.asarray(squared_norms, np.float64).mean() - true_gradient_norm2)


def stale_trace(squared_norms: ArrayLike, stale_weights: ArrayLike, true_gradient_norm2: float) -> float:
    """Tr(Sigma) when drawing with outdated weights while the gradients are those of now.

    Args:
        squared_norms: ||g(x_n)||^2 of now, unsmoothed, shape (N,).
        stale_weights: The previous norms plus the smoothing constant, shape (N,), positive.
        true_gradient_norm2: ||g_TRUE||^2.

    Source: eq. 9.
    """
    return trace_of_covariance(squared_norms, stale_weights, true_gradient_norm2)


def error_ratio(error_norm2: float, draws: int, trace: float) -> float:
    """How far a mean of K importance-weighted gradients fell from g_TRUE, squared, over what K draws should give.

    Its expectation is 1 if the estimator is unbiased, 1 + K ||bias||^2 / Tr(Sigma) if not.

    Args:
        error_norm2: ||(1/K) sum_k w_k g(x_k) - g_TRUE||^2.
        draws: K.
        trace: Tr(Sigma(q)) of one draw.

    Source: section 4.3, with corollary 1 for the expectation.
    """
    return error_norm2 * draws / trace


def gradient_norm2_bound(chunk_gradient_norms2: ArrayLike) -> float:
    """The paper's upper bound of ||g_TRUE||^2: the square of the mean norm of minibatch gradients.

    It depends on the minibatches' size: the larger they are, the tighter.

    Args:
        chunk_gradient_norms2: ||g_B||^2 of some minibatches B, each the gradient of the *mean* loss, shape (B,).

    Source: appendix B.2.
    """
    return float(np.sqrt(np.asarray(chunk_gradient_norms2, np.float64)).mean() ** 2)


def gradient_norm2_unbiased(
    chunk_gradient_norms2: ArrayLike, chunk_sizes: ArrayLike, mean_squared_norm: float, examples: int
) -> float:
    """An unbiased estimate of ||g_TRUE||^2 from minibatch gradients; may be negative.

    A minibatch of B drawn without replacement from N has E||g_B||^2 = mu^2 + (k / B) (m - mu^2), with
    mu^2 = ||g_TRUE||^2, m the mean squared norm and k = (N - B) / (N - 1). Solved for mu^2 and pooled over the
    minibatches in proportion to how much each knows, B - k.

    Args:
        chunk_gradient_norms2: ||g_B||^2, each the gradient of the mean loss over its minibatch, shape (C,).
        chunk_sizes: Their sizes B, shape (C,); at least one larger than 1.
        mean_squared_norm: m, mean of ||g(x_n)||^2 over all N.
        examples: N.

    Source: ours; the paper stops at the bound of appendix B.2.
    """
    sizes = np.asarray(chunk_sizes, np.float64)
    k = (examples - sizes) / (examples - 1)
    excess = sizes * np.asarray(chunk_gradient_norms2, np.float64) - k * mean_squared_norm
    return float(excess.sum() / (sizes - k).sum())


def entropy(probability_weights: ArrayLike) -> float:
    """Entropy of the proposal in nats; log N when uniform, 0 when one example has all the weight.

    Args:
        probability_weights: omega, shape (N,), non-negative, not all zero.

    Source: appendix B.3.
    """
    omega = np.asarray(probability_weights, np.float64)
    omega = omega[omega > 0]
    total = omega.sum()
    return float(np.log(total) - (omega * np.log(omega)).sum() / total)


def effective_sample_size(probability_weights: ArrayLike) -> float:
    """How many equally weighted examples would be as even as this proposal: (sum omega)^2 / sum omega^2, in [1, N].

    Args:
        probability_weights: omega, shape (N,), non-negative, not all zero.

    Source: Kish 1965; not in the paper.
    """
    omega = np.asarray(probability_weights, np.float64)
    return float(omega.sum() ** 2 / (omega**2).sum())
