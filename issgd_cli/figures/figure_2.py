"""Figure 2: training loss (top) and training prediction error (bottom), one column a setting."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from issgd_cli.claims.evidence import Runs
from issgd_cli.claims.quantiles import Axis
from issgd_cli.claims.settings import setting_title
from issgd_cli.figures import style
from issgd_cli.figures.curves import Panel, Source, draw_panel, method_curves, runs_note

ROWS = {"loss/train": "training loss", "error/train": "training prediction error"}
TITLE = "Training loss and training prediction error"
ROW_COUNT = len(ROWS)


def load(runs: Runs, axis: Axis = "seconds", source: Source = "database", interval: bool = False) -> list[list[Panel]]:
    """Panels by row and setting.

    Source: Alain et al. 2015, Figure 2.
    """
    return [
        [
            Panel(
                setting_title(runs, setting) if row == 0 else "",
                label,
                method_curves(runs, setting, quantity, axis, source, interval),
                runs.virtual,
            )
            for setting in runs.settings
        ]
        for row, (quantity, label) in enumerate(ROWS.items())
    ]


def draw(axes: Sequence[Sequence[Axes]], panels: list[list[Panel]], axis: Axis = "seconds") -> None:
    """Draws the panels, the two rows of a column on the same horizontal axis."""
    for places, row in zip(axes, panels, strict=True):
        for place, panel in zip(places, row, strict=True):
            draw_panel(place, panel, axis)
            if panel.curves:
                place.set_ylim(bottom=min(0.0, place.get_ylim()[0]))
    for place in axes[0]:
        place.set_xlabel("")
    style.legend_above(axes[0][0])


def notes(runs: Runs, source: Source, interval: bool) -> list[str]:
    """Lines of the footnote."""
    return runs_note(runs, source, interval)
