"""What a sample tells of all: n of N values, drawn at random without replacement, each n of them alike.

Source of all: any textbook of survey sampling, for instance Cochran 1977, chapter 2; not in the papers.
"""

import math

import numpy as np
from numpy.typing import ArrayLike


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


def squared_mean(sample: ArrayLike, population: int) -> float:
    """An unbiased estimate of the square of the mean of all; may be negative.

    The sample's own squared mean is too large by the variance of its mean.

    Args:
        sample: Shape (n,).
        population: N.
    """
    return float(np.mean(np.asarray(sample, np.float64)) ** 2 - standard_error(sample, population) ** 2)
