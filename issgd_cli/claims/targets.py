"""What is to be reached on a scoreboard, what a run of reshuffled SGD has, and at what work another run is there."""

from dataclasses import dataclass

import numpy as np

from issgd_cli.claims.evidence import Run
from issgd_cli.claims.quantiles import Axis
from issgd_cli.claims.smoothing import reached, smoothed
from issgd_cli.runs.folder import Measure

RUN = 0.8  # of reshuffled SGD's work: its run, as far as targets go


@dataclass(frozen=True)
class Target:
    """What is to be reached.

    Attributes:
        name: For people.
        quantity: Of traces.QUANTITIES.
        at_best: Whether reshuffled SGD's best is wanted; else what it has in the end.
        by: What is lowest at the settings at which methods try for it, where they have been chosen.
    """

    name: str
    quantity: str
    at_best: bool
    by: Measure

    def level(self, run: Run) -> float:
        """Of a run of reshuffled SGD; infinite where it has none."""
        series = run.series(self.quantity, "examples")
        if not run.finished or not len(series.values):
            return float("inf")
        values = smoothed(series.values)[series.positions <= RUN * series.positions[-1]]
        return float(values.min() if self.at_best else values[-1])

    def reached(self, run: Run, level: float, axis: Axis = "examples") -> float:
        """Where a run is there first: at what work, in examples, or after how many seconds of training."""
        series = run.series(self.quantity, axis)
        return reached(series.positions, smoothed(series.values), level)

    def ratio(self, run: Run, base: Run, axis: Axis = "examples") -> float | None:
        """Of two runs of one seed; None where either has no curve, or there was nothing to learn."""
        level = self.level(base)
        if not np.isfinite(level) or not len(run.series(self.quantity, axis).values):
            return None
        own = self.reached(base, level, axis)
        return self.reached(run, level, axis) / own if own > 0 else None


TARGETS = (
    Target("training loss", "audit/loss/train", False, "training"),
    Target("training loss, rates by validation", "audit/loss/train", False, "validation"),
    Target("test error", "audit/error/test", True, "validation"),
)
