"""How likely numbers so far on one side of a threshold are by chance: small numbers of seeds, exactly."""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from issgd_cli.equations.alain2015 import Float64s

Test = Literal["sign", "student"]

LEVEL = 0.05


def sides(values: ArrayLike, of: float, test: Test = "sign") -> tuple[float, float]:
    """Two-sided p-values of the values' median lying below, and above, a threshold.

    Args:
        values: One a seed, shape (n,); infinite where a run diverged.
        of: The threshold. A value that is exactly there speaks for neither side.
        test: `sign` asks nothing of the values but to be independent, and is exact; `student` compares means, and is
            exact for normal values only. Infinite values have no mean: then the signs are compared.

    Returns:
        p below, p above; both 1 where there are fewer than two values, or NaNs.
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2 or np.isnan(array).any():
        return 1.0, 1.0
    if test == "student" and np.isfinite(array).all():
        return _student(array, of)
    below, above = (_at_least(int(beyond.sum()), len(array)) for beyond in (array < of, array > of))
    return min(1.0, 2 * below), min(1.0, 2 * above)


def least(seeds: int) -> float:
    """The smallest p-value that so many seeds can reach with the sign test: all agree."""
    return min(1.0, 2 * _at_least(seeds, seeds))


def holm(p_values: ArrayLike) -> Float64s:
    """The p-values of a family, adjusted so that the chance of any false finding among them stays what it says.

    Args:
        p_values: Shape (claims,).

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    array = np.asarray(p_values, np.float64)
    order = np.argsort(array, kind="stable")
    stepped = np.maximum.accumulate(array[order] * np.arange(len(array), 0, -1))
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _at_least(count: int, tosses: int) -> float:
    """The chance of so many heads or more among the tosses of a fair coin."""
    return float(sum(math.comb(tosses, heads) for heads in range(count, tosses + 1)) / 2**tosses)


def _student(array: Float64s, of: float) -> tuple[float, float]:
    from scipy import stats

    if np.ptp(array) <= 1e-12 * np.abs(array).max():  # no spread but rounding: the mean is known
        return float(not array[0] < of), float(not array[0] > of)
    low, high = (stats.ttest_1samp(array, of, alternative=side).pvalue for side in ("less", "greater"))
    return min(1.0, 2 * float(low)), min(1.0, 2 * float(high))
