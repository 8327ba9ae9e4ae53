"""One run at a glance: losses, errors, traces, and how old and how even its weights were."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from issgd_cli.claims.evidence import Run, audits_told
from issgd_cli.claims.quantiles import Series
from issgd_cli.figures import style

# Quantity (without audit/), label, colour, dashes.
Line = tuple[str, str, str, object]
SPLIT_LINES = (
    ("train", style.GREEN, "-"),
    ("valid", style.ORANGE, (0, (5, 1.5))),
    ("test", style.BLUE, (0, (1, 1))),
)
TRACE_LINES: tuple[Line, ...] = (
    ("trace/uniform", "uniform (SGD, ideal)", style.BLUE, (0, (5, 1.5))),
    ("trace/in_use", "weights in use", "#222222", (0, (1, 1))),
    ("trace/stale", "stale", style.ORANGE, "-"),
    ("trace/ideal", "ideal", style.GREEN, "-"),
)
AGE_LINES: tuple[Line, ...] = (
    ("staleness/max_seconds", "oldest weight", "#999999", "-"),
    ("staleness/mean_seconds", "mean", style.ORANGE, "-"),
)
SIZE_LINES: tuple[Line, ...] = (("proposal/effective_sample_size", "effective sample size", style.GREEN, "-"),)
KEPT_LINES: tuple[Line, ...] = (("proposal/kept_fraction", "usable weights", style.GREEN, "-"),)


@dataclass(frozen=True)
class Shown:
    """One curve: the database's records, and the audits as markers."""

    label: str
    colour: str
    dashes: object
    records: Series
    audits: Series


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    ylabel: str
    lines: tuple[Shown, ...]
    nothing: str = "No records."


def load(run: Run) -> list[Panel]:
    """Panels for loss, error, square roots of traces, age, usable fraction, effective sample size."""
    return [
        *(
            Panel(
                kind, _lines(run, [(f"{kind}/{split}", split, colour, dashes) for split, colour, dashes in SPLIT_LINES])
            )
            for kind in ("loss", "error")
        ),
        Panel("sqrt Tr(Σ(q))", tuple(_rooted(line) for line in _lines(run, TRACE_LINES))),
        Panel("age of the weights in use (s)", _lines(run, AGE_LINES), "No records of the weights' age."),
        Panel("fraction of weights usable", _lines(run, KEPT_LINES), "No records of a filter."),
        Panel("effective sample size", _lines(run, SIZE_LINES), "No records of the effective sample size."),
    ]


def draw(axes: Sequence[Axes], panels: Sequence[Panel]) -> None:
    """Draws each panel over the master's steps."""
    for place, panel in zip(axes, panels, strict=True):
        place.set_ylabel(panel.ylabel)
        if not panel.lines:
            style.say(place, panel.nothing)
            continue
        for line in panel.lines:
            _draw_line(place, line)
        place.set_xlabel(style.AXIS_LABELS["steps"])
        place.margins(x=0.02)
        if panel.ylabel.startswith("fraction"):
            place.set_ylim(-0.03, 1.05)
        elif len(panel.lines) > 1:
            style.legend_below(place)
            place.set_ylim(bottom=min(0.0, place.get_ylim()[0]))


def figure(run: Run) -> Figure:
    """The whole picture; markers are audits, lines the database's records."""
    with style.style():
        picture = style.new_figure(11, 6.8)
        picture.set_layout_engine("constrained")
        grid = picture.subplots(2, 3)
        draw(list(grid.flat), load(run))
        picture.suptitle(run.name, fontsize=10)
        style.footnote(picture, [_note(run)])
    return picture


def _lines(run: Run, lines: Sequence[Line]) -> tuple[Shown, ...]:
    found = (
        Shown(label, colour, dashes, run.series(quantity), run.series(f"audit/{quantity}"))
        for quantity, label, colour, dashes in lines
    )
    return tuple(line for line in found if len(line.records.positions) or len(line.audits.positions))


def _rooted(line: Shown) -> Shown:
    def root(series: Series) -> Series:
        return Series(series.positions, np.sqrt(np.where(series.values >= 0, series.values, np.nan)), series.finished)

    return Shown(line.label, line.colour, line.dashes, root(line.records), root(line.audits))


def _draw_line(axes: Axes, line: Shown) -> None:
    look: dict[str, Any] = {"color": line.colour, "linestyle": line.dashes, "linewidth": 1.4}
    label = line.label
    if len(line.records.positions):
        axes.plot(line.records.positions, line.records.values, label=label, **look)
        label = "_audits"  # a label with an underscore stays out of the legend
    if len(line.audits.positions):
        axes.plot(
            line.audits.positions,
            line.audits.values,
            "o",
            markersize=4,
            markerfacecolor="white",
            color=line.colour,
            label=label,
        )


def _note(run: Run) -> str:
    traces = [run.series(name).values for name in ("trace/ideal", "trace/uniform", "trace/stale")]
    negative = int(sum((values < 0).sum() for values in traces))
    failure = run.manifest.get("failure")
    why = f" ({failure['actor']}: {failure['reason']})" if failure else ""
    note = f"1 run, {run.state}{why}. Lines: the database's newest records; circles: {audits_told([run])}."
    return note + (f" {negative} negative traces have no square root and are gaps." if negative else "")
