"""Where a curve of audits is, without its noise: of what it reaches, and when."""

import numpy as np
from numpy.typing import ArrayLike

from issgd_cli.equations.alain2015 import Float64s

BESIDE = 2  # audits before and after one that its median is of


def smoothed(values: ArrayLike) -> Float64s:
    """The running median of five audits, two before and two after each, of fewer at the ends, shape (n,).

    A single audit that happens to be low reaches nothing, nor does a single spike hide what has been reached; and
    unlike a mean the median leaves a curve that only falls where it is, but for its last audits, so that nobody is
    moved along the axis. NaN counts as infinite: a loss that is no number reaches nothing.
    """
    values = np.asarray(values, np.float64)
    values = np.where(np.isnan(values), np.inf, values)
    around = [values[max(0, place - BESIDE) : place + BESIDE + 1] for place in range(len(values))]
    with np.errstate(invalid="ignore"):  # between two infinite ones
        found = np.array([np.median(part) for part in around])
    return np.where(np.isnan(found), np.inf, found)


def reached(positions: ArrayLike, values: ArrayLike, target: float) -> float:
    """Where a curve is at or below a target first; infinite where it never is.

    Args:
        positions: Ascending, shape (n,); between them the curve is straight.
        values: Shape (n,).
        target: The level.
    """
    x, y = np.asarray(positions, np.float64), np.asarray(values, np.float64)
    below = np.flatnonzero(y <= target)
    if not len(below):
        return float("inf")
    last = int(below[0])
    if last == 0 or y[last] == target or not np.isfinite(y[last - 1]):
        return float(x[last])
    share = (y[last - 1] - target) / (y[last - 1] - y[last])
    return float(x[last - 1] + share * (x[last] - x[last - 1]))
