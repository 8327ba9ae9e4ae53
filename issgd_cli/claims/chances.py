"""How likely numbers so far on one side of a threshold are by chance: small numbers of seeds, exactly."""

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
        of: The threshold.
        test: `sign` asks nothing of the values but to be independent, and is exact; `student` compares means, and is
            exact for normal values only.

    Returns:
        p below, p above; both 1 where there are fewer than two values, or NaNs.
    """
    from scipy import stats

    array = np.asarray(values, np.float64)
    if len(array) < 2 or np.isnan(array).any():
        return 1.0, 1.0
    if test == "student" and np.isfinite(array).all():
        if np.ptp(array) == 0:
            return (0.0, 1.0) if array[0] < of else (1.0, 0.0) if array[0] > of else (1.0, 1.0)
        found = [stats.ttest_1samp(array, of, alternative=side).pvalue for side in ("less", "greater")]
    else:
        found = [stats.quantile_test(array, q=of, p=0.5, alternative=side).pvalue for side in ("less", "greater")]
    below, above = (min(1.0, 2 * float(p)) for p in found)
    return below, above


def least(seeds: int) -> float:
    """The smallest p-value that so many seeds can reach with the sign test: all agree."""
    return min(1.0, 2.0 * 0.5**seeds)


def holm(p_values: ArrayLike) -> Float64s:
    """The p-values of a family, adjusted so that the chance of any false finding among them stays what it says.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    array = np.asarray(p_values, np.float64)
    order = np.argsort(array, kind="stable")
    stepped = np.maximum.accumulate(array[order] * np.arange(len(array), 0, -1))
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
