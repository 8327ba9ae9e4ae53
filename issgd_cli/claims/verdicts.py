"""What a claim is, what a verdict is, and how one number a seed becomes one.

A claim may say several things at once: it holds by the weakest of its parts' evidence, and fails by the strongest
against any of them, corrected for how many there are. All claims of a report are one family: their p-values are
adjusted by Holm's method. From 10 seeds on a verdict says holds or fails; fewer can only suggest it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from issgd_cli.claims.chances import LEVEL, Test, holm, least, sides
from issgd_cli.claims.quantiles import coverage, median_interval
from issgd_cli.equations.alain2015 import Float64s

Outcome = Literal["holds", "fails", "suggests it holds", "suggests it fails", "proved", "undecided", "untestable"]

MINIMUM_SEEDS = 3  # fewer say nothing: two agree by chance every other time
DECIDING_SEEDS = 10  # what a sign test needs to stay below 0.05 when a report's claims are one family


@dataclass(frozen=True)
class Claim:
    """A statement of the paper."""

    id: str
    statement: str
    source: str  # where the paper makes it


@dataclass(frozen=True)
class Part:
    """One of the things that a claim says at once.

    Attributes:
        text: What the runs show of it, with numbers.
        holds, fails: Two-sided p-values: how likely seeds would agree so much, for it and against it, by chance alone.
        seeds: How many; 0: these runs say nothing of it.
    """

    text: str
    holds: float = 1.0
    fails: float = 1.0
    seeds: int = 0

    def tends(self) -> Outcome:
        """What it tells by itself, uncorrected."""
        if self.seeds == 0:
            return "untestable"
        enough = max(LEVEL, least(self.seeds)) if self.seeds >= MINIMUM_SEEDS else 0.0
        if min(self.holds, self.fails) > enough:
            return "undecided"
        decides = self.seeds >= DECIDING_SEEDS
        if self.holds <= self.fails:
            return "holds" if decides else "suggests it holds"
        return "fails" if decides else "suggests it fails"


@dataclass(frozen=True)
class Finding:
    """What these runs show of a claim, before it is weighed with the others.

    Attributes:
        parts: All that it says; none: these runs don't hold what it is about.
        values: The parts' numbers, plain, for claims.json.
        note: Said after the parts, or instead of them.
        settled: Where the verdict is no matter of chance.
    """

    claim: Claim
    parts: Sequence[Part] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    settled: Outcome | None = None

    @property
    def holds(self) -> float:
        """The weakest part's p-value."""
        return max((part.holds for part in self.parts), default=1.0)

    @property
    def fails(self) -> float:
        """The p-value of any part's failing, for as many as there are (Bonferroni)."""
        tested = [part.fails for part in self.parts if part.seeds]
        return min(1.0, len(tested) * min(tested, default=1.0))

    def is_tested(self) -> bool:
        """Whether chance has a say in it."""
        return self.settled is None and any(part.seeds >= MINIMUM_SEEDS for part in self.parts)

    def evidence(self) -> str:
        """A line a part."""
        lines = [f"{part.text} [{part.tends()}]" if len(self.parts) > 1 else part.text for part in self.parts]
        return "\n".join([*lines, *([self.note] if self.note else [])])


@dataclass(frozen=True)
class Verdict:
    """What these runs say about a claim.

    Attributes:
        p: The chance of so much agreement where there is nothing, adjusted for the report's other claims; None where
            chance has no say.
        evidence: With numbers and their uncertainty; a line a part.
        sensitivity: What the verdict would be otherwise: "with a threshold of 0.9" -> that verdict.
    """

    claim: Claim
    verdict: Outcome
    p: float | None
    evidence: str
    values: Mapping[str, Any] = field(default_factory=dict)
    sensitivity: Mapping[str, Outcome] = field(default_factory=dict)


def weighed(findings: Sequence[Finding]) -> list[Verdict]:
    """The verdicts of a report."""
    tested = [finding for finding in findings if finding.is_tested()]
    adjusted = holm([min(finding.holds, finding.fails) for finding in tested])
    p_of = {finding.claim.id: float(p) for finding, p in zip(tested, adjusted, strict=True)}
    return [
        Verdict(
            found.claim,
            _outcome(found, p_of.get(found.claim.id)),
            p_of.get(found.claim.id),
            found.evidence(),
            found.values,
        )
        for found in findings
    ]


def _outcome(finding: Finding, p: float | None) -> Outcome:
    if finding.settled is not None:
        return finding.settled
    tested = [part for part in finding.parts if part.seeds]
    if not tested:
        return "untestable"
    holds = finding.holds <= finding.fails
    seeds = min(part.seeds for part in tested)
    if p is not None and p < LEVEL and seeds >= DECIDING_SEEDS:
        return "holds" if holds else "fails"
    tendencies = [part.tends() for part in finding.parts]
    if all(tendency in ("holds", "suggests it holds") for tendency in tendencies):
        return "suggests it holds"
    return "suggests it fails" if {"fails", "suggests it fails"} & set(tendencies) else "undecided"


@dataclass(frozen=True, eq=False)
class PerSeed:
    """One number a seed, for instance the difference of two methods; infinite where a run diverged."""

    seeds: tuple[int, ...]
    values: Float64s  # (seeds,)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of the median; None below 6 seeds."""
        limits = median_interval(self.values)
        return None if limits is None else (float(limits[0]), float(limits[1]))

    def part(self, text: str, of: float, claimed: int, test: Test = "sign") -> Part:
        """That these numbers lie below (-1) or above (+1) a threshold, as a part of a claim."""
        below, above = sides(self.values, of, test)
        holds, fails = (below, above) if claimed < 0 else (above, below)
        return Part(text, holds, fails, len(self.values))

    def part_within(self, text: str, margin: float, test: Test = "sign") -> Part:
        """That these numbers lie within a margin of 0 on either side."""
        below, _ = sides(self.values, margin, test)
        _, above = sides(self.values, -margin, test)
        _, beyond = sides(self.values, margin, test)
        beneath, _ = sides(self.values, -margin, test)
        return Part(text, max(below, above), min(beyond, beneath), len(self.values))

    def text(self, of: float | None = 0.0) -> str:
        """Median with its interval, or below 6 seeds each value; and how many seeds lie on the median's side."""
        if not len(self.values):
            return "no seeds"
        median = float(np.median(self.values))
        if interval := self.interval:
            sure = f"{coverage(len(self.values)):.1%} interval {interval[0]:.3g} to {interval[1]:.3g}"
            shown = f"{median:.3g} ({sure}; {len(self.values)} seeds)"
        else:
            listed = ", ".join(f"{value:.3g}" for value in self.values)
            shown = f"{listed} (seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))})"
        return shown if of is None or median == of else f"{shown}, {self.agreement(of)}"

    def agreement(self, of: float = 0.0) -> str:
        """How many seeds lie on the median's side: "negative in 3 of 3 seeds"."""
        below = bool(np.median(self.values) < of)
        count = int((self.values < of).sum() if below else (self.values > of).sum())
        side = ("negative" if below else "positive") if of == 0.0 else f"{'below' if below else 'above'} {of:g}"
        return f"{side} in {count} of {len(self.values)} seeds"

    def plain(self) -> dict[str, Any]:
        """For claims.json."""
        interval = self.interval
        return {
            "seeds": list(self.seeds),
            "values": [float(value) for value in self.values],
            "median": float(np.median(self.values)) if len(self.values) else None,
            "interval": list(interval) if interval else None,
            "coverage": coverage(len(self.values)) if interval else None,
        }
