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

Tendency = Literal["suggests it holds", "suggests it fails", "undecided", "untestable"]
Outcome = Literal["holds", "fails", "proved"] | Tendency

MINIMUM_SEEDS = 3  # fewer say nothing: two agree by chance every other time
LEFT_OUT = "without seed "  # and which: how a sensitivity to one seed is named
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
        brief: The same in a few words and one number.
        holds, fails: Two-sided p-values: how likely seeds would agree so much, for it and against it, by chance alone.
        seeds: How many; 0: these runs say nothing of it.
        enough: The largest p-value that suggests something.
    """

    text: str
    brief: str = ""
    holds: float = 1.0
    fails: float = 1.0
    seeds: int = 0
    enough: float = LEVEL

    def tends(self, minimum: int = MINIMUM_SEEDS) -> Tendency:
        """What it tells by itself, with nothing adjusted for the other parts and claims."""
        if self.seeds == 0:
            return "untestable"
        if self.seeds < minimum or min(self.holds, self.fails) > self.enough:
            return "undecided"
        return "suggests it holds" if self.holds <= self.fails else "suggests it fails"


@dataclass(frozen=True)
class Finding:
    """What these runs show of a claim, before it is weighed with the others.

    Attributes:
        parts: All that it says; none: these runs don't hold what it is about.
        values: The parts' numbers, plain, for claims.json.
        note: Said after the parts, or instead of them.
        settled: What is to be said in short where the verdict is no matter of chance, being proved; else empty.
    """

    claim: Claim
    parts: Sequence[Part] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    settled: str = ""

    @property
    def tested(self) -> list[Part]:
        """The parts of which the runs say something."""
        return [part for part in self.parts if part.seeds]

    @property
    def holds(self) -> float:
        """The weakest part's p-value."""
        return max((part.holds for part in self.parts), default=1.0)

    @property
    def fails(self) -> float:
        """The p-value of any part's failing, for as many as there are (Bonferroni)."""
        return min(1.0, len(self.tested) * min((part.fails for part in self.tested), default=1.0))

    @property
    def decisive(self) -> Part | None:
        """The part that the verdict hangs on: the weakest for the claim, or the strongest against it."""
        if self.holds <= self.fails:
            return max(self.tested, key=lambda part: part.holds, default=None)
        return min(self.tested, key=lambda part: part.fails, default=None)

    def tends_to_fail(self, minimum: int) -> bool:
        """Whether a part suggests it, though any of as many might by chance."""
        part = min(self.tested, key=lambda part: part.fails, default=None)
        return part is not None and part.seeds >= minimum and len(self.tested) * part.fails <= part.enough

    def has_chance(self, minimum: int) -> bool:
        """Whether chance has a say in it."""
        return not self.settled and any(part.seeds >= minimum for part in self.parts)

    def brief(self) -> str:
        """One sentence, with the number that the verdict hangs on."""
        if self.settled:
            return self.settled
        if (part := self.decisive) is not None:
            return part.brief
        return (self.parts[0].text if self.parts else self.note).partition("\n")[0]

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
        brief: One sentence, with the number that it hangs on.
        evidence: With numbers and their uncertainty; a line a part.
        sensitivity: What the verdict would be otherwise: "visible = 0.01" -> that verdict.
    """

    claim: Claim
    verdict: Outcome
    p: float | None
    brief: str
    evidence: str
    values: Mapping[str, Any] = field(default_factory=dict)
    sensitivity: Mapping[str, Outcome] = field(default_factory=dict)


def weighed(findings: Sequence[Finding], minimum: int = MINIMUM_SEEDS) -> list[Verdict]:
    """The verdicts of a report.

    Args:
        findings: One a claim.
        minimum: Of seeds; fewer suggest nothing.
    """
    family = [place for place, finding in enumerate(findings) if finding.has_chance(minimum)]
    adjusted = holm([min(findings[place].holds, findings[place].fails) for place in family])
    p_of = dict(zip(family, adjusted.tolist(), strict=True))
    return [
        Verdict(
            found.claim,
            _outcome(found, p_of.get(place), minimum),
            p_of.get(place),
            found.brief(),
            found.evidence(),
            found.values,
        )
        for place, found in enumerate(findings)
    ]


def tendency(outcome: Outcome) -> Outcome:
    """An outcome, however sure: holds as suggests it holds."""
    if outcome == "holds":
        return "suggests it holds"
    return "suggests it fails" if outcome == "fails" else outcome


def _outcome(finding: Finding, p: float | None, minimum: int) -> Outcome:
    if finding.settled:
        return "proved"
    if (part := finding.decisive) is None:
        return "untestable"
    holds = finding.holds <= finding.fails
    seeds = min(part.seeds for part in finding.tested) if holds else part.seeds
    if p is not None and p < LEVEL and seeds >= DECIDING_SEEDS:
        return "holds" if holds else "fails"
    if {part.tends(minimum) for part in finding.parts} == {"suggests it holds"}:
        return "suggests it holds"
    return "suggests it fails" if finding.tends_to_fail(minimum) else "undecided"


@dataclass(frozen=True, eq=False)
class PerSeed:
    """One number a seed, for instance the difference of two methods; infinite where a run diverged.

    Attributes:
        values: Shape (seeds,).
        words: What minus infinity means, and infinity.
    """

    seeds: tuple[int, ...]
    values: Float64s
    words: tuple[str, str] = ("diverged", "diverged")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def median(self) -> float:
        """NaN without seeds, or between two runs of which one diverged on either side."""
        with np.errstate(invalid="ignore"):
            return float(np.median(self.values)) if len(self) else float("nan")

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of the median; None below 6 seeds."""
        limits = median_interval(self.values)
        return None if limits is None else (float(limits[0]), float(limits[1]))

    def told(self, spec: str = ".3g") -> str:
        """The median in this format; in words where it is no number."""
        return self.word(self.median, spec)

    def word(self, value: float, spec: str = ".3g") -> str:
        """One of these numbers, likewise."""
        if np.isnan(value):
            return "unknown"
        return format(value, spec) if np.isfinite(value) else self.words[int(value > 0)]

    def part(self, text: str, brief: str, of: float, claimed: int, test: Test = "sign") -> Part:
        """That these numbers lie below (-1) or above (+1) a threshold, as a part of a claim."""
        below, above = sides(self.values, of, test)
        holds, fails = (below, above) if claimed < 0 else (above, below)
        return Part(text, brief, holds, fails, len(self), _enough(len(self), test))

    def part_at_least(self, text: str, brief: str, of: float, test: Test = "sign") -> Part:
        """That these numbers reach a threshold: one that is exactly there, as 19 of 20 are 95%, does."""
        return self.part(text, brief, float(np.nextafter(of, -np.inf)), claimed=1, test=test)

    def part_within(self, text: str, brief: str, margin: float, test: Test = "sign") -> Part:
        """That these numbers lie within a margin of 0 on either side."""
        below, beyond = sides(self.values, margin, test)
        beneath, above = sides(self.values, -margin, test)
        return Part(text, brief, max(below, above), min(beyond, beneath), len(self), _enough(len(self), test))

    def text(self, of: float | None = 0.0, at_least: bool = False) -> str:
        """Median with its interval, or below 6 seeds each value; and how many seeds lie on the median's side.

        Args:
            of: The threshold; None: there is none.
            at_least: Whether a value that is exactly there has reached it; else it lies on neither side.
        """
        if not len(self):
            return "no seeds"
        if interval := self.interval:
            sure = f"{coverage(len(self)):.1%} interval {self.word(interval[0])} to {self.word(interval[1])}"
            shown = f"{self.told()} ({sure}; {len(self)} seeds)"
        else:
            listed = ", ".join(map(self.word, self.values))
            shown = f"{listed} (seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))})"
        if of is None or (self.median == of and not at_least):
            return shown
        return f"{shown}, {self.agreement(of, at_least)}"

    def agreement(self, of: float = 0.0, at_least: bool = False) -> str:
        """How many seeds lie on the median's side: "negative in 3 of 3 seeds"."""
        below = self.median < of
        reached = self.values >= of if at_least else self.values > of
        count = int((self.values < of).sum() if below else reached.sum())
        side = ("negative" if below else "positive") if of == 0.0 else f"{'below' if below else 'above'} {of:g}"
        side = f"at least {of:g}" if at_least and not below else side
        return f"{side} in {count} of {len(self)} seeds"

    def plain(self) -> dict[str, Any]:
        """For claims.json."""
        interval = self.interval
        return {
            "seeds": list(self.seeds),
            "values": [float(value) for value in self.values],
            "median": self.median if len(self) else None,
            "interval": list(interval) if interval else None,
            "coverage": coverage(len(self)) if interval else None,
        }


def _enough(seeds: int, test: Test) -> float:
    """Below 6 seeds no signs reach the level: then all that agree suggest something."""
    return max(LEVEL, least(seeds)) if test == "sign" else LEVEL
