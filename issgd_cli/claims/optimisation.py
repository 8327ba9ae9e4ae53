"""Claims about minimising the training loss: C1, C2, C10."""

from typing import Any

import numpy as np

from issgd_cli.claims.evidence import Run, Runs, named
from issgd_cli.claims.paired import (
    AXES,
    UNITS,
    difference,
    late,
    mean_difference,
    per_seed,
    shared_range,
    unpaired,
)
from issgd_cli.claims.verdicts import Claim, Outcome, Part, Verdict, judged, outcome_of, untestable

C1 = Claim(
    "C1", "ISSGD minimises the training loss more quickly than SGD in both settings, and it reaches 0.0.", "Fig. 2"
)
C2 = Claim("C2", "ISSGD minimises the training prediction error more quickly than SGD in both settings.", "Fig. 2")
C10 = Claim(
    "C10",
    "The validation loss reaches its minimum early (about 30 minutes of 2.5 hours), then the runs overfit.",
    "Sec. 5.3",
)

NO_PAIR = "No pair of finished ISSGD and SGD runs with the same seed and exact audits (monitor.audit_every_steps)."
REACHED = 0.01  # a loss below this draws as the paper's 0.0
EARLY = 0.5  # the paper's minimum lies at a fifth of the run; ours may lie anywhere in its first half


def verdict_c1(runs: Runs) -> Verdict:
    """Mean distance of the audited losses at equal steps, and whether ISSGD's falls below 0.01."""
    parts, values = _more_quickly(runs, "audit/loss/train", "training loss")
    for setting in runs.settings:
        part, lowest = _reaches_zero(runs, setting)
        if part:
            parts.append(part)
            values.setdefault(setting, {})["lowest"] = lowest
    return judged(C1, parts, values) if parts else untestable(C1, NO_PAIR)


def verdict_c2(runs: Runs) -> Verdict:
    """Mean distance of the audited training errors at equal steps."""
    parts, values = _more_quickly(runs, "audit/error/train", "training error")
    return judged(C2, parts, values) if parts else untestable(C2, NO_PAIR)


def verdict_c10(runs: Runs) -> Verdict:
    """Where along each ISSGD run the audited validation loss was lowest, and how much it rose after."""
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting in runs.settings:
        chosen = runs.of(setting, "issgd")
        place = per_seed(chosen, _place_of_minimum)
        rise = per_seed(chosen, _rise_after_minimum)
        if not len(place.values):
            continue
        values[setting] = {"place_of_minimum": place.plain(), "rise_after": rise.plain()}
        short = bool((place.values == 1.0).all())
        outcome: Outcome = "undecided" if short else outcome_of(place.side(of=EARLY), claimed=-1)
        if outcome == "holds":
            outcome = outcome_of(rise.side(), claimed=1)
        parts.append(
            Part(
                outcome,
                f"{named(setting)}: minimum at this share of the run: {place.text(of=EARLY)}; "
                f"rise from there to the end, relative: {rise.text()}"
                + ("; still falling at the end of every run, too short to tell." if short else "."),
            )
        )
    if not parts:
        return untestable(C10, "No finished ISSGD run with audits of the validation loss.")
    return judged(C10, parts, values)


def _more_quickly(runs: Runs, quantity: str, what: str) -> tuple[list[Part], dict[str, Any]]:
    """One part a setting, judged at equal steps; equal examples and seconds are told beside it."""
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting in runs.settings:
        left, right = runs.of(setting, "issgd"), runs.of(setting, "sgd")
        gaps = {axis: difference(left, right, mean_difference(quantity, axis)) for axis in AXES}
        if not len(gaps["steps"].values):
            parts.append(Part("untestable", f"{named(setting)}: {NO_PAIR}"))
            continue
        values[setting] = {f"difference_at_equal_{axis}": gap.plain() for axis, gap in gaps.items()}
        text = f"{named(setting)}: mean {what}, ISSGD minus SGD"
        for axis in AXES:
            if len(gaps[axis].values):
                brief = f"{np.median(gaps[axis].values):.3g}, {gaps[axis].agreement()}"
                text += f"; at {UNITS[axis]} {gaps[axis].text() if axis == 'steps' else brief}"
                share = shared_range(runs, setting, quantity, axis)
                text += f" (over the {share:.0%} that both cover)" if share is not None and share < 0.95 else ""
        parts.append(Part(outcome_of(gaps["steps"].side(), claimed=-1), text + unpaired(runs, setting) + "."))
    if len(runs.settings) == 1 and values:
        parts.append(Part("undecided", "Only one setting was run; the claim is about two."))
    return parts, values


def _reaches_zero(runs: Runs, setting: str) -> tuple[Part | None, dict[str, Any]]:
    chosen = runs.of(setting, "issgd")
    lowest = per_seed(chosen, _lowest_loss)
    if not len(lowest.values):
        return None, {}
    outcome = outcome_of(lowest.side(of=REACHED), claimed=-1)
    text = f"{named(setting)}: lowest training loss of ISSGD {lowest.text(of=REACHED)}"
    if outcome == "fails" and any(_still_falling(run) for run in chosen):
        # A run that was cut short says nothing about where it would have gone.
        outcome, text = "undecided", text + ", and still falling when the runs ended"
    return Part(outcome, text + "."), lowest.plain()


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
