"""The master's table: what is known of each training example's gradient norm at one moment, and how old that is.

Workers' records fill it; the norms of the master's own minibatches may stand above them.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from issgd_cli.config.sections import ProposalSection
from issgd_cli.database import Layout, Published, Weights
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.methods.drift import UNIFORM, Drift, with_uniform
from issgd_cli.methods.proposal import usable_norms
from issgd_cli.randomness import generator

Float32s = NDArray[np.float32]


def fields_read(settings: ProposalSection, reads_pairs: bool) -> tuple[str, ...]:
    """Which of the records' arrays a proposal is made of: norms and versions, and what some ask for besides.

    Args:
        settings: Of the proposal.
        reads_pairs: Whether its method looks at norms of two versions.
    """
    pairs = ("previous_norms", "previous_versions") if reads_pairs else ()
    return ("norms", "versions", *pairs, *(("seconds",) if settings.staleness_limit_seconds is not None else ()))


class Pairs(NamedTuple):
    """Norms of the same examples at two versions, shapes (K,), and how many versions lie between them."""

    old: Float64s
    new: Float64s
    ages: Float64s

    @classmethod
    def none(cls) -> "Pairs":
        """Of no example."""
        return cls(*np.zeros((3, 0)))


@dataclass(frozen=True)
class Table:
    """See the module.

    Attributes:
        norms: ||g(x_n)||, shape (N,); 0 where never scored.
        versions: Of the parameters that they are of, 0: never scored, shape (S,): one for each stretch of examples.
        seconds: When they were scored, by the run's clock, shape (S,).
        counts: How many examples each stretch has, shape (S,): a chunk's, or 1.
        newest: The newest parameters.
        now: Seconds, by the run's clock.
        workers: The records that it is made of.
        layout: Of these.
    """

    norms: Float32s
    versions: NDArray[np.int32]
    seconds: Float64s
    counts: NDArray[np.int64]
    newest: Published
    now: float
    workers: Weights
    layout: Layout

    @classmethod
    def of(cls, workers: Weights, layout: Layout, newest: Published, now: float) -> "Table":
        """The workers' records alone: a stretch is a chunk."""
        sizes = layout.sizes("train")
        return cls(workers.norms, workers.versions, workers.seconds, sizes, newest, now, workers, layout)

    def fresh(self, settings: ProposalSection) -> NDArray[np.bool_]:
        """Which stretches are scored, and within the staleness limits (appendix B.1), shape (S,)."""
        return self._fresh(self.versions, self.seconds, settings)

    def _fresh(self, versions: NDArray[np.int32], seconds: Float64s, settings: ProposalSection) -> NDArray[np.bool_]:
        fresh = versions > 0
        if settings.staleness_limit_seconds is not None:
            fresh &= self.now - seconds <= settings.staleness_limit_seconds
        if settings.staleness_limit_versions is not None:
            fresh &= self.newest.version - versions <= settings.staleness_limit_versions
        return fresh

    def spread(self, of_stretches: NDArray[Any]) -> NDArray[Any]:
        """A value of each stretch as one of each of its examples, shape (N,)."""
        return np.repeat(of_stretches, self.counts)

    def pairs(self, settings: ProposalSection) -> Pairs:
        """Of the examples that workers have scored at two versions."""
        records = self.workers
        fresh = self._fresh(records.versions, records.seconds, settings)
        both = self.layout.spread("train", fresh & (records.previous_versions > 0)).astype(bool)
        ages = self.layout.spread("train", (records.versions - records.previous_versions).astype(np.float64))
        return Pairs(usable_norms(records.previous_norms, both), usable_norms(records.norms, both), ages[both])

    def expected(self, norms: Float32s, usable: NDArray[np.bool_], pairs: Pairs) -> Float32s:
        """What to draw by in the place of norms, shape (N,): the root of the square that is to be expected of them now.

        From pairs of all that workers have scored twice (drift.py), and with UNIFORM of uniform draws; all alike where
        there are none.

        The old of the pairs are told in the mean of theirs, norms in the mean of theirs: where all shrink or grow from
        sweep to sweep, how large one is among its like says what becomes of it. In the old ones' unit it would be
        looked up where the law is of others. (In which unit the new ones are is but a factor of all weights.)

        Args:
            norms: Shape (N,).
            usable: Which of them may be looked at, shape (N,); at least one.
            pairs: What has become of norms.
        """
        drift, kept = Drift.none(), usable_norms(norms, usable)
        unit = float(pairs.old.mean()) if len(pairs.old) else 0.0
        if unit > 0:
            drift.add(pairs.old / unit, pairs.ages, pairs.new / unit)
        ages = self.newest.version - self.spread(self.versions)[usable] + 1  # at the next look
        weights = np.zeros(len(norms), np.float32)
        weights[usable] = with_uniform(drift.weights(kept / (kept.mean() or 1.0), ages), UNIFORM)
        return weights

    def shuffled(self, usable: NDArray[np.bool_], seed: int) -> Float32s:
        """The usable norms dealt out anew among their examples: weights that say nothing (section 4.2)."""
        places = np.flatnonzero(usable)
        shuffled = self.norms.copy()
        random = generator(seed, "shuffled_weights", self.newest.step)
        shuffled[places] = self.norms[random.permutation(places)]
        return shuffled

    def previous(self) -> Float32s:
        """The workers' norms before their newest, NaN for examples not scored at two versions, shape (N,)."""
        scored_twice = self.layout.spread("train", self.workers.previous_versions > 0)
        return np.where(scored_twice, self.workers.previous_norms, np.float32("nan"))

    def ages(self, fresh: NDArray[np.bool_]) -> dict[str, float]:
        """How old the fresh norms are, as means over examples; nothing where none is fresh."""
        if not fresh.any():
            return {}
        ages, sizes = np.maximum(self.now - self.seconds[fresh], 0), self.counts[fresh]  # our clock may be behind
        return {
            "staleness/mean_seconds": float(np.average(ages, weights=sizes)),
            "staleness/max_seconds": float(ages.max()),
            "staleness/mean_versions": float(np.average(self.newest.version - self.versions[fresh], weights=sizes)),
        }


