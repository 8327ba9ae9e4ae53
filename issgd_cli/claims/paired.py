"""Comparing two methods seed by seed: the same initial weights, the same split, the same steps.

A run that diverged is its method's worst outcome: it is never left out of a comparison.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from issgd_cli.claims.evidence import Run
from issgd_cli.claims.quantiles import Axis, Series
from issgd_cli.claims.verdicts import PerSeed
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import RunError

AXES: tuple[Axis, ...] = ("steps", "examples", "seconds")
UNITS = {"steps": "equal steps", "examples": "equal work", "seconds": "equal seconds"}


def pairs(left: Sequence[Run], right: Sequence[Run]) -> Iterator[tuple[Run, Run]]:
    """Runs of the same seed that finished or diverged, in order of seed."""
    others = {run.seed: run for run in right if run.finished or run.diverged}
    for run in sorted(left, key=lambda run: run.seed):
        if (run.finished or run.diverged) and run.seed in others:
            yield run, others[run.seed]


def per_seed(runs: Sequence[Run], number: Callable[[Run], float | None], worst: float | None = None) -> PerSeed:
    """A number of each finished run; runs for which it is None are left out.

    Args:
        runs: Of one setting and method.
        number: Of a finished run.
        worst: Of a run that diverged; None: it is left out.
    """
    found = [
        (run.seed, number(run) if run.finished else worst)
        for run in sorted(runs, key=lambda run: run.seed)
        if run.finished or run.diverged
    ]
    return _kept(found)


def difference(
    left: Sequence[Run],
    right: Sequence[Run],
    number: Callable[[Run, Run], float | None],
    names: tuple[str, str] = ("ISSGD", "SGD"),
) -> PerSeed:
    """A number of each pair that is the larger the worse its left run is; None leaves a pair out.

    Where the left run diverged it is infinite, where the right one did minus infinite; where both did they say nothing.

    Args:
        left: Runs of one method.
        right: Runs of another.
        number: Of two of one seed.
        names: What a text calls left and right.

    Raises:
        RunError: A seed has several runs on the left: they are not independent.
    """
    if len({run.seed for run in left}) < len(left):
        raise RunError("Two runs of one seed stand on one side of a comparison. Name one setting and method.")
    found: list[tuple[int, float | None]] = []
    for one, other in pairs(left, right):
        if one.diverged != other.diverged:
            found.append((one.seed, math.inf if one.diverged else -math.inf))
        else:
            found.append((one.seed, None if one.diverged else number(one, other)))
    return replace(_kept(found), words=(f"{names[1]} diverged", f"{names[0]} diverged"))


def _kept(found: Sequence[tuple[int, float | None]]) -> PerSeed:
    kept = [(seed, value) for seed, value in found if value is not None]
    return PerSeed(tuple(seed for seed, _ in kept), np.array([value for _, value in kept], np.float64))


def mean_difference(quantity: str, axis: Axis, relative: bool = False) -> Callable[[Run, Run], float | None]:
    """The mean vertical distance of two curves, left minus right, over the part of the axis that both cover.

    It is the difference of the areas under the curves, divided by that part's length. Between audits the curves are
    taken as straight. None where fewer than two points are shared.

    Args:
        quantity: Of traces.QUANTITIES.
        axis: Along which both are compared.
        relative: To the right curve's mean over the same part.
    """

    def distance(left: Run, right: Run) -> float | None:
        one, other = left.series(quantity, axis), right.series(quantity, axis)
        covered = covered_by_all(one, other)
        return None if covered is None else distance_between(one, other, covered, relative)

    return distance


def covered_by_all(*curves: Series) -> tuple[float, float] | None:
    """The part of the axis that all of these cover, None where that is a point or nothing."""
    if not all(len(curve.positions) for curve in curves):
        return None
    start = max(float(curve.positions[0]) for curve in curves)
    end = min(float(curve.positions[-1]) for curve in curves)
    return (start, end) if start < end else None


def distance_between(one: Series, other: Series, part: tuple[float, float], relative: bool) -> float | None:
    """As `mean_difference`, over this part of the axis, which both cover."""
    start, end = part
    grid = np.unique(np.clip(np.concatenate([one.positions, other.positions]), start, end))
    base = np.interp(grid, other.positions, other.values)
    gap = float(np.trapezoid(np.interp(grid, one.positions, one.values) - base, grid) / (end - start))
    if not relative:
        return gap
    mean = float(np.trapezoid(base, grid) / (end - start))
    return gap / mean if mean > 0 else None


def shared_range(left: Sequence[Run], right: Sequence[Run], quantity: str, axis: Axis) -> float | None:
    """The share of the longer run's axis that a pair's comparison covers, the median over pairs."""
    shares = []
    for one, other in pairs(left, right):
        ends = [series.positions[-1] for run in (one, other) if len((series := run.series(quantity, axis)).positions)]
        if len(ends) == 2 and max(ends) > 0:
            shares.append(min(ends) / max(ends))
    return float(np.median(shares)) if shares else None


def late(series: Series, share: float = 0.1) -> Float64s:
    """The last tenth of the records, at least one."""
    count = max(1, round(share * len(series.values)))
    return series.values[-count:]


def early(series: Series, share: float = 0.1) -> Float64s:
    """The first tenth of the records, at least one."""
    return series.values[: max(1, round(share * len(series.values)))]


def beside(gap: PerSeed, what: str, base: float = 1.0) -> str:
    """The median difference, relative to a base, in words: "training loss of ISSGD 1.8% below SGD's"."""
    relative = gap.median / base
    if not math.isfinite(relative):
        return f"{what}, ISSGD beside SGD: {gap.word(relative)}"
    return f"{what} of ISSGD {abs(relative):.1%} {'below' if relative < 0 else 'above'} SGD's"


def unpaired(left: Sequence[Run], right: Sequence[Run]) -> str:
    """What to say of the runs that a comparison does not hold as they are; empty where there is nothing to say."""
    compared = list(pairs(left, right))
    rest = len(left) + len(right) - 2 * len(compared)
    diverged = sum(run.diverged for pair in compared for run in pair)
    text = f"; {diverged} diverged, the worst outcome" if diverged else ""
    return text + (
        f"; {rest} run{'s' if rest > 1 else ''} unfinished or without a partner not compared" if rest else ""
    )
