"""How much to add to every probability weight (appendix B.3): constant, entropy target, variance-optimal.

All three answer with the constant c of omega + c; infinity means uniform draws. The adaptive ones search the mixing
fraction lambda = c / (c + mean omega) in [0, 1], where 0 is the unsmoothed proposal and 1 the uniform one.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from issgd_cli.config.values import parse_smoothing
from issgd_cli.equations.alain2015 import Float64s, entropy

# Called with the weights to be smoothed, and the pairs (old norms, new norms) of the same examples at two versions.
Smoothing = Callable[[Float64s, Float64s, Float64s], float]


def smoothing(setting: float | str) -> Smoothing:
    """The rule that a configuration's `proposal.smoothing` names.

    Args:
        setting: A number >= 0, `variance-optimal`, or `entropy:x` with x a fraction of log N in (0, 1]; or
            `second-moment`, which adds nothing: it makes other weights of the norms (`Table.expected`).

    Raises:
        ConfigError: None of these.
    """
    kind, number = parse_smoothing(setting)
    if kind == "variance-optimal":
        return lambda weights, old, new: variance_optimal_constant(old, new)
    if kind == "entropy":
        return lambda weights, old, new: entropy_constant(weights, number)
    return lambda weights, old, new: 0.0 if kind == "second-moment" else number


def constant_in(kind: float | str, constant: float) -> float | None:
    """The constant that weights in use are made by, as eq. 9 wants it; None where they are no norms plus a constant."""
    return None if kind == "second-moment" else constant


def smoothed(weights: ArrayLike, constant: float) -> Float64s:
    """Weights plus the constant; all equal to their mean (or 1) when the constant is infinite.

    Args:
        weights: Norms, shape (N,), non-negative.
        constant: c in [0, inf].

    Source: appendix B.3.
    """
    omega = np.asarray(weights, np.float64)
    if math.isinf(constant):
        return np.full_like(omega, omega.mean() or 1.0)
    return omega + constant


def entropy_constant(weights: ArrayLike, fraction: float) -> float:
    """The constant that raises the proposal's entropy to `fraction` of log N; 0 when it is there already.

    Args:
        weights: Unsmoothed norms, shape (N,), non-negative.
        fraction: Target entropy as a fraction of its maximum, log N.

    Source: appendix B.3's suggestion. (Its "bring this entropy down" is a slip: smoothing raises the entropy.)
    """
    from scipy.optimize import brentq

    omega = np.asarray(weights, np.float64)
    mean, target = omega.mean(), fraction * math.log(omega.size)
    if mean == 0 or entropy(omega) >= target:
        return 0.0 if mean > 0 else math.inf
    if fraction == 1:
        return math.inf

    def lack(mix: float) -> float:
        return entropy((1 - mix) * omega + mix * mean) - target

    return _constant(brentq(lack, 0.0, 1.0, xtol=1e-9), mean)


def variance_optimal_constant(old: ArrayLike, new: ArrayLike) -> float:
    """The constant c that minimises eq. 9 on examples whose norms are known at two versions.

    Minimises mean(old + c) * mean(new^2 / (old + c)), which is convex in lambda = c / (c + mean old); uniform draws
    (lambda = 1) are among the candidates, so on these pairs the result is never worse than SGD's variance.

    Args:
        old: ||g(x_n)|| at the earlier version, shape (P,), non-negative.
        new: ||g(x_n)|| at the later version, shape (P,), non-negative.

    Returns:
        c in [0, inf]; inf when there are no pairs to learn from.

    Source: ours; the adaptive smoothing that appendix B.3 hoped for.
    """
    from scipy.optimize import minimize_scalar

    old = np.asarray(old, np.float64)
    if old.size == 0 or not old.any():
        return math.inf
    new_squared = np.square(np.asarray(new, np.float64))
    mean = old.mean()

    def second_moment(mix: float) -> float:  # up to the factor mean(old), which mixing leaves alone
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = new_squared / ((1 - mix) * old + mix * mean)
        return float(np.where(new_squared > 0, ratio, 0.0).mean())

    inner = minimize_scalar(second_moment, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-5}).x
    best = min((0.0, float(inner), 1.0), key=second_moment)
    return _constant(best, mean)


def _constant(mix: float, mean: float) -> float:
    """c from lambda = c / (c + mean)."""
    return math.inf if mix >= 1 else mix / (1 - mix) * mean
