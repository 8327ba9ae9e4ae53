"""Figure 4: square root of Tr(Sigma(q)) for different proposals q during ISSGD's runs, one panel a setting.

Without runs of the paper's ISSGD those of the first method that a paper is about are shown.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from issgd_cli.claims.evidence import Runs
from issgd_cli.claims.quantiles import TRACE_BINS, Axis, Bands
from issgd_cli.claims.settings import setting_title, smoothing_label
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.figures import style
from issgd_cli.figures.curves import PREFIX, Curve, Panel, Source, draw_panel, interval_note, sampled_bands, source_note
from issgd_cli.registries import METHODS

TITLE = "Square root of the trace of the gradient's covariance"
ROW_COUNT = 1
SYSTEMATIC: dict[str, Any] = {"color": style.ORANGE, "linestyle": (0, (4, 1, 1, 1))}
# Quantity, label, line and width, of a method that draws by what its own minibatches have shown.
FROM_MINIBATCHES: list[tuple[str, str, dict[str, Any], float]] = [
    ("trace/uniform", "uniform draws", {"color": style.BLUE, "linestyle": (0, (5, 1.5))}, 1.8),
    ("trace/in_use", "in use", {"color": style.ORANGE, "linestyle": "-"}, 2.6),
    ("trace/in_use_systematic", "in use, drawn systematically", SYSTEMATIC, 1.8),
    ("trace/by_outputs", "by today's norms at the outputs", {"color": "#7A4B00", "linestyle": (0, (1, 1))}, 1.8),
    ("trace/ideal", "ideal", {"color": style.GREEN, "linestyle": "-"}, 1.8),
]
LOGARITHMIC_FROM = 10.0  # a stale curve so many times above the uniform one leaves no room for the others


def load(runs: Runs, axis: Axis = "seconds", source: Source = "database", interval: bool = False) -> list[list[Panel]]:
    """Panels by row (one) and setting.

    Source: Alain et al. 2015, Figure 4.
    """
    return [
        [
            Panel(
                setting_title(runs, setting),
                "sqrt Tr(Σ(q))",
                _curves(runs, setting, axis, source, interval),
                runs.virtual,
            )
            for setting in runs.settings
        ]
    ]


def draw(axes: Sequence[Sequence[Axes]], panels: list[list[Panel]], axis: Axis = "seconds") -> None:
    """Draws the panels; logarithmic where one stale curve would squeeze the others to nothing."""
    for place, panel in zip(axes[0], panels[0], strict=True):
        draw_panel(place, panel, axis)
        style.legend_below(place)
        highest = [
            float(np.nanmax(median)) for curve in panel.curves if np.isfinite(median := curve.bands.median).any()
        ]
        if not highest:
            continue
        if max(highest) > LOGARITHMIC_FROM * highest[0]:
            place.set_yscale("log")
            place.set_ylabel(f"{panel.ylabel}, logarithmic")
        else:
            place.set_ylim(bottom=0.0)


def notes(runs: Runs, source: Source, interval: bool) -> list[str]:
    """Lines of the footnote, with the count of traces that have no square root."""
    used = runs.of(method=runs.importance)
    quantities = {name for setting in runs.settings for name, *_ in _shown(runs, setting)}
    values = [run.series(PREFIX[source] + quantity).values for run in used for quantity in sorted(quantities)]
    everything = np.concatenate([*values, np.empty(0)])
    groups = ", ".join(f"{setting}: {len(runs.of(setting, runs.importance))}".strip(": ") for setting in runs.settings)
    name = style.looks(runs)[runs.importance].name if runs.importance else "ISSGD"
    lines = [f"{runs.tally()}; shown: {name}'s runs ({groups}). Medians. {source_note(runs, source)}"]
    negative = int((everything < 0).sum())
    lines.append(
        f"{negative} of {len(everything)} traces are negative (the estimate of ||g_TRUE||² exceeds the rest)"
        + ("; where a median is negative its curve has a gap." if negative else ".")
    )
    if interval:
        counts = [len(runs.of(setting, runs.importance)) for setting in runs.settings]
        lines.append(interval_note(min((count for count in counts if count), default=0)))
    return lines


def _curves(runs: Runs, setting: str, axis: Axis, source: Source, interval: bool) -> tuple[Curve, ...]:
    found, used = [], runs.of(setting, runs.importance)
    for quantity, label, line, width in _shown(runs, setting):
        sampled = sampled_bands(used, PREFIX[source] + quantity, axis, TRACE_BINS, interval)
        if sampled:
            found.append(Curve(label, rooted(sampled), line, width, quartiles=False))
    return tuple(found)


def _shown(runs: Runs, setting: str) -> list[tuple[str, str, dict[str, Any], float]]:
    """Quantity, label, line and width of each curve, in the order of the legend."""
    config = runs.config(setting, runs.importance)
    if config is None:
        return []
    if not METHODS.parts[config.proposal.method].by_scores:
        return FROM_MINIBATCHES
    actual = smoothing_label(config)
    shown: list[tuple[str, str, dict[str, Any], float]] = [
        ("trace/uniform", "SGD, ideal", {"color": style.BLUE, "linestyle": (0, (5, 1.5))}, 1.8),
        ("trace/stale", f"ISSGD, stale ({actual}) (actual)", {"color": style.ORANGE, "linestyle": "-"}, 2.6),
        ("trace/ideal", "ISSGD, ideal", {"color": style.GREEN, "linestyle": "-"}, 1.8),
    ]
    if config.proposal.draws == "systematic":
        line = {"color": style.ORANGE, "linestyle": (0, (5, 1.5))}
        shown.insert(2, ("trace/in_use", "ISSGD, in use", line, 1.8))
        shown.insert(3, ("trace/in_use_systematic", "ISSGD, in use, drawn systematically", SYSTEMATIC, 1.8))
    for other in alternatives(runs, setting):
        line = {"color": style.ORANGE, "linestyle": (0, (1, 1))}
        shown.insert(2, (f"trace/stale{other}", f"ISSGD, stale ({other})", line, 1.1))
    return shown


def alternatives(runs: Runs, setting: str) -> list[str]:
    """The smoothings shown thin beside the actual one: the other settings', as in the paper, else +1 or +10."""
    config = runs.config(setting, runs.importance)
    if config is None:
        return []
    actual = smoothing_label(config)
    known = [f"+{constant:g}" for constant in config.monitor.extra_smoothings]
    others = [smoothing_label(other) for name in runs.settings if (other := runs.config(name, runs.importance))]
    candidates = [*others, "+1", "+10"]
    return [label for label in dict.fromkeys(candidates) if label != actual and label in known][:1]


def rooted(found: Bands) -> Bands:
    """Square roots of a trace's quantiles; NaN, a gap in the curve, where one is negative."""
    interval = None if found.interval is None else (_root(found.interval[0]), _root(found.interval[1]))
    return dataclasses.replace(
        found, median=_root(found.median), lower=_root(found.lower), upper=_root(found.upper), interval=interval
    )


def _root(values: Float64s) -> Float64s:
    return np.sqrt(np.where(values >= 0, values, np.nan))
