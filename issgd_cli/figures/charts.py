"""The curves of figures 2-4 as data for the page's script: every quantity, along every axis it was recorded on."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np

from issgd_cli.claims.evidence import Runs
from issgd_cli.claims.quantiles import Axis
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.figures import figure_2, figure_3, figure_4, style
from issgd_cli.figures.curves import Curve, Panel, Source, source_told

SOURCES: tuple[Source, ...] = ("audit", "database")
DIGITS = 4  # more than a screen shows


def charts(runs: Runs, most: float = math.inf) -> list[dict[str, Any]]:
    """Each quantity's name, its records' source, and by axis a panel a setting; without those never recorded.

    Audits come first. What would make a page of many settings too large is left to its pictures.

    Args:
        runs: The experiment's.
        most: Bytes that the curves may take.
    """
    found, left = [], most
    for view in _views(runs):
        left -= len(as_script(view).encode())
        if left < 0:
            break
        found.append(view)
    return found


def as_script(content: object) -> str:
    """JSON that may stand in a page's script: nothing in it can end the script, or begin a comment."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _views(runs: Runs) -> Iterator[dict[str, Any]]:
    usual: Axis = "seconds" if runs.virtual else "steps"  # comes first
    order = sorted(get_args(Axis), key=lambda axis: axis != usual)
    for source in SOURCES:
        for module in (figure_2, figure_3, figure_4):
            rows = {axis: module.load(runs, axis, source) for axis in order}
            for place, row in enumerate(rows["steps"]):
                axes = {
                    axis: [_panel(panel, axis, first.title) for panel, first in zip(of[place], of[0], strict=True)]
                    for axis, of in rows.items()
                    if any(panel.curves for panel in of[place])
                }
                if axes:
                    yield {"name": row[0].ylabel, "source": source_told(runs, source), "axes": axes}


def _panel(panel: Panel, axis: Axis, title: str) -> dict[str, Any]:
    longest = max((float(curve.bands.positions[-1]) for curve in panel.curves), default=0.0)
    label, scale = style.scale_of(axis, longest, panel.virtual)
    return {"title": title, "label": label, "curves": [_curve(curve, scale) for curve in panel.curves]}


def _curve(curve: Curve, scale: float) -> dict[str, Any]:
    bands = curve.bands
    content: dict[str, Any] = {
        "label": curve.label,
        "color": curve.line["color"],
        "dash": _dashes(curve.line["linestyle"], curve.width),
        "width": curve.width,
        "x": _grid(bands.positions / scale),
        "median": _rounded(bands.median),
    }
    if curve.quartiles and bands.runs > 1:
        content |= {"lower": _rounded(bands.lower), "upper": _rounded(bands.upper)}
    return content


def _dashes(linestyle: Any, width: float) -> list[float]:
    """A line style's dashes and gaps in pixels; none where it is solid."""
    pattern: Sequence[float] = () if linestyle == "-" else linestyle[1]
    return [round(length * width, 1) for length in pattern]


def _grid(positions: Float64s) -> Any:
    """All positions, or only the ends of an even grid."""
    first, last = float(positions[0]), float(positions[-1])
    if len(positions) > 2 and np.allclose(positions, np.linspace(first, last, len(positions))):
        return {"ends": [first, last]}
    return _rounded(positions, DIGITS + 2)


def _rounded(values: Float64s, digits: int = DIGITS) -> list[float | None]:
    """A gap where there is no number."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values]
