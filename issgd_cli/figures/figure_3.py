"""Figure 3: prediction error on the test set, one panel a setting."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from issgd_cli.claims.evidence import Runs
from issgd_cli.claims.quantiles import Axis
from issgd_cli.claims.settings import setting_title
from issgd_cli.figures import style
from issgd_cli.figures.curves import Panel, Source, draw_panel, method_curves, runs_note

TITLE = "Test prediction error"
ROW_COUNT = 1
PAPER_LIMITS = (-0.02, 0.20)  # the paper's error axis


def load(runs: Runs, axis: Axis = "seconds", source: Source = "database", interval: bool = False) -> list[list[Panel]]:
    """Panels by row (one) and setting.

    Source: Alain et al. 2015, Figure 3.
    """
    return [
        [
            Panel(
                setting_title(runs, setting),
                "test prediction error",
                method_curves(runs, setting, "error/test", axis, source, interval),
                runs.virtual,
            )
            for setting in runs.settings
        ]
    ]


def draw(axes: Sequence[Sequence[Axes]], panels: list[list[Panel]], axis: Axis = "seconds") -> None:
    """Draws the panels on one error axis, the paper's where every final error fits it."""
    limits = error_limits(panels[0])
    for place, panel in zip(axes[0], panels[0], strict=True):
        draw_panel(place, panel, axis)
        if panel.curves:
            place.set_ylim(limits)
    style.legend_above(axes[0][0])


def error_limits(panels: Sequence[Panel]) -> tuple[float, float]:
    """The paper's axis cuts off the first minutes; it fits where the later half of all curves lies within it."""
    late = [curve.bands.upper[len(curve.bands.upper) // 2 :] for panel in panels for curve in panel.curves]
    highest = max((float(np.nanmax(part)) for part in late if np.isfinite(part).any()), default=0.0)
    if highest <= PAPER_LIMITS[1]:
        return PAPER_LIMITS
    everything = [curve.bands.upper for panel in panels for curve in panel.curves]
    return PAPER_LIMITS[0], 1.05 * max(float(np.nanmax(part)) for part in everything if np.isfinite(part).any())


def notes(runs: Runs, source: Source, interval: bool) -> list[str]:
    """Lines of the footnote."""
    return runs_note(runs, source, interval)
