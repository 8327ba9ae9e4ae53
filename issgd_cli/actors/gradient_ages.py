"""How old gradients are when they are applied, in versions of the parameters, and what is done about old ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from issgd_cli.config.peers import Peers

PREFIX = "staleness/gradients/"


def factor(settings: Peers, age: int) -> float:
    """What a gradient of this age is multiplied by: 1 up to the limit; then 0 with `drop`, limit / age with `damp`.

    Source: of damping, staleness-aware ASGD (Zhang et al. 2015), whose limit is 1.
    """
    limit = settings.staleness_limit_versions
    if limit is None or age <= limit:
        return 1.0
    return 0.0 if settings.limit_mode == "drop" else limit / age


@dataclass
class GradientAges:
    """Of all gradients that have come so far, those included that were dropped.

    Attributes:
        counts: How many were so old: from each power of two on, and of age 0, under that number, up to the next.
        total, oldest: Sum of their ages, and the largest.
        dropped, damped, refused: How many were; a refused one has no age.
    """

    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0
    oldest: int = 0
    dropped: int = 0
    damped: int = 0
    refused: int = 0

    def add(self, age: int, multiplied_by: float) -> None:
        """Takes in one that came."""
        least = 1 << (age.bit_length() - 1) if age else 0
        self.counts[least] = self.counts.get(least, 0) + 1
        self.total, self.oldest = self.total + age, max(self.oldest, age)
        self.dropped += multiplied_by == 0
        self.damped += 0 < multiplied_by < 1

    def values(self) -> dict[str, float]:
        """For the trace; mean and histogram only where any came."""
        numbers = {"max_versions": self.oldest, "dropped": self.dropped, "damped": self.damped, "refused": self.refused}
        came = sum(self.counts.values())
        if came:
            numbers |= {f"count/{least}": count for least, count in sorted(self.counts.items())}
        mean = {"mean_versions": self.total / came} if came else {}
        return {PREFIX + name: float(value) for name, value in {**mean, **numbers}.items()}

    @classmethod
    def of(cls, values: Mapping[str, float]) -> "GradientAges":
        """From `values()`, as a report that was saved has them."""
        own = {name.removeprefix(PREFIX): value for name, value in values.items() if name.startswith(PREFIX)}
        counts = {
            int(name.removeprefix("count/")): round(value) for name, value in own.items() if name.startswith("count/")
        }
        oldest, dropped, damped, refused = (
            round(own.get(name, 0)) for name in ("max_versions", "dropped", "damped", "refused")
        )
        total = round(own.get("mean_versions", 0.0) * sum(counts.values()))
        return cls(counts, total, oldest, dropped, damped, refused)

    def state(self) -> dict[str, Any]:
        """As whole numbers, shapes (counts,), (counts,) and (5,)."""
        others = [self.total, self.oldest, self.dropped, self.damped, self.refused]
        return {"least": [*self.counts], "counts": [*self.counts.values()], "others": others}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "GradientAges":
        """From `state()`."""
        counts = {int(least): int(count) for least, count in zip(state["least"], state["counts"], strict=True)}
        return cls(counts, *map(int, state["others"]))
