"""Medians and quartiles over seeds: every run's curve sampled on one axis, and how sure a median is."""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.runs import traces

if TYPE_CHECKING:
    import pandas as pd

Axis = Literal["seconds", "steps", "examples"]

# What counts as work on an example, as traces.QUANTITIES has it; a forward pass alone is a third of a training step's.
WORK = {"trained": 1.0, "scored": 1.0, "looked_at": 1 / 3}

BINS = 100  # the original plotting code's, for losses and errors
TRACE_BINS = 250  # likewise, for Tr(Sigma)
SEEDS_FOR_AN_INTERVAL = 6  # fewer seeds can't carry a 95% interval of a median: even all of them span only 1 - 2/2^n


@dataclass(frozen=True, eq=False)
class Series:
    """One quantity of one run, as a step function: `values[i]` holds from `positions[i]` until the next."""

    positions: Float64s  # (n,), ascending; in the axis's unit
    values: Float64s  # (n,)
    finished: bool = True  # a finished run keeps its last value; another ends where its records end

    def at(self, grid: ArrayLike) -> Float64s:
        """The last observation at or before each point of the grid, NaN before the first one, shape of the grid."""
        grid = np.asarray(grid, np.float64)
        if not len(self.positions):
            return np.full(grid.shape, np.nan)
        newest = np.searchsorted(self.positions, grid, side="right") - 1
        sampled = np.where(newest >= 0, self.values[np.maximum(newest, 0)], np.nan)
        return sampled if self.finished else np.where(grid > self.positions[-1], np.nan, sampled)


@dataclass(frozen=True, eq=False)
class Bands:
    """Quantiles over runs at each bin; NaN where no run has a value."""

    positions: Float64s  # (bins,)
    median: Float64s  # (bins,)
    lower: Float64s  # (bins,), first quartile
    upper: Float64s  # (bins,), third quartile
    interval: tuple[Float64s, Float64s] | None  # 95% interval of the median, (bins,) each
    runs: int


def series(
    trace: "pd.DataFrame", quantity: str, axis: Axis, finished: bool = True, work: Iterable[str] = WORK
) -> Series:
    """A quantity's records along an axis; empty where the trace has none (or no work/* rows, for `examples`).

    Args:
        trace: A table with the columns of traces.Row.
        quantity: A name of traces.QUANTITIES.
        axis: `seconds` since the start, the master's `steps`, or the work of the method, in `examples`.
        finished: Whether the run came to its end.
        work: What of the actors' work the method needed, of WORK.
    """
    rows = trace[trace["quantity"] == quantity]
    if axis == "steps":
        positions = rows["step"].to_numpy(np.float64)
    else:
        positions = rows["seconds"].to_numpy(np.float64)
        if axis == "examples":
            positions = examples_at(trace, positions, work)
    values = rows["value"].to_numpy(np.float64)[: len(positions)]
    order = np.argsort(positions, kind="stable")  # audits are written after the last step
    return Series(positions[order], values[order], finished)


def examples_at(trace: "pd.DataFrame", seconds: Float64s, work: Iterable[str] = WORK) -> Float64s:
    """Examples that had been worked on for the method by these times; empty without such rows.

    A worker that only measures does not count: SGD needs the examples that it trains on, and no more. Runs of today
    tell all of it as one; of older ones it is put together of what they count.

    Args:
        trace: A table with the columns of traces.Row.
        seconds: Shape (n,).
        work: What the method needed, of WORK.
    """
    rows = trace[trace["quantity"].isin((traces.IN_EXAMPLES, f"audit/{traces.IN_EXAMPLES}"))].sort_values("seconds")
    if len(rows):
        return np.asarray(np.interp(seconds, [0.0, *rows["seconds"]], [0.0, *rows["value"]]))
    total = np.zeros(len(seconds))
    found = False
    for kind in work:
        rows = trace[trace["quantity"] == f"work/examples_{kind}"].sort_values("seconds")
        if len(rows):
            found = True
            total += WORK[kind] * np.interp(seconds, [0.0, *rows["seconds"]], [0.0, *rows["value"]])
    return total if found else np.empty(0)


