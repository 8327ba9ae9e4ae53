"""Claims about outdated weights: C7, C9."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from issgd_cli.claims.evidence import Run, Runs, named
from issgd_cli.claims.paired import difference, mean_difference, per_seed
from issgd_cli.claims.verdicts import (
    MINIMUM_SEEDS,
    Claim,
    Outcome,
    Part,
    Verdict,
    judged,
    outcome_of,
    untestable,
)
from issgd_cli.equations.alain2015 import Float64s

C7 = Claim(
    "C7",
    "A threshold of 4 s keeps about 15% of the weights with 3 workers; without it there is no visible difference.",
    "B.1",
)
C9 = Claim("C9", "The estimator stays unbiased when the weights are stale.", "Sec. 4.3")

LIMITS = (3.0, 5.0)  # seconds that count as the paper's 4
KEPT = (0.075, 0.3)  # "about 15%": within a factor of 2
SIGNIFICANT = 3.0  # ours: standard errors that make a mean ratio differ from 1
DETECTABLE = 0.1  # ours: an excess that must have been seen for "holds"
VISIBLE = 0.1  # ours: a tenth of the mean training loss can be seen in a figure


def verdict_c7(runs: Runs) -> Verdict:
    """What the limit keeps, and how far the training losses with and without it lie apart."""
    limited = tuple(run for run in runs.runs if _limit(run) is not None and run.config.worker.count == 3)
    if not limited:
        return untestable(C7, "No run with 3 workers has a limit of about 4 s (proposal.staleness_limit_seconds).")
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting in dict.fromkeys(run.setting for run in limited):
        group = tuple(run for run in limited if run.setting == setting)
        kept = per_seed(group, _kept)
        if not len(kept.values):
            continue
        low, high = kept.side(of=KEPT[0]), kept.side(of=KEPT[1])
        outcome: Outcome = "holds" if high < 0 < low else "fails" if low < 0 or high > 0 else "undecided"
        parts.append(Part(outcome, f"{named(setting)}: kept fraction {kept.text(of=None)}."))
        values[setting] = {"kept_fraction": kept.plain()}
        twins = tuple(run for run in runs.of(setting) if _is_twin(run, group[0]))
        gap = difference(group, twins, _relative_gap)
        values[setting]["relative_difference"] = gap.plain()
        if len(gap.values):
            apart = gap.side(of=VISIBLE)
            parts.append(
                Part(
                    outcome_of(apart, claimed=-1),
                    f"{named(setting)}: training loss with and without the limit differs by this share: "
                    f"{gap.text(of=VISIBLE)}.",
                )
            )
        else:
            parts.append(Part("untestable", f"{named(setting)}: no runs without the limit to compare with."))
    if not parts:
        return untestable(C7, "No finished run with a limit of about 4 s has recorded its kept fraction.")
    return judged(C7, parts, values)


def verdict_c9(runs: Runs) -> Verdict:
    """Whether means of many draws by stale weights miss the true gradient by no more than their variance explains.

    Mathematics for any fixed positive weights (tests/methods/test_proposal.py proves it by enumeration); this looks
    whether the software that made these runs does what the proof is about. Audits at which some examples could not be
    drawn (B.1's filter, or `drop` before all are scored) are told apart: those weights are not positive, and the
    estimate is of the others' gradient.
    """
    stale = tuple(run for run in runs.runs if run.config.proposal.method == "issgd")
    covered, left_out = (_error_ratios(stale, drops) for drops in (False, True))
    beside = ""
    if left_out is not None:
        beside = f"\nWhere examples are left out, which the claim does not cover: {left_out.text()}."
    values = {name: ratio.plain() for name, ratio in (("covered", covered), ("left_out", left_out)) if ratio}
    if covered is None:
        why = "No audits with draws of their own; proved by enumerating every draw in tests/methods/test_proposal.py."
        return Verdict(C9, "untestable", why + beside, values)
    text = "Squared error of means of draws by stale weights, over what their variance explains (1 if unbiased): "
    return Verdict(C9, covered.outcome(), f"{text}{covered.text()}.{beside}", values)


@dataclass(frozen=True, eq=False)
class _Ratios:
    """Audits' error ratios: a mean a seed, since audits of one seed may share their random numbers."""

    audits: int
    means: Float64s  # (seeds,)

    @property
    def error(self) -> float:
        """Standard error of the mean over seeds; infinite for fewer than MINIMUM_SEEDS."""
        seeds = len(self.means)
        return float(self.means.std(ddof=1) / np.sqrt(seeds)) if seeds >= MINIMUM_SEEDS else float("inf")

    def outcome(self) -> Outcome:
        """Undecided where the seeds could not have shown an excess of DETECTABLE."""
        off = float(self.means.mean()) - 1
        if abs(off) > SIGNIFICANT * self.error:
            return "fails"  # below 1, too: then a trace is wrong
        return "holds" if SIGNIFICANT * self.error < DETECTABLE else "undecided"

    def text(self) -> str:
        return (
            f"{self.means.mean():.3f}, standard error {self.error:.3f}, {self.audits} audits, {len(self.means)} seeds"
        )

    def plain(self) -> dict[str, Any]:
        return {"audits": self.audits, "mean": float(self.means.mean()), "standard_error": self.error}


def _error_ratios(runs: Sequence[Run], left_out: bool) -> _Ratios | None:
    """Over the audits at which some examples could not be drawn, or all could; None where there is none.

    Step 0 is no matter of stale weights.
    """
    found: dict[int, list[float]] = {}
    for run in runs:
        ratios = run.series("audit/estimator/error_ratio")
        drawable = run.series("audit/trace/uniform_in_use")
        partial = set(drawable.positions[np.isfinite(drawable.values)].tolist())
        for step, value in zip(ratios.positions.tolist(), ratios.values.tolist(), strict=True):
            if step > 0 and (step in partial) == left_out:
                found.setdefault(run.seed, []).append(value)
    if not found:
        return None
    return _Ratios(sum(map(len, found.values())), np.array([np.mean(values) for values in found.values()]))


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


def _relative_gap(left: Run, right: Run) -> float | None:
    gap = mean_difference("audit/loss/train", "steps")(left, right)
    values = right.series("audit/loss/train").values
    return None if gap is None or not values.mean() > 0 else abs(gap) / float(values.mean())
