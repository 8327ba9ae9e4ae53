"""Claims about minimising the training loss: C1, C2, C10."""

import math
from typing import Any

import numpy as np

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.paired import (
    AXES,
    UNITS,
    beside,
    difference,
    late,
    mean_difference,
    pairs,
    per_seed,
    shared_range,
    unpaired,
)
from issgd_cli.claims.settings import missing_issgd, named
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import Claim, Finding, Part

C1 = Claim(
    "C1", "ISSGD minimises the training loss more quickly than SGD in both settings, and it reaches 0.0.", "Fig. 2"
)
C2 = Claim("C2", "ISSGD minimises the training prediction error more quickly than SGD in both settings.", "Fig. 2")
C10 = Claim(
    "C10", "The validation loss reaches its minimum before the end of the run, then the runs overfit.", "Sec. 5.3"
)

NO_PAIR = "No pair of the paper's ISSGD and SGD with the same seed and exact audits (monitor.audit_every_steps)."
BOTH_DIVERGED = "ISSGD and SGD diverged in every pair: there is nothing to compare."
NO_ERRORS = "The runs' audits hold no errors, which their loss knows none of: no number predicted is right or wrong."
PLACE = (
    "The paper's minimum lies at a fifth of the run, after 30 minutes. How long ours last is our choice, so where "
    "theirs lies is told, not judged: what is judged is that they overfit."
)


def finding_c1(runs: Runs, thresholds: Thresholds) -> Finding:
    """Mean distance of the audited losses at equal steps, and whether ISSGD's falls below `reached`."""
    parts, values = _more_quickly(runs, "audit/loss/train", "training loss", thresholds)
    for setting in runs.settings:
        if found := _reaches_zero(runs, setting, thresholds):
            part, values.setdefault(setting, {})["lowest"] = found
            parts.append(part)
    return Finding(C1, parts, values)


def finding_c2(runs: Runs, thresholds: Thresholds) -> Finding:
    """Mean distance of the audited training errors at equal steps."""
    has_losses, has_errors = (
        any(len(run.series(f"audit/{kind}/train").values) for run in runs.runs) for kind in ("loss", "error")
    )
    if has_losses and not has_errors:
        return Finding(C2, note=NO_ERRORS)
    parts, values = _more_quickly(runs, "audit/error/train", "training error", thresholds)
    return Finding(C2, parts, values)


def finding_c10(runs: Runs, thresholds: Thresholds) -> Finding:
    """How much the audited validation loss rose after its minimum, in runs of ISSGD; and where that was."""
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting in runs.settings:
        chosen = runs.of_first(setting, "issgd")
        place, rise = per_seed(chosen, _place_of_minimum), per_seed(chosen, _rise_after_minimum)
        if not len(rise):
            continue
        values[setting] = {"place_of_minimum": place.plain(), "rise_after": rise.plain()}
        text = f"{named(setting)}: rise of the validation loss from its minimum to the end, relative: "
        text += f"{rise.text(of=thresholds.visible)}; the minimum at this share of the run: {place.text(of=None)}"
        brief = f"{named(setting)}: the validation loss rises by {rise.told('.0%')} from its minimum to the end."
        part = rise.part(f"{text}.", brief, of=thresholds.visible, claimed=1, test=thresholds.test)
        falling = int((place.values == 1.0).sum())
        if falling and part.fails < part.holds:
            # A run that was cut short says nothing about where it would have gone.
            text += f"; still falling at the end of {falling} of {len(place)} runs, too short to tell."
            part = Part(text, brief, seeds=len(rise))
        parts.append(part)
    note = PLACE if parts else missing_issgd(runs, "audits of the validation loss")
    return Finding(C10, parts, values, note)


def _more_quickly(runs: Runs, quantity: str, what: str, thresholds: Thresholds) -> tuple[list[Part], dict[str, Any]]:
    """One part a setting, judged at equal steps; equal work and seconds are told beside it."""
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting in runs.settings:
        left, right = runs.of_first(setting, "issgd"), runs.of_first(setting, "sgd")
        relative = difference(left, right, mean_difference(quantity, "steps", relative=True))
        if not len(relative):
            compared = list(pairs(left, right))
            both = compared and all(one.diverged and other.diverged for one, other in compared)
            parts.append(Part(f"{named(setting)}: {BOTH_DIVERGED if both else NO_PAIR}"))
            continue
        gaps = {axis: difference(left, right, mean_difference(quantity, axis)) for axis in AXES}
        values[setting] = {"relative_difference": relative.plain()}
        values[setting] |= {f"difference_at_equal_{axis}": gap.plain() for axis, gap in gaps.items()}
        text = f"{named(setting)}: mean {what}, ISSGD minus SGD, relative to SGD's: "
        text += relative.text(of=-thresholds.visible)
        for axis in AXES:
            if len(gaps[axis]):
                brief = f"{gaps[axis].told()}, {gaps[axis].agreement()}"
                text += f"; at {UNITS[axis]} {gaps[axis].text() if axis == 'steps' else brief}"
                share = shared_range(left, right, quantity, axis)
                text += f" (over the {share:.0%} that both cover)" if share is not None and share < 0.95 else ""
        text += unpaired(left, right) + "."
        brief = f"{named(setting)}: {beside(relative, f'mean {what}')}."
        parts.append(relative.part(text, brief, of=-thresholds.visible, claimed=-1, test=thresholds.test))
    if not values:
        return [Part(NO_PAIR)] if all(NO_PAIR in part.text for part in parts) else parts, {}
    if len(runs.settings) == 1:
        parts.append(Part("Only one setting was run; the claim is about two."))
    return parts, values


def _reaches_zero(runs: Runs, setting: str, thresholds: Thresholds) -> tuple[Part, dict[str, Any]] | None:
    chosen = runs.of_first(setting, "issgd")
    lowest = per_seed(chosen, _lowest_loss, worst=math.inf)
    if not len(lowest):
        return None
    text = f"{named(setting)}: lowest training loss of ISSGD {lowest.text(of=thresholds.reached)}"
    brief = f"{named(setting)}: the lowest training loss of ISSGD: {lowest.told('.2g')}."
    part = lowest.part(f"{text}.", brief, of=thresholds.reached, claimed=-1, test=thresholds.test)
    if part.fails < part.holds and any(_still_falling(run) for run in chosen if run.finished):
        # A run that was cut short says nothing about where it would have gone.
        part = Part(f"{text}, and still falling when the runs ended.", brief, seeds=len(lowest))
    return part, lowest.plain()


def _lowest_loss(run: Run) -> float | None:
    values = run.series("audit/loss/train").values
    return float(values.min()) if len(values) else None


def _still_falling(run: Run) -> bool:
    """Whether the run's last audits lie below all that went before its last tenth."""
    series = run.series("audit/loss/train")
    last = late(series)
    before = series.values[: -len(last)]
    return bool(len(before)) and bool(last.mean() < before.min())


def _place_of_minimum(run: Run) -> float | None:
    series = run.series("audit/loss/valid")
    if len(series.values) < 2 or not np.isfinite(series.values).any():
        return None
    return float(series.positions[np.nanargmin(series.values)] / series.positions[-1])


def _rise_after_minimum(run: Run) -> float | None:
    series = run.series("audit/loss/valid")
    if len(series.values) < 2:
        return None
    return float(late(series).mean() / np.nanmin(series.values) - 1)
