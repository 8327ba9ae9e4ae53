"""Claims about outdated weights: C7, C9."""

from typing import Any

import numpy as np

from issgd_cli.claims.evidence import Run, Runs, named
from issgd_cli.claims.paired import difference, mean_difference, per_seed
from issgd_cli.claims.verdicts import Claim, Outcome, Part, Verdict, judged, outcome_of, untestable

C7 = Claim(
    "C7",
    "A threshold of 4 s keeps about 15% of the weights with 3 workers; without it there is no visible difference.",
    "B.1",
)
C9 = Claim("C9", "The estimator stays unbiased when the weights are stale.", "Sec. 4.3")

LIMITS = (3.0, 5.0)  # seconds that count as the paper's 4
KEPT = (0.075, 0.3)  # "about 15%": within a factor of 2
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
    """Mathematics: true for any fixed positive weights, so no run can refute it."""
    dropping = [run for run in runs.runs if run.config.proposal.limit_mode == "drop" and _has_limit(run)]
    text = "Untestable on these runs; proved by enumerating every draw in tests/test_sampling.py."
    if dropping:
        text += (
            f" It does not cover B.1's filter, which {len(dropping)} of these runs use: they estimate the gradient "
            "of the usable examples."
        )
    return untestable(C9, text)


def _limit(run: Run) -> float | None:
    seconds = run.config.proposal.staleness_limit_seconds
    return seconds if seconds is not None and LIMITS[0] <= seconds <= LIMITS[1] else None


def _has_limit(run: Run) -> bool:
    proposal = run.config.proposal
    return proposal.staleness_limit_seconds is not None or proposal.staleness_limit_versions is not None


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
