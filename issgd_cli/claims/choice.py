"""Which setting of a method is its best, by what was held out for validation."""

from collections.abc import Sequence

import numpy as np

from issgd_cli.claims.evidence import Run
from issgd_cli.claims.smoothing import smoothed


def best(runs: Sequence[Run]) -> str:
    """The setting whose runs end with the lowest validation error, in the mean over seeds; the first of equals.

    Args:
        runs: Of one method on one dataset, that are there to choose by.
    """
    of_settings: dict[str, list[float]] = {}
    for run in runs:
        of_settings.setdefault(run.setting, []).append(validation(run))
    return min(of_settings, key=lambda setting: float(np.mean(of_settings[setting])))


def validation(run: Run) -> float:
    """A run's validation error at its end, as smoothed as all curves; its loss where there are no errors.

    Infinite where it did not come to its end. Errors, not losses, which a network that is sure of itself spoils while
    its errors still fall.
    """
    for quantity in ("audit/error/valid", "audit/loss/valid"):
        values = run.series(quantity).values
        if run.finished and len(values):
            return float(smoothed(values)[-1])
    return float("inf")