@dataclass
class OwnNorms:
    """Norms that the master's own minibatches gave, free of charge: a private overlay on the database's table.

    They are of parameters younger than the version that was published before their minibatch, and older than the next,
    so they stand above a chunk's norms of that version, and under those of the next.

    Attributes:
        norms, versions, seconds: What is known of each example, of which version, since when, shape (N,).
        pending: Indices and norms of the minibatches since the last publication, on the master's device.
        since: When that was, seconds.
    """

    norms: Float32s
    versions: NDArray[np.int32]
    seconds: Float64s
    pending: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    since: float = 0.0

    @classmethod
    def none(cls, examples: int) -> "OwnNorms":
        """Of N examples."""
        return cls(np.zeros(examples, np.float32), np.zeros(examples, np.int32), np.zeros(examples))

    def settle(self, version: int, seconds: float) -> None:
        """Takes in the minibatches since the last publication, of this version; the next begin now."""
        for indices, norms in self.pending:
            drawn = indices.cpu().numpy()
            self.norms[drawn], self.versions[drawn], self.seconds[drawn] = norms.cpu().numpy(), version, self.since
        self.pending, self.since = [], seconds

    def over(self, table: Table) -> Table:
        """The newer of these and the table's, example by example."""
        versions = table.spread(table.versions)
        own = (self.versions >= versions) & (self.versions > 0)
        return Table(
            np.where(own, self.norms, table.norms),
            np.where(own, self.versions, versions),
            np.where(own, self.seconds, table.spread(table.seconds)),
            np.ones(len(versions), np.int64),
            table.newest,
            table.now,
            table.workers,
            table.layout,
        )
