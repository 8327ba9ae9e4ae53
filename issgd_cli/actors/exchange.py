"""The master's exchange with the database (figure 1): its parameters go out, a table of norms comes back as a proposal.

In exact mode the master itself does one round after the other. In relaxed mode a round is a task beside the training,
so that neither 76 MB of parameters nor a database that does not answer holds up a step.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from issgd_cli.actors.actor import Operation
from issgd_cli.config.config import Config
from issgd_cli.database import Database, Layout, Published, Weights
from issgd_cli.equations import alain2015 as equations
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.methods.proposal import Proposal, proposal, usable_norms
from issgd_cli.methods.smoothing import smoothing
from issgd_cli.randomness import generator

BARRIER_POLL_SECONDS = 0.005

Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class Refreshed:
    """What a round brings back.

    Attributes:
        proposal: To draw from, on the master's device.
        norms: The table that it was made of, NaN for examples never scored, shape (N,).
        smoothing: The constant that was added.
    """

    proposal: Proposal
    norms: Float32s
    smoothing: float

    def state(self) -> dict[str, Any]:
        """As numbers and arrays."""
        made = self.proposal
        flags = {"floored": made.floored, "fallback": made.fallback}
        return {"weights": made.weights, "norms": self.norms, "smoothing": self.smoothing, **flags}

    @classmethod
    def restored(cls, state: Mapping[str, Any], device: torch.device) -> "Refreshed":
        """From `state()`: the same draws, to the bit."""
        made = Proposal.of(state["weights"], int(state["floored"]), bool(state["fallback"]))
        return cls(made.on(device), state["norms"], float(state["smoothing"]))


@dataclass
class OwnNorms:
    """Norms that the master's own minibatches gave, free of charge: a private overlay on the database's table.

    They are of parameters younger than the version that was published before their minibatch, and older than the next,
    so they stand above a chunk's norms of that version, and under those of the next.

    Attributes:
        norms, versions, seconds: What is known of each example, of which version, since when, shape (N,).
    """

    norms: Float32s
    versions: NDArray[np.int32]
    seconds: Float64s

    @classmethod
    def none(cls, examples: int) -> "OwnNorms":
        """Of N examples."""
        return cls(np.zeros(examples, np.float32), np.zeros(examples, np.int32), np.zeros(examples))

    def keep(self, indices: NDArray[np.int64], norms: Float32s, version: int, seconds: float) -> None:
        """Takes in what some minibatches gave, the later ones last; shapes (M,)."""
        self.norms[indices], self.versions[indices], self.seconds[indices] = norms, version, seconds

    def over(self, table: Weights, layout: Layout) -> "OwnNorms":
        """The newer of these and the table's, example by example."""
        versions = layout.spread("train", table.versions)
        own = (self.versions >= versions) & (self.versions > 0)
        return OwnNorms(
            np.where(own, self.norms, table.norms),
            np.where(own, self.versions, versions),
            np.where(own, self.seconds, layout.spread("train", table.seconds)),
        )


