"""The paper's claims C1-C11 and what the runs at hand say about each, from their traces alone."""

from collections.abc import Callable, Sequence
from typing import Any

from issgd_cli.claims import generalisation, optimisation, staleness, variance
from issgd_cli.claims.evidence import Run, Runs, load, load_run
from issgd_cli.claims.verdicts import Claim, Outcome, Verdict

__all__ = ["JUDGES", "Claim", "Outcome", "Run", "Runs", "Verdict", "as_json", "judge", "load", "load_run"]

# In the order of the report.
JUDGES: dict[str, Callable[[Runs], Verdict]] = {
    "C1": optimisation.verdict_c1,
    "C2": optimisation.verdict_c2,
    "C3": generalisation.verdict_c3,
    "C4": generalisation.verdict_c4,
    "C5": variance.verdict_c5,
    "C6": variance.verdict_c6,
    "C7": staleness.verdict_c7,
    "C8": variance.verdict_c8,
    "C9": staleness.verdict_c9,
    "C10": optimisation.verdict_c10,
    "C11": variance.verdict_c11,
}


def judge(runs: Runs) -> list[Verdict]:
    """A verdict on every claim."""
    return [verdict(runs) for verdict in JUDGES.values()]


def as_json(verdicts: Sequence[Verdict], runs: Runs) -> dict[str, Any]:
    """Content of claims.json."""
    return {
        "experiment": runs.name,
        "runs": runs.tally(),
        "claims": [
            {
                "id": verdict.claim.id,
                "statement": verdict.claim.statement,
                "source": verdict.claim.source,
                "verdict": verdict.verdict,
                "evidence": verdict.evidence,
                "values": dict(verdict.values),
            }
            for verdict in verdicts
        ],
    }
