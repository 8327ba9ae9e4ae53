"""Curves with quartiles: what figures 2, 3 and 4 are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from issgd_cli.claims.evidence import EXACT, Run, Runs, audits_told
from issgd_cli.claims.quantiles import BINS, SEEDS_FOR_AN_INTERVAL, Axis, Bands, bands, bands_at, coverage
from issgd_cli.figures import style

Source = Literal["database", "audit"]
PREFIX: dict[Source, str] = {"database": "", "audit": "audit/"}

MARKED = 40  # curves of at most so many points show them


@dataclass(frozen=True)
class Curve:
    """A quantity's quantiles over the runs of one group, and how to draw them."""

    label: str
    bands: Bands
    line: dict[str, Any]  # colour and dashes
    width: float = 2.2  # of the median
    quartiles: bool = True


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    ylabel: str
    curves: tuple[Curve, ...]
    virtual: bool = False  # whether its seconds are a simulated cluster's


def method_curves(
    runs: Runs, setting: str, quantity: str, axis: Axis, source: Source, interval: bool
) -> tuple[Curve, ...]:
    """One curve a method; those without a record of the quantity are left out (and counted in the footnote)."""
    found = []
    for method, look in style.looks(runs).items():
        sampled = sampled_bands(runs.of(setting, method), PREFIX[source] + quantity, axis, BINS, interval)
        if sampled:
            found.append(Curve(look.name, sampled, look.line))
    return tuple(found)


def sampled_bands(runs: Sequence[Run], quantity: str, axis: Axis, bins: int, interval: bool) -> Bands | None:
    """Quantiles over some runs; None where none has recorded the quantity. Audits are not binned."""
    along = [run.series(quantity, axis) for run in runs]
    if quantity.startswith("audit/"):
        return bands_at([run.series(quantity, "steps") for run in runs], along, interval)
    return bands(along, bins, interval)


def draw_panel(axes: Axes, panel: Panel, axis: Axis) -> None:
    """Median thick, quartiles thin, the interval as a band; the horizontal axis gets its unit here."""
    axes.set_title(panel.title)
    axes.set_ylabel(panel.ylabel)
    if not panel.curves:
        style.say(axes, f"No records of this quantity\nalong the axis '{axis}'.")
        return
    label, scale = style.scale_of(axis, max(float(curve.bands.positions[-1]) for curve in panel.curves), panel.virtual)
    for curve in panel.curves:
        _draw_curve(axes, curve, scale)
    axes.set_xlabel(label)
    axes.margins(x=0.01)


def runs_note(runs: Runs, source: Source, interval: bool) -> list[str]:
    """Footnote's lines: how many runs, what the lines are."""
    groups = ", ".join(
        f"{setting} {look.name}: {len(group)}".strip()
        for setting in runs.settings
        for method, look in style.looks(runs).items()
        if (group := runs.of(setting, method))
    )
    lines = [f"{runs.tally()} ({groups}). Median thick, quartiles 1 and 3 thin. {source_note(runs, source)}"]
    if runs.failed or runs.unfinished:
        lines.append("Runs that failed or did not finish are drawn until their records end.")
    if interval:
        fewest = min((len(runs.of(s, m)) for s in runs.settings for m in runs.methods if runs.of(s, m)), default=0)
        lines.append(interval_note(fewest))
    return lines


def source_told(runs: Runs, source: Source) -> str:
    """What a caption calls the source of curves."""
    return audits_told(runs.runs) if source == "audit" else "records in the database, as the paper's"


def source_note(runs: Runs, source: Source) -> str:
    """A footnote's sentence about the source of curves."""
    if source == "database":
        return "Means of the database's newest records, at mixed parameter versions, as in the paper."
    told = audits_told(runs.runs)
    return f"{told[0].upper()}{told[1:]}: one parameter version{', all examples' if told == EXACT else ''}."


def interval_note(runs: int) -> str:
    """What the band about a median of at least so many runs is."""
    if runs < SEEDS_FOR_AN_INTERVAL:
        return f"Below {SEEDS_FOR_AN_INTERVAL} runs no 95% interval of a median is claimed."
    sure = f"of {runs} runs it covers {coverage(runs):.1%}"
    return f"Band: interval of the median, between two of the runs' own values; {sure}."


def _draw_curve(axes: Axes, curve: Curve, scale: float) -> None:
    found = curve.bands
    positions = found.positions / scale
    if found.interval is not None:
        axes.fill_between(positions, *found.interval, color=curve.line["color"], alpha=0.18, linewidth=0)
    if curve.quartiles and found.runs > 1:
        for quartile in (found.lower, found.upper):
            axes.plot(positions, quartile, color=curve.line["color"], linewidth=0.7, alpha=0.75)
    # Audits are few: each gets its marker.
    marker: dict[str, Any] = (
        {"marker": "o", "markersize": 1.8 * curve.width} if len(np.unique(positions)) <= MARKED else {}
    )
    axes.plot(positions, found.median, label=curve.label, linewidth=curve.width, **curve.line, **marker)
