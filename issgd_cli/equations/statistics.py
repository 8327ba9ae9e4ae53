"""What a sample tells of all: n of N values, drawn at random without replacement, each n of them alike; and of ranks.

Source: any textbook of survey sampling, for instance Cochran 1977, chapter 2; not in the papers.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def standard_error(sample: ArrayLike, population: int) -> float:
    """Of the sample's mean, as an estimate of the mean of all: sqrt((1 - n/N) s^2 / n). Its square is unbiased.

    Args:
        sample: Shape (n,).
        population: N.

    Returns:
        0 where the sample is all of them, NaN where it is a single one of several.
    """
    values = np.asarray(sample, np.float64)
    if values.size == population:
        return 0.0
    if values.size < 2:
        return math.nan
    return float(np.sqrt((1 - values.size / population) * values.var(ddof=1) / values.size))


def product_of_means(left: ArrayLike, right: ArrayLike, population: int) -> float:
    """An unbiased estimate of the product of two means of all; of a mean's square, which may come out negative.

    The product of the sample's own means is off by their covariance, (1 - n/N) s_lr / n.

    Args:
        left: Shape (n,).
        right: Of the same examples, shape (n,).
        population: N.

    Returns:
        NaN where the sample is a single one of several.
    """
    one, other = np.asarray(left, np.float64), np.asarray(right, np.float64)
    if one.size == population:
        return float(one.mean() * other.mean())
    if one.size < 2:
        return math.nan
    covariance = (1 - one.size / population) * np.cov(one, other)[0, 1] / one.size
    return float(one.mean() * other.mean() - covariance)


def rank_correlation(left: ArrayLike, right: ArrayLike) -> float:
    """How much alike two sets of numbers rank the same examples: Spearman's rho, in [-1, 1]; ties share a rank.

    Args:
        left: Shape (N,).
        right: Shape (N,).

    Returns:
        NaN where one of them ranks nothing, all its numbers being equal.

    Source: Spearman 1904.
    """
    ranks = np.stack([_ranks(np.asarray(values, np.float64)) for values in (left, right)])
    ranks -= ranks.mean(1, keepdims=True)
    squares = (ranks**2).sum(1)
    return float(ranks[0] @ ranks[1] / np.sqrt(squares.prod())) if squares.all() else math.nan


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1 on; equal numbers share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return mean
