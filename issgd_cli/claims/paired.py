"""Comparing two methods seed by seed: the same initial weights, the same split, the same steps."""

from collections.abc import Callable, Iterator

import numpy as np

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.quantiles import Axis, Series
from issgd_cli.claims.verdicts import PerSeed
from issgd_cli.equations.alain2015 import Float64s

AXES: tuple[Axis, ...] = ("steps", "examples", "seconds")
UNITS = {"steps": "equal steps", "examples": "equal examples by all actors", "seconds": "equal seconds"}


def pairs(left: tuple[Run, ...], right: tuple[Run, ...]) -> Iterator[tuple[Run, Run]]:
    """Finished runs of the same seed, in order of seed."""
    others = {run.seed: run for run in right if run.finished}
    for run in sorted(left, key=lambda run: run.seed):
        if run.finished and run.seed in others:
            yield run, others[run.seed]


def per_seed(runs: tuple[Run, ...], number: Callable[[Run], float | None]) -> PerSeed:
    """A number of each finished run; runs for which it is None are left out."""
    found = [(run.seed, number(run)) for run in sorted(runs, key=lambda run: run.seed) if run.finished]
    kept = [(seed, value) for seed, value in found if value is not None]
    return PerSeed(tuple(seed for seed, _ in kept), np.array([value for _, value in kept], np.float64))


def difference(left: tuple[Run, ...], right: tuple[Run, ...], number: Callable[[Run, Run], float | None]) -> PerSeed:
    """A number of each pair of finished runs, usually left minus right; pairs for which it is None are left out."""
    found = [(one.seed, number(one, other)) for one, other in pairs(left, right)]
    kept = [(seed, value) for seed, value in found if value is not None]
    return PerSeed(tuple(seed for seed, _ in kept), np.array([value for _, value in kept], np.float64))


def mean_difference(quantity: str, axis: Axis) -> Callable[[Run, Run], float | None]:
    """The mean vertical distance of two curves, left minus right, over the part of the axis that both cover.

    It is the difference of the areas under the curves, divided by that part's length. Between audits the curves are
    taken as straight. None where fewer than two points are shared.
    """

    def distance(left: Run, right: Run) -> float | None:
        one, other = left.series(quantity, axis), right.series(quantity, axis)
        if not len(one.positions) or not len(other.positions):
            return None
        start = max(one.positions[0], other.positions[0])
        end = min(one.positions[-1], other.positions[-1])
        if not start < end:
            return None
        grid = np.unique(np.clip(np.concatenate([one.positions, other.positions]), start, end))
        gap = np.interp(grid, one.positions, one.values) - np.interp(grid, other.positions, other.values)
        return float(np.trapezoid(gap, grid) / (end - start))

    return distance


def shared_range(runs: Runs, setting: str, quantity: str, axis: Axis) -> float | None:
    """The share of the longer run's axis that a pair's comparison covers, the median over pairs."""
    shares = []
    for left, right in pairs(runs.of(setting, "issgd"), runs.of(setting, "sgd")):
        ends = [series.positions[-1] for run in (left, right) if len((series := run.series(quantity, axis)).positions)]
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


def unpaired(runs: Runs, setting: str) -> str:
    """What to say of the runs that no comparison holds; empty where there is nothing to say."""
    left, right = runs.of(setting, "issgd"), runs.of(setting, "sgd")
    compared = 2 * len(list(pairs(left, right)))
    rest = len(left) + len(right) - compared
    return f"; {rest} run{'s' if rest > 1 else ''} failed, unfinished or without a partner not compared" if rest else ""
