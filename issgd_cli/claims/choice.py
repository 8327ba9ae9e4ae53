"""Which setting of a method is its best, by what was held out for validation, or by what it was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.smoothing import smoothed
from issgd_cli.runs.folder import Measure

# What is to be lowest: the first that there is. Errors, not losses, which a network that is sure of itself spoils while
# its errors still fall.
QUANTITIES: Mapping[Measure, Sequence[str]] = {
    "validation": ("audit/error/valid", "audit/loss/valid"),
    "training": ("audit/loss/train",),
}
WORDS: Mapping[Measure, str] = {"validation": "validation error", "training": "training loss"}


def chosen(runs: Runs, by: Measure) -> Runs:
    """The same with other runs: each method's at its best setting; where it has none there, at what validates best.

    All of them side by side, as of one setting. Where nothing is chosen, what there is.
    """
    if not runs.choosing:
        return runs
    found: list[Run] = []
    for method in dict.fromkeys(run.method for run in runs.judged):
        own = [run for run in runs.judged if run.method == method]
        rivals = [run for run in runs.choosing if run.method == method]
        found += _at(own, rivals, by) or _at(own, rivals, "validation") or own
    return replace(runs, runs=tuple(replace(run, setting="") for run in found))


def _at(own: Sequence[Run], rivals: Sequence[Run], by: Measure) -> list[Run]:
    return [run for run in own if run.setting == best(rivals, by)] if rivals else []


def why(runs: Runs) -> str:
    """What is lowest at the settings of these runs, in words; empty: not the same of all methods."""
    return next((words for measure, words in WORDS.items() if not not_best(runs, measure)), "")


def not_best(runs: Runs, by: Measure) -> list[str]:
    """The methods whose runs are at another setting than the one that is best by this measure."""
    of_path = {run.path: run.setting for run in runs.judged}
    shown = {run.method: of_path.get(run.path) for run in runs.runs}
    rivals = {method: [run for run in runs.choosing if run.method == method] for method in shown}
    return [method for method, setting in shown.items() if rivals[method] and setting != best(rivals[method], by)]


def best(runs: Sequence[Run], by: Measure = "validation") -> str:
    """The setting whose runs end lowest, in the mean over seeds; of equals that of the lowest learning rate.

    Args:
        runs: Of one method on one dataset, that are there to choose by.
        by: What is to be low.
    """
    found = ends(runs, by)
    return min(found, key=found.__getitem__)


def ends(runs: Sequence[Run], by: Measure) -> dict[str, float]:
    """Setting -> where its runs end, in the mean over seeds, as `at_end`; the lowest learning rate first."""
    of_settings: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.config.optimizer.learning_rate):
        of_settings.setdefault(run.setting, []).append(run)
    return {setting: float(np.mean([at_end(run, by) for run in each])) for setting, each in of_settings.items()}


def at_end(run: Run, by: Measure) -> float:
    """Where a run is at its end, as smoothed as all curves; infinite where it did not come to it."""
    for quantity in QUANTITIES[by]:
        values = run.series(quantity).values
        if run.finished and len(values):
            return float(smoothed(values)[-1])
    return float("inf")
