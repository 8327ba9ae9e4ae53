"""Claims about outdated weights: C7, C9."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.paired import difference, mean_difference, per_seed, unpaired
from issgd_cli.claims.settings import named
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import Claim, Finding, Part, PerSeed

C7 = Claim(
    "C7",
    "With and without a threshold of 4 s, which keeps about 15% of the weights of 3 workers, there is no visible "
    "difference.",
    "B.1",
)
C9 = Claim("C9", "The estimator stays unbiased when the weights are stale.", "Sec. 4.3")

LIMITS = (3.0, 5.0)  # seconds that count as the paper's 4
CALIBRATED = (
    "What a limit of 4 s keeps is told, not judged: on a simulated cluster with the preset k20 it is calibrated, the "
    "scoring rate being derived from the paper's 15%."
)


def finding_c7(runs: Runs, thresholds: Thresholds) -> Finding:
    """How far the training losses with and without the limit lie apart; what it keeps is told beside it."""
    limited = tuple(run for run in runs.runs if _limit(run) is not None and run.config.worker.count == 3)
    if not limited:
        return Finding(C7, note="No run with 3 workers has a limit of about 4 s (proposal.staleness_limit_seconds).")
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting, method in dict.fromkeys((run.setting, run.method) for run in limited):
        group = tuple(run for run in limited if (run.setting, run.method) == (setting, method))
        kept = per_seed(group, _kept)
        twins = tuple(run for run in runs.of(setting) if _is_twin(run, group[0]))
        signed = difference(group, twins, mean_difference("audit/loss/train", "steps", relative=True))
        # A run that diverged is far from one that did not.
        gap = PerSeed(signed.seeds, np.abs(signed.values), ("", "one of the two diverged"))
        values[f"{setting} {method}".strip()] = {"kept_fraction": kept.plain(), "relative_difference": gap.plain()}
        told = f"{named(setting)}, {method}, kept fraction {kept.text(of=None)}: "
        if not len(gap):
            parts.append(Part(told + "no runs without the limit to compare with."))
            continue
        text = f"training loss with and without the limit differs by this share: {gap.text(of=thresholds.visible)}"
        brief = f"{named(setting)}: mean training loss with and without the limit, difference: {gap.told('.1%')}."
        text = f"{told}{text}{unpaired(group, twins)}."
        parts.append(gap.part(text, brief, of=thresholds.visible, claimed=-1, test=thresholds.test))
    return Finding(C7, parts, values, CALIBRATED)


def finding_c9(runs: Runs, thresholds: Thresholds) -> Finding:
    """Whether means of many draws by stale weights miss the true gradient by no more than their variance explains.

    Mathematics for any fixed positive weights (tests/methods/test_proposal.py proves it by enumeration); this looks
    whether the software that made these runs does what the proof is about. Audits at which some examples could not be
    drawn (B.1's filter, or `drop` before all are scored) are told apart: those weights are not positive, and the
    estimate is of the others' gradient. Means of ratios are as good as normal: their test is Student's.
    """
    stale = tuple(run for run in runs.runs if run.by_scores)
    covered, left_out = (_error_ratios(stale, drops) for drops in (False, True))
    values = {name: ratio.plain() for name, ratio in (("covered", covered), ("left_out", left_out)) if len(ratio)}
    note = f"Where examples are left out, which the claim does not cover: {_told(left_out)}." if len(left_out) else ""
    if not len(covered):
        why = "No audits with draws of their own"
        why += ", since they are on samples of the examples" if any(run.audit_sample for run in stale) else ""
        why += "; proved by enumerating every draw in tests/methods/test_proposal.py."
        return Finding(C9, values=values, note=f"{why}\n{note}".strip())
    text = (
        "Squared error of means of draws by stale weights, over what their variance explains (1 if unbiased), a mean a "
        f"seed: {_told(covered)}."
    )
    brief = f"Means of draws miss the true gradient by {covered.values.mean():.3f} of what their variance explains."
    off = PerSeed(covered.seeds, covered.values - 1)
    return Finding(
        C9, [off.part_within(text, brief, thresholds.detectable, test=thresholds.test_of_means)], values, note
    )


def _told(ratios: PerSeed) -> str:
    if len(ratios) < 2:
        return f"{ratios.values.mean():.3f}, one seed"
    error = float(ratios.values.std(ddof=1) / np.sqrt(len(ratios)))
    return f"{ratios.values.mean():.3f}, standard error {error:.3f}, {len(ratios)} seeds"


def _error_ratios(runs: Sequence[Run], left_out: bool) -> PerSeed:
    """Means over the audits at which some examples could not be drawn, or all could.

    A mean a seed, since audits of one seed may share their random numbers. Step 0 is no matter of stale weights.
    """
    found: dict[int, list[float]] = {}
    for run in runs:
        ratios = run.series("audit/estimator/error_ratio")
        drawable = run.series("audit/trace/uniform_in_use")
        partial = set(drawable.positions[np.isfinite(drawable.values)].tolist())
        for step, value in zip(ratios.positions.tolist(), ratios.values.tolist(), strict=True):
            if step > 0 and (step in partial) == left_out:
                found.setdefault(run.seed, []).append(value)
    return PerSeed(tuple(sorted(found)), np.array([np.mean(found[seed]) for seed in sorted(found)]))


def _limit(run: Run) -> float | None:
    seconds = run.config.proposal.staleness_limit_seconds
    return seconds if seconds is not None and LIMITS[0] <= seconds <= LIMITS[1] else None


def _is_twin(run: Run, limited: Run) -> bool:
    """Whether a run differs from the limited one by nothing but the limit."""
    unlimited = limited.config.proposal.model_copy(update={"staleness_limit_seconds": None})
    return run.config.hash() == limited.config.model_copy(update={"proposal": unlimited}).hash()


def _kept(run: Run) -> float | None:
    values = run.series("proposal/kept_fraction").values
    return float(np.median(values)) if len(values) else None
