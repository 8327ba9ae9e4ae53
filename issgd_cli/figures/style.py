"""How the figures look: the paper's colours, line styles that need no colour, titles, footnotes, one way to save."""

import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from issgd_cli.claims.evidence import Runs
from issgd_cli.claims.quantiles import Axis
from issgd_cli.files import replacing, writing

GREEN, BLUE, ORANGE = "#00a65a", "#0000FF", "#FF8000"  # the original plotting code's
# Methods' curves: as there the first that draws by importance and SGD, then all further methods in turn.
LINES: tuple[dict[str, Any], ...] = (
    {"color": GREEN, "linestyle": "-"},
    {"color": BLUE, "linestyle": (0, (5, 1.5))},
    {"color": "#CC0077", "linestyle": (0, (1, 1))},
    {"color": "#7A4B00", "linestyle": (0, (6, 2, 1, 2))},
    {"color": "#00868B", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
    {"color": "#555555", "linestyle": (0, (8, 3))},
    {"color": "#E6A700", "linestyle": "-"},
    {"color": "#9467BD", "linestyle": (0, (4, 1, 1, 1))},
    {"color": "#D62728", "linestyle": (0, (2, 1))},
    {"color": "#000000", "linestyle": (0, (1, 3))},
)

HANDLE, PANEL = 7, 72  # letters of a legend that a line's sample takes, and a panel of figure 4 has room for
ELSEWHERE = "Draw into another folder with `--out DIR`."

NAMES = {
    "issgd": "ISSGD",
    "sgd": "SGD",
    "reshuffled": "reshuffled SGD",
    "online": "IS",
    "adaptive": "AS",
    "dlis": "DLIS",
    "low": "LOW",
    "infobatch": "InfoBatch",
    "mis": "MIS",
    "omis": "OMIS",
}  # of what a configuration names; others are called as there
AXIS_LABELS: dict[Axis, str] = {
    "seconds": "time in {unit}",
    "steps": "steps of the master",
    "examples": "work in examples",
}
TIME_UNITS = (("hours", 3600.0, 3 * 3600.0), ("minutes", 60.0, 5 * 60.0), ("seconds", 1.0, 0.0))  # name, length, from

_SETTINGS: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.dpi": 160,
    "pdf.fonttype": 42,
    "svg.hashsalt": "issgd",
}


def style() -> Any:
    """A context within which figures are made and saved in this style; nothing global is left changed."""
    return rc_context(_SETTINGS)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure with its own canvas, in inches."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


class Look(NamedTuple):
    """Of a method in figures."""

    name: str  # in a legend
    line: dict[str, Any]  # its curve's colour and dashes


def looks(runs: Runs) -> dict[str, Look]:
    """How every method of an experiment is drawn, by its label, in order: the paper's two first."""
    importance, uniform, *rest = LINES
    lines = {runs.label("sgd"): uniform, runs.importance: importance}
    further = [method for method in runs.methods if method not in lines]
    lines |= dict(zip(further, itertools.cycle(rest), strict=False))
    return {method: Look(_name(runs, method), lines[method]) for method in runs.methods}


def _name(runs: Runs, method: str) -> str:
    """ISSGD, SGD, ISSGD (variance-optimal): what is the paper's by its name, whatever its label."""
    known = runs.of(method=method)[0].config.proposal.method
    name = NAMES.get(known, known)
    if method == known or method in (runs.label("issgd"), runs.label("sgd")):
        return name
    return f"{name} ({method.removeprefix(f'{known}-')})" if method.startswith(f"{known}-") else method


def time_unit(longest_seconds: float) -> tuple[str, float]:
    """The unit that suits an axis of this length, and how many seconds it has."""
    return next((name, length) for name, length, start in TIME_UNITS if longest_seconds >= start)


def scale_of(axis: Axis, longest: float, virtual: bool = False) -> tuple[str, float]:
    """The axis's label, and by what to divide its positions."""
    if axis == "seconds":
        unit, length = time_unit(longest)
        return f"time of the simulated cluster in {unit}" if virtual else AXIS_LABELS[axis].format(unit=unit), length
    if axis == "examples" and longest >= 1e6:
        return f"{AXIS_LABELS[axis]} (millions)", 1e6
    return AXIS_LABELS[axis], 1.0


def say(axes: Axes, text: str) -> None:
    """Writes into an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#555555", wrap=True)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)


def footnote(figure: Figure, lines: Sequence[str]) -> None:
    """Small print below the panels, wrapped to the figure's width; the layout leaves room for it."""
    letters = int(figure.get_figwidth() * 18)
    text = "\n".join(textwrap.fill(line, letters) for line in lines)
    figure.supxlabel(text, fontsize=7.5, color="#444444", x=0.01, ha="left")


def legend_above(panel: Axes) -> None:
    """One legend for all panels of a figure, outside of them, so that it covers no data."""
    figure = panel.get_figure(root=True)
    if figure is None:
        return
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        columns = min(len(entries), 4)
        figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=columns, handlelength=3)


def legend_below(axes: Axes) -> None:
    """A panel's own legend, below its horizontal axis, and about as wide: with long labels in one column."""
    labels = axes.get_legend_handles_labels()[1]
    if labels:
        columns = 3 if len(labels) == 3 else 2
        rows = -(-len(labels) // columns)
        widest = [max(map(len, labels[first : first + rows])) for first in range(0, len(labels), rows)]
        if sum(widest) + HANDLE * len(widest) > PANEL:
            columns = 1
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, handlelength=3)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes <stem>.png and <stem>.pdf; the same figure gives the same bytes."""
    # Without a creation date, and without the library's version.
    metadata: dict[str, Mapping[str, None]] = {
        ".png": {"Software": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    paths = [stem.with_name(stem.name + suffix) for suffix in metadata]
    for path in paths:
        with writing(path, ELSEWHERE), replacing(path) as file:
            drawn = io.BytesIO()
            figure.savefig(drawn, format=path.suffix[1:], metadata=dict(metadata[path.suffix]))
            file.write(_smaller(drawn) if path.suffix == ".png" else drawn.getvalue())
    return paths


def _smaller(png: io.BytesIO) -> bytes:
    """The same picture in at most 128 colours: a third of the bytes, of which a report holds seven."""
    smaller = io.BytesIO()
    Image.open(png).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()