def bands(runs: Sequence[Series], bins: int = BINS, interval: bool = False) -> Bands | None:
    """Median and quartiles over runs on an even grid from the first to the last record; None where there is none.

    Args:
        runs: One series a run.
        bins: Points of the grid.
        interval: Whether to add the median's 95% interval; it needs 6 runs.
    """
    runs = [run for run in runs if len(run.positions)]
    if not runs:
        return None
    grid = np.linspace(min(run.positions[0] for run in runs), max(run.positions[-1] for run in runs), bins)
    samples = np.stack([run.at(grid) for run in runs])  # (runs, bins)
    lower, median, upper = _quantiles(samples)
    limits = median_interval(samples) if interval else None
    return Bands(grid, median, lower, upper, limits, len(runs))


def bands_at(steps: Sequence[Series], along: Sequence[Series], interval: bool = False) -> Bands | None:
    """Quantiles over runs at each step that was recorded, without bins: for audits, few and at the same steps.

    Args:
        steps: One quantity's series of each run by the master's step.
        along: The same records by the axis to draw; a bin's position is the median over runs.
        interval: Whether to add the median's 95% interval.
    """
    runs = [(one, other) for one, other in zip(steps, along, strict=True) if len(one.values) == len(other.values) > 0]
    if not runs:
        return None
    grid = np.unique(np.concatenate([one.positions for one, _ in runs]))
    samples = np.full((2, len(runs), len(grid)), np.nan)  # values, positions
    for row, (one, other) in enumerate(runs):
        columns = np.searchsorted(grid, one.positions)
        samples[0, row, columns], samples[1, row, columns] = one.values, other.positions
    lower, median, upper = _quantiles(samples[0])
    limits = median_interval(samples[0]) if interval else None
    return Bands(_quantiles(samples[1])[1], median, lower, upper, limits, len(runs))


def median_interval(samples: ArrayLike) -> tuple[Float64s, Float64s] | None:
    """95% interval of the median over runs, exact for any distribution; None below 6 runs.

    Its limits are two of the values themselves; what it covers is `coverage` of so many runs.

    Args:
        samples: Shape (runs,) or (runs, bins); NaN where a run has no value.

    Returns:
        Lower and upper limit, shape () or (bins,); NaN where fewer than 6 runs have a value.
    """
    samples = np.asarray(samples, np.float64)
    if len(samples) < SEEDS_FOR_AN_INTERVAL:
        return None
    ordered = np.sort(samples.reshape(len(samples), -1), axis=0)  # NaNs last
    limits = np.full((2, ordered.shape[1]), np.nan)
    for count in np.unique(counts := np.isfinite(ordered).sum(0) + np.isinf(ordered).sum(0)):
        if count >= SEEDS_FOR_AN_INTERVAL:
            chosen = counts == count
            limits[:, chosen] = ordered[list(median_ranks(int(count)))][:, chosen]
    lower, upper = limits.reshape(2, *samples.shape[1:])
    return lower, upper


@functools.cache
def median_ranks(count: int) -> tuple[int, int]:
    """Which of so many values in ascending order, from 0 on, limit a 95% interval of their distribution's median.

    Source: the binomial distribution of how many lie below the median, by scipy.stats.quantile_test.
    """
    from scipy.stats import quantile_test

    limits = quantile_test(np.arange(count), p=0.5).confidence_interval(0.95)
    return int(limits.low), int(limits.high)


def coverage(count: int) -> float:
    """How often `median_interval` of so many runs holds the median: 95% or more, since ranks are few."""
    low, high = median_ranks(count)
    return float(sum(math.comb(count, below) for below in range(low + 1, high + 1)) / 2**count)


def _quantiles(samples: Float64s) -> Float64s:
    """First quartile, median and third quartile over runs with a finite value, (runs, bins) -> (3, bins)."""
    result = np.full((3, samples.shape[1]), np.nan)
    for place, column in enumerate(samples.T):
        finite = column[np.isfinite(column)]
        if len(finite):
            result[:, place] = np.quantile(finite, [0.25, 0.5, 0.75])
    return result
