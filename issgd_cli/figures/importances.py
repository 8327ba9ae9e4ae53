"""Importances at the outputs, ||dL/dm|| and each |dL/dm_j|, of a run whose examples are points of a plane, in classes.

Source: Salaun et al. 2024, figure 1.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, PowerNorm, to_rgb
from matplotlib.figure import Figure

from issgd_cli.claims.evidence import Run
from issgd_cli.datasets import Prepared
from issgd_cli.figures import style
from issgd_cli.figures.plane import NEIGHBOURS, Array, Plane, load, trouble

MOST_NODES = 4
COLOURS = (style.GREEN, style.BLUE, style.ORANGE, *(line["color"] for line in style.LINES[2:]))  # of classes
MARKERS = "o^sDvPX*<>"
# In steps that are all kept: pictures are saved in few colours.
HEAT = LinearSegmentedColormap.from_list("heat", ["#ffffff", "#ffe3b3", style.ORANGE, "#b30000", "#2b0008"], 40)
SMALLEST_DOT, LARGEST_DOT = 1.5, 42.0  # square points
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def figure(run: Run, data: Prepared) -> Figure:
    """The plane above, the training examples below; or why there is no picture.

    Raises:
        RunError, ConfigError: See `load`.
    """
    reason = trouble(run, data)
    plane = load(run, data) if reason is None else None
    with style.style():
        if plane is None:
            picture = style.new_figure(6.4, 2.4)
            style.say(picture.subplots(), str(reason))
        else:
            columns = 2 + min(plane.classes, MOST_NODES)
            picture = style.new_figure(2.35 * columns + 0.8, 5.4)
            picture.set_layout_engine("constrained")
            draw(picture.subplots(2, columns, sharex=True, sharey=True), plane)
            style.footnote(picture, notes(run, plane))
        picture.suptitle(run.name, fontsize=10)
    return picture


def draw(panels: Any, plane: Plane) -> None:
    """A column for the classes, one for ||dL/dm||, one for each output node; on axes of shape (2, columns)."""
    titles = ["‖∂L/∂m‖, all output nodes"]
    titles += [f"|∂L/∂m{str(node).translate(SUBSCRIPTS)}|, node of class {node}" for node in range(plane.classes)]
    norm = PowerNorm(0.5, 0, max(float(plane.field.max()), float(plane.importances.max())) or 1.0)
    look: dict[str, Any] = {"extent": plane.extent, "origin": "lower", "aspect": "auto"}
    _draw_classes(panels[0, 0], panels[1, 0], plane, look)
    for column, (above, below) in enumerate(panels[:, 1:].T):
        above.set_title(titles[column])
        image = above.imshow(plane.field[..., column], cmap=HEAT, norm=norm, **look)
        _draw_dots(below, plane, column, norm)
    for axes in panels.flat:
        axes.grid(visible=False)
        axes.set_box_aspect(1)
        axes.set(xlim=plane.extent[:2], ylim=plane.extent[2:])
    panels[0, 0].set_ylabel("over the plane")
    panels[1, 0].set_ylabel("training examples")
    picture = panels[0, 0].figure
    picture.colorbar(image, ax=panels, shrink=0.6, pad=0.01, label="importance (scale of square roots)")


def half(values: Array) -> float:
    """How few of the examples, as a fraction of all, have half of the sum of these values, which are not all 0."""
    sums = np.cumsum(np.sort(values)[::-1])
    return float((np.searchsorted(sums, sums[-1] / 2) + 1) / len(values))


def notes(run: Run, plane: Plane) -> list[str]:
    """Lines of the footnote."""
    shown, nodes = len(plane.points), min(plane.classes, MOST_NODES)
    which = f"all {shown:,}" if shown == plane.examples else f"the first {shown:,} of {plane.examples:,}"
    some = "" if nodes == plane.classes else f" Of {plane.classes} output nodes the first {nodes} are shown."
    return [
        f"1 run, {run.state}, by its final parameters; {which} training examples. A dot's area and colour are its "
        f"importance: how large the gradient of its loss L is by the network's outputs m, or by one of them.{some}",
        f"Above: the importance of an example that lay there and was of the class of the {min(NEIGHBOURS, shown)} "
        "training examples nearest to it.",
    ]


def _draw_classes(above: Axes, below: Axes, plane: Plane, look: dict[str, Any]) -> None:
    colours = [COLOURS[number % len(COLOURS)] for number in range(plane.classes)]
    tints = ListedColormap([tuple(0.78 + 0.22 * part for part in to_rgb(colour)) for colour in colours])
    above.set_title("class, by nearest examples")
    below.set_xlabel("tint: the network's decision")
    for axes, classes in ((above, plane.known), (below, plane.decided)):
        axes.imshow(classes, cmap=tints, vmin=-0.5, vmax=plane.classes - 0.5, interpolation="nearest", **look)
        for number in np.unique(classes) if len(np.unique(classes)) > 1 else ():
            axes.contour(classes == number, [0.5], colors="#222222", linewidths=0.7, extent=plane.extent)
    for number, colour in enumerate(colours):
        mine, marker = plane.points[plane.labels == number], MARKERS[number % len(MARKERS)]
        below.scatter(mine[:, 0], mine[:, 1], s=6, c=colour, marker=marker, linewidths=0)
        _name_class(above, plane, number)


def _name_class(axes: Axes, plane: Plane, number: int) -> None:
    """Where its area is widest."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(plane.known == number, 1))[1:-1, 1:-1]
    if depth.any():
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        height, width = depth.shape
        place = (column + 0.5) / width, (row + 0.5) / height
        axes.text(*place, f"class {number}", transform=axes.transAxes, ha="center", va="center", fontsize=9)


def _draw_dots(axes: Axes, plane: Plane, column: int, norm: PowerNorm) -> None:
    order = plane.importances[:, column].argsort(kind="stable")  # the large ones above the small
    values = plane.importances[order, column]
    sizes = SMALLEST_DOT + (LARGEST_DOT - SMALLEST_DOT) * values / norm.vmax
    x, y = plane.points[order].T
    look: dict[str, Any] = {"edgecolors": "#555555", "linewidths": 0.25}
    axes.scatter(x, y, s=sizes, c=values, cmap=HEAT, norm=norm, rasterized=True, **look)  # else a path each in a PDF
    axes.set_xlabel(f"half of it in {half(values):.1%} of examples" if values.any() else "all are 0")