@dataclass
class Exchange:
    """See the module.

    Attributes:
        own: The overlay; None where the master's own norms are not used.
    """

    config: Config
    database: Database
    device: torch.device
    own: OwnNorms | None = None
    layout: Layout = field(init=False)
    smoothing: Callable[[Float64s, Float64s, Float64s], float] = field(init=False)
    reads_pairs: bool = field(init=False)

    def __post_init__(self) -> None:
        self.layout = self.database.layout()
        self.smoothing = smoothing(self.config.proposal.smoothing)
        self.reads_pairs = self.config.proposal.smoothing == "variance-optimal"

    def round(self, published: Published, parameters: Float32s) -> Generator[Operation, None, Refreshed]:
        """Publishes parameters, flat, shape (P,), and makes the proposal that the database's table then gives."""
        yield from self.publish(published, parameters)
        return (yield from self.refreshing(published))

    def refreshing(self, published: Published) -> Generator[Operation, None, Refreshed]:
        """The second half of a round."""
        yield Operation("refresh", published.version, bytes=(8 if self.reads_pairs else 4) * self.layout.train)
        return self.refresh(published)

    def publish(self, published: Published, parameters: Float32s) -> Generator[Operation]:
        """Publishes; in exact mode waits until all records carry this version, and the monitor has sampled them."""
        yield Operation("publish", published.version, bytes=parameters.nbytes)
        self.database.publish(published, parameters)
        if self.config.master.mode == "exact":
            while not self._all_have(published):
                yield Operation("wait", published.version, seconds=BARRIER_POLL_SECONDS)

    def refresh(self, newest: Published) -> Refreshed:
        """Reads the table and makes a proposal of it; reports on it for the trace."""
        settings = self.config.proposal
        table = self.database.weights(previous=self.reads_pairs)
        now = self.database.seconds()
        norms, versions, seconds, counts = table.norms, table.versions, table.seconds, self.layout.sizes("train")
        if self.own is not None:
            merged = self.own.over(table, self.layout)
            norms, versions, seconds = merged.norms, merged.versions, merged.seconds
            counts = np.ones(self.layout.train, np.int64)
        fresh = self._is_fresh(versions, seconds, newest.version, now)
        usable = np.repeat(fresh, counts)  # (N,)
        if settings.source == "shuffled":
            norms = self._shuffled(norms, usable, newest.step)
        constant = 0.0
        if usable.any():
            old = new = np.zeros(0)
            if table.previous_norms is not None:
                paired = self._is_fresh(table.versions, table.seconds, newest.version, now)
                pairs = self.layout.spread("train", paired & (table.previous_versions > 0)).astype(bool)
                old, new = usable_norms(table.previous_norms, pairs), usable_norms(table.norms, pairs)
            constant = self.smoothing(usable_norms(norms, usable), old, new)
        if settings.method == "sgd":
            made = Proposal.uniform(self.layout.train)
        else:
            made = proposal(norms, usable, constant, settings.limit_mode, settings.minimum_usable_fraction)
        self._report(
            newest, now, made, constant, float(usable.mean()), _ages(versions, seconds, counts, fresh, newest, now)
        )
        known = np.where(np.repeat(versions > 0, counts), norms, np.float32("nan"))
        return Refreshed(made.on(self.device), known, constant)

    def _shuffled(self, norms: Float32s, usable: NDArray[np.bool_], step: int) -> Float32s:
        """The usable norms dealt out anew among their examples: weights that say nothing (section 4.2)."""
        places = np.flatnonzero(usable)
        shuffled = norms.copy()
        shuffled[places] = norms[generator(self.config.seed, "shuffled_weights", step).permutation(places)]
        return shuffled

    def _is_fresh(self, versions: NDArray[np.int32], seconds: Float64s, newest: int, now: float) -> NDArray[np.bool_]:
        """Scored, and within the staleness limits (appendix B.1)."""
        settings = self.config.proposal
        fresh = versions > 0
        if settings.staleness_limit_seconds is not None:
            fresh &= now - seconds <= settings.staleness_limit_seconds
        if settings.staleness_limit_versions is not None:
            fresh &= newest - versions <= settings.staleness_limit_versions
        return fresh

    def _all_have(self, published: Published) -> bool:
        """The barrier of figure 1: every record carries this version, and the monitor has sampled them."""
        acknowledged = self.database.get("acknowledged") or {"version": 0}
        return acknowledged["version"] >= published.version and self.database.behind(published.version) == 0

    def _report(
        self, newest: Published, now: float, made: Proposal, constant: float, kept: float, ages: dict[str, float]
    ) -> None:
        values = {
            "proposal/entropy": equations.entropy(made.weights),
            "proposal/effective_sample_size": equations.effective_sample_size(made.weights),
            "proposal/kept_fraction": kept,
            "proposal/smoothing": constant,
            "proposal/floored": float(made.floored),
            "proposal/fallback": float(made.fallback),
            **ages,
        }
        self.database.put("proposal", {"step": newest.step, "seconds": now, "values": values})


def _ages(
    versions: NDArray[np.int32],
    seconds: Float64s,
    counts: NDArray[np.int64],
    fresh: NDArray[np.bool_],
    newest: Published,
    now: float,
) -> dict[str, float]:
    """How old the usable weights are, as means over examples; nothing where none is usable."""
    if not fresh.any():
        return {}
    ages, sizes = np.maximum(now - seconds[fresh], 0), counts[fresh]  # our clock is behind by a message's way
    return {
        "staleness/mean_seconds": float(np.average(ages, weights=sizes)),
        "staleness/max_seconds": float(ages.max()),
        "staleness/mean_versions": float(np.average(newest.version - versions[fresh], weights=sizes)),
    }
