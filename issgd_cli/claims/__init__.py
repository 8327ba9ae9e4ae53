"""The paper's claims C1-C11 and what the runs at hand say about each, from their traces alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from issgd_cli.claims import generalisation, optimisation, staleness, variance
from issgd_cli.claims.evidence import Run, Runs, load, load_run
from issgd_cli.claims.thresholds import Thresholds, named, variations
from issgd_cli.claims.verdicts import Claim, Finding, Outcome, Verdict, weighed

__all__ = ["FINDERS", "Claim", "Outcome", "Run", "Runs", "Verdict", "as_json", "judge", "load", "load_run", "verdicts"]

# In the order of the report.
FINDERS: dict[str, Callable[[Runs, Thresholds], Finding]] = {
    "C1": optimisation.finding_c1,
    "C2": optimisation.finding_c2,
    "C3": generalisation.finding_c3,
    "C4": generalisation.finding_c4,
    "C5": variance.finding_c5,
    "C6": variance.finding_c6,
    "C7": staleness.finding_c7,
    "C8": variance.finding_c8,
    "C9": staleness.finding_c9,
    "C10": optimisation.finding_c10,
    "C11": variance.finding_c11,
}


def verdicts(runs: Runs, thresholds: Thresholds | None = None) -> list[Verdict]:
    """A verdict on every claim."""
    chosen = thresholds or Thresholds()
    return weighed([find(runs, chosen) for find in FINDERS.values()])


def judge(runs: Runs) -> list[Verdict]:
    """A verdict on every claim, and what it would be otherwise: another threshold, another test, a seed left out."""
    others = {name: verdicts(runs, thresholds) for name, thresholds in variations().items()}
    seeds = sorted({run.seed for run in runs.runs})
    for seed in seeds if len(seeds) > 1 else ():
        kept = replace(runs, runs=tuple(run for run in runs.runs if run.seed != seed))
        others[f"without seed {seed}"] = verdicts(kept)
    return [
        replace(
            verdict,
            sensitivity={
                name: other[place].verdict for name, other in others.items() if other[place].verdict != verdict.verdict
            },
        )
        for place, verdict in enumerate(verdicts(runs))
    ]


def as_json(found: Sequence[Verdict], runs: Runs) -> dict[str, Any]:
    """Content of claims.json."""
    return {
        "experiment": runs.name,
        "runs": runs.tally(),
        "thresholds": {
            name: {"value": value, "reason": reason} for name, (value, reason) in named(Thresholds()).items()
        },
        "claims": [
            {
                "id": verdict.claim.id,
                "statement": verdict.claim.statement,
                "source": verdict.claim.source,
                "verdict": verdict.verdict,
                "p": verdict.p,
                "evidence": verdict.evidence,
                "sensitivity": dict(verdict.sensitivity),
                "values": dict(verdict.values),
            }
            for verdict in found
        ],
    }
