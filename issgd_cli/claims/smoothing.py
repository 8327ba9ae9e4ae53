"""Where a curve of audits is, without its noise: of what it reaches, and when."""

import numpy as np
from numpy.typing import ArrayLike

from issgd_cli.equations.alain2015 import Float64s

BESIDE = 2  # audits before and after one that its median is of


def smoothed(values: ArrayLike) -> Float64s:
    """The running median of five audits, two before and two after each, shape (n,).

    Of fewer at the beginning, as many before as after; in the end it stays what it is of the last five. A single audit
    that happens to be low reaches nothing, nor does a spike hide what has been reached. Unlike a mean, the median
    leaves a curve that only falls where it is, but for that end, so that nobody is moved along the axis. NaN counts as
    infinite: a loss that is no number reaches nothing.
    """
    values = np.asarray(values, np.float64)
    values = np.where(np.isnan(values), np.inf, values)
    beside = min(BESIDE, max(0, len(values) - 1) // 2)
    found = values.copy()
    for place in range(len(values) - beside):
        reach = min(beside, place)
        found[place] = np.median(values[place - reach : place + reach + 1])
    found[len(values) - beside :] = found[len(values) - beside - 1] if beside else found[len(values) :]
    return found


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
