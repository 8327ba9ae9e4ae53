"""What a claim is, what a verdict is, and how one number a seed becomes one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from issgd_cli.claims.quantiles import median_interval
from issgd_cli.equations.alain2015 import Float64s

Outcome = Literal["holds", "fails", "undecided", "untestable"]

MINIMUM_SEEDS = 3  # agreement of fewer seeds says nothing: two agree by chance every other time


@dataclass(frozen=True)
class Claim:
    """A statement of the paper."""

    id: str
    statement: str
    source: str  # where the paper makes it


@dataclass(frozen=True)
class Verdict:
    """What these runs say about a claim."""

    claim: Claim
    verdict: Outcome
    evidence: str  # with numbers and their uncertainty; a line a part
    values: Mapping[str, Any] = field(default_factory=dict)  # the same numbers, plain, for claims.json


@dataclass(frozen=True)
class Part:
    """One of the things that a claim says at once."""

    outcome: Outcome
    text: str


@dataclass(frozen=True, eq=False)
class PerSeed:
    """One number a seed, for instance the difference of two methods."""

    seeds: tuple[int, ...]
    values: Float64s  # (seeds,)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% bootstrap interval of the median; None below 6 seeds, or where a value is not finite."""
        limits = median_interval(self.values) if np.isfinite(self.values).all() else None
        return None if limits is None else (float(limits[0]), float(limits[1]))

    def side(self, of: float = 0.0) -> int:
        """-1 where the numbers lie below, +1 above, 0 where these seeds can't tell.

        With 6 seeds and more the 95% interval of the median decides; with 3 to 5 all of them must agree.
        """
        if len(self.values) < MINIMUM_SEEDS or not np.isfinite(self.values).all():
            return 0
        low, high = self.interval or (float(self.values.min()), float(self.values.max()))
        return -1 if high < of else 1 if low > of else 0

    def text(self, of: float | None = 0.0) -> str:
        """Median with its interval, or below 6 seeds each value; and how many seeds lie on the median's side."""
        if not len(self.values):
            return "no seeds"
        median = float(np.median(self.values))
        interval = self.interval
        if interval:
            shown = f"{median:.3g} (95% interval {interval[0]:.3g} to {interval[1]:.3g}; {len(self.values)} seeds)"
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
        return {
            "seeds": list(self.seeds),
            "values": [float(value) for value in self.values],
            "median": float(np.median(self.values)) if len(self.values) else None,
            "interval_95": list(self.interval) if self.interval else None,
        }


def outcome_of(side: int, claimed: int) -> Outcome:
    """holds where the numbers lie on the claimed side, fails where they lie on the other."""
    return "undecided" if side == 0 else "holds" if side == claimed else "fails"


def combined(parts: Sequence[Part]) -> Outcome:
    """A claim holds when all its parts do, and fails when one does."""
    outcomes = {part.outcome for part in parts}
    if "fails" in outcomes:
        return "fails"
    if not outcomes or outcomes == {"untestable"}:
        return "untestable"
    return "holds" if outcomes == {"holds"} else "undecided"


def judged(claim: Claim, parts: Sequence[Part], values: Mapping[str, Any]) -> Verdict:
    """A verdict from a claim's parts; the text says what each part shows."""
    outcome = combined(parts)
    texts = [f"{part.text} [{part.outcome}]" if len(parts) > 1 else part.text for part in parts]
    return Verdict(claim, outcome, "\n".join(texts), values)


def untestable(claim: Claim, why: str) -> Verdict:
    """These runs don't hold what the claim is about."""
    return Verdict(claim, "untestable", why)
