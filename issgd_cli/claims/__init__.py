"""The papers' claims and what the runs at hand say about each, from their traces alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.loading import load, load_run
from issgd_cli.claims.others import comparisons
from issgd_cli.claims.papers import FINDERS, PAPERS
from issgd_cli.claims.thresholds import Thresholds, reasons, variations
from issgd_cli.claims.verdicts import LEFT_OUT, MINIMUM_SEEDS, Claim, Finding, Outcome, Verdict, tendency, weighed

__all__ = [
    "FINDERS", "PAPERS", "Claim", "Outcome", "Run", "Runs", "Verdict", "as_json", "findings", "folders",
    "judge", "load", "load_run",
]  # fmt: skip


def findings(runs: Runs, thresholds: Thresholds, papers: Sequence[str] = ()) -> list[Finding]:
    """What the runs show of every claim of these papers, or of those that they are about."""
    return [find(runs, thresholds) for paper in papers or runs.papers for find in PAPERS[paper].finders.values()]


def judge(runs: Runs) -> list[Verdict]:
    """A verdict on every claim, and what it would be otherwise: another threshold, another test, a seed left out.

    A claim's thresholds are changed with all other claims as they are. With a seed fewer every verdict is less sure:
    only one that turns is told.
    """
    found = findings(runs, Thresholds())
    verdicts = weighed(found)
    otherwise: list[dict[str, Outcome]] = [{} for _ in found]
    for name, thresholds in variations().items():
        for place, other in enumerate(findings(runs, thresholds)):
            changed = weighed([*found[:place], other, *found[place + 1 :]])[place].verdict
            if changed != verdicts[place].verdict:
                otherwise[place][name] = changed
    seeds = sorted({run.seed for run in runs.runs})
    for seed in seeds if len(seeds) > 1 else ():
        kept = replace(runs, runs=tuple(run for run in runs.runs if run.seed != seed))
        for place, without in enumerate(weighed(findings(kept, Thresholds(), runs.papers), minimum=MINIMUM_SEEDS - 1)):
            if tendency(without.verdict) != tendency(verdicts[place].verdict):
                otherwise[place][f"{LEFT_OUT}{seed}"] = without.verdict
    return [replace(verdict, sensitivity=other) for verdict, other in zip(verdicts, otherwise, strict=True)]


def folders(runs: Runs) -> dict[str, list[str]]:
    """Claim -> the folders of the runs that its numbers are made of: those without which they would be others."""
    whole = findings(runs, Thresholds())
    found: dict[str, list[str]] = {finding.claim.id: [] for finding in whole}
    for folder in dict.fromkeys(run.folder for run in runs.runs):
        rest = replace(runs, runs=tuple(run for run in runs.runs if run.folder != folder))
        for one, other in zip(whole, findings(rest, Thresholds(), runs.papers), strict=True):
            if repr(one.values) != repr(other.values):  # as text: a NaN is no other number than itself
                found[one.claim.id].append(folder)
    return found


def as_json(found: Sequence[Verdict], runs: Runs) -> dict[str, Any]:
    """Content of claims.json."""
    made_of = folders(runs)
    return {
        "experiment": runs.name,
        "runs": runs.tally(),
        "thresholds": reasons(Thresholds()),
        "claims": [
            {
                "id": verdict.claim.id,
                "statement": verdict.claim.statement,
                "source": verdict.claim.source,
                "verdict": verdict.verdict,
                "p": verdict.p,
                "brief": verdict.brief,
                "evidence": verdict.evidence,
                "sensitivity": dict(verdict.sensitivity),
                "folders": made_of[verdict.claim.id],
                "values": dict(verdict.values),
            }
            for verdict in found
        ],
        "other_methods": [comparison.plain() for comparison in comparisons(runs)],
    }
