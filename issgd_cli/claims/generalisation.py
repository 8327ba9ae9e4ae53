"""Claims about prediction errors on unseen data: C3, C4, and the numbers of Table 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.paired import beside, difference, late, per_seed, unpaired
from issgd_cli.claims.settings import paper_settings
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import Claim, Finding, Part, PerSeed

C3 = Claim("C3", "Test error: ISSGD is better in setting (a), SGD is better in setting (b).", "Fig. 3")
C4 = Claim("C4", "The final test errors are nearly equal: 0.0754 for SGD and 0.0756 for ISSGD.", "Table 1")

NO_SETTINGS = "The runs have no two settings of one dataset that could stand for the paper's (a) and (b)."

Source = Literal["audit", "database"]
PREFIXES: dict[Source, str] = {"audit": "audit/", "database": ""}


@dataclass(frozen=True, eq=False)
class Score:
    """A method's errors in one setting, one number a finished run."""

    setting: str
    method: str
    source: Source
    valid: PerSeed  # final validation error
    test: PerSeed  # final test error
    early_stopped: PerSeed  # test error where the validation error was lowest
    runs: int
    finished: int
    diverged: int

    @property
    def mean_valid(self) -> float:
        """What a setting is chosen by, where as few runs diverged as elsewhere."""
        return float(self.valid.values.mean())


def score(runs: Runs, setting: str, method: str) -> Score | None:
    """The errors of a group of runs; from exact audits where all its finished runs have them.

    Args:
        runs: The experiment's.
        setting: One of its settings.
        method: One of its methods.

    Returns:
        None where no finished run has both errors.
    """
    group = runs.of(setting, method)
    finished = [run for run in group if run.finished]
    sources: tuple[Source, ...] = ("audit", "database")
    for source in sources:
        if finished and all(final_error(run, "test", source) is not None for run in finished):
            return Score(
                setting,
                method,
                source,
                valid=per_seed(group, partial(final_error, split="valid", source=source)),
                test=per_seed(group, partial(final_error, split="test", source=source)),
                early_stopped=per_seed(group, partial(early_stopped_error, source=source)),
                runs=len(group),
                finished=len(finished),
                diverged=sum(run.diverged for run in group),
            )
    return None


def chosen(runs: Runs, method: str, settings: Sequence[str]) -> Score | None:
    """A method's score in the best of some settings of one dataset: fewest diverged, lowest validation error."""
    scores = [found for setting in settings if (found := score(runs, setting, method))]
    scores = [found for found in scores if len(found.valid)]
    return min(scores, key=lambda found: (found.diverged, found.mean_valid), default=None)


def final_error(run: Run, split: str, source: Source) -> float | None:
    """Mean error over the last 10% of the records."""
    series = run.series(f"{PREFIXES[source]}error/{split}")
    return float(late(series).mean()) if len(series.values) else None


def early_stopped_error(run: Run, source: Source) -> float | None:
    """Test error at the record where the validation error is lowest."""
    valid, test = (run.series(f"{PREFIXES[source]}error/{split}") for split in ("valid", "test"))
    if not len(test.values) or not np.isfinite(valid.values).any():
        return None
    return float(test.at(valid.positions[np.nanargmin(valid.values)]))


def finding_c3(runs: Runs, thresholds: Thresholds) -> Finding:
    """Final test errors, ISSGD minus SGD, in each setting."""
    settings = paper_settings(runs)
    if settings is None:
        return Finding(C3, note=NO_SETTINGS)
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting, claimed, better in zip(settings, (-1, 1), ("ISSGD", "SGD"), strict=True):
        left, right = runs.of_first(setting, "issgd"), runs.of_first(setting, "sgd")
        gap = difference(left, right, _test_error_gap)
        values[setting] = gap.plain()
        text = f"({setting}), where the paper has {better} better: final test error, ISSGD minus SGD, {gap.text()}"
        brief = f"({setting}): final test error, ISSGD minus SGD, {gap.told('.2g')}."
        parts.append(gap.part(text + unpaired(left, right) + ".", brief, of=0.0, claimed=claimed, test=thresholds.test))
    if not all(part.seeds for part in parts):
        return Finding(C3, note="No pairs of ISSGD and SGD runs with audited test errors in both settings.")
    return Finding(C3, parts, values)


def finding_c4(runs: Runs, thresholds: Thresholds) -> Finding:
    """Test errors of each method in its own best setting, as in Table 1."""
    settings = paper_settings(runs)
    if settings is None:
        return Finding(C4, note=NO_SETTINGS)
    labels = runs.label("issgd"), runs.label("sgd")
    ours, theirs = (chosen(runs, label, settings) for label in labels)
    if ours is None or theirs is None or "database" in (ours.source, theirs.source):
        return Finding(C4, note="It needs finished runs of ISSGD and of SGD with audited validation and test errors.")
    left, right = runs.of_first(ours.setting, "issgd"), runs.of_first(theirs.setting, "sgd")
    gap = difference(left, right, _test_error_gap)
    base = float(theirs.test.values.mean())
    margin = thresholds.nearly * base
    text = (
        f"ISSGD in its best setting ({ours.setting}) {ours.test.values.mean():.4f}, SGD in its best ({theirs.setting}) "
        f"{base:.4f}; difference by seed {gap.text()}. Nearly equal is within {thresholds.nearly:.0%} of SGD's error, "
        f"{margin:.2g}{unpaired(left, right)}."
    )
    brief = f"Each in its best setting: {beside(gap, 'final test error', base)}."
    values = {
        "issgd": {"setting": ours.setting, "test_error": ours.test.plain()},
        "sgd": {"setting": theirs.setting, "test_error": theirs.test.plain()},
        "difference": gap.plain(),
        "margin": margin,
    }
    return Finding(C4, [gap.part_within(text, brief, margin, test=thresholds.test)], values)


def _test_error_gap(left: Run, right: Run) -> float | None:
    one, other = final_error(left, "test", "audit"), final_error(right, "test", "audit")
    return None if one is None or other is None else one - other
