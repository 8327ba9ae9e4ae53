"""A worker: keeps the table of gradient norms fresh (section 4.2). It spends its life pulling, scoring, pushing."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from issgd_cli.actors.actor import Operation
from issgd_cli.actors.saving import remedy
from issgd_cli.config.config import Config
from issgd_cli.database import SPLITS, Chunk, ChunkScores, Database, Layout, Split
from issgd_cli.database.records import NO_ERROR
from issgd_cli.errors import DatabaseError, RecordError, RunError
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.reduced import Reduced
from issgd_cli.problem import Problem
from issgd_cli.registries import METHODS
from issgd_cli.scores import cost, score
from issgd_cli.scores.first_look import plan_of

POLL_SECONDS = 0.01
FIRST_LEASE_SECONDS = 15.0  # how long a chunk is ours before we know how long one takes us
LEAST_LEASE_SECONDS = 2.0
# What torch's RuntimeErrors say when memory has run out: on the CPU; in cuBLAS, which has no error of its own for it.
OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Scorer:
    """What a worker scores with: a model that takes any version's parameters. Workers of one process can share one."""

    def __init__(self, config: Config, problem: Problem, layout: Layout, device: torch.device) -> None:
        """A scorer without parameters."""
        self.layout, self.gradient_every_chunks = layout, config.worker.gradient_every_chunks
        self.problem = problem
        self.examples = {split: problem.examples(split, device) for split in SPLITS}
        self.model = problem.network(device)
        self.parameters = flatten_parameters(self.model)
        self.reduced = Reduced(self.model) if config.worker.precision == "bfloat16" else None
        self.version = 0
        # Of an example, in passes; nothing where the method draws without scores, and its workers only measure.
        self.cost = self._cost() if METHODS.parts[config.proposal.method].by_scores else 0.0

    def load(self, version: int, parameters: NDArray[np.float32]) -> None:
        """Takes a version's parameters, flat, shape (P,), unless it has them."""
        if version != self.version:
            self.parameters.copy_(torch.from_numpy(parameters))
            self.version = version
            if self.reduced is not None:
                self.reduced.load(self.model)

    def score(self, chunk: Chunk, version: int) -> ChunkScores:
        """Losses, errors and gradient norms of a chunk at the loaded parameters, which are this version's."""
        inputs, labels = self.examples[chunk.split][self.layout.span(chunk.split, chunk.number)]
        with_gradient = chunk.split == "train" and self._gives_gradient(chunk.number, version)
        # ||g_B||^2 is for the trace, not for a proposal: never in reduced precision.
        model = self.model if with_gradient else self.reduced or self.model
        scores = score(self.problem.loss, model, inputs, labels, with_gradient)
        norm2 = None
        if (gradient := scores.gradient) is not None:
            norm2 = float(gradient.square().sum(dtype=torch.float64)) / len(labels) ** 2
        if scores.errors is None:
            errors = np.full(len(labels), NO_ERROR, np.uint8)
        else:
            errors = scores.errors.cpu().numpy().astype(np.uint8)
        return ChunkScores(scores.norms.cpu().numpy(), scores.losses.cpu().numpy(), errors, norm2)

    def passes(self, chunk: Chunk) -> float:
        """What it took to score a chunk (scores/cost.py); scores of other splits are for the trace."""
        if chunk.split != "train":
            return 0.0
        span = self.layout.span("train", chunk.number)
        return self.cost * int(span.stop - span.start)

    def _cost(self) -> float:
        """Counted before there is anything to score: a short run has no time for it."""
        inputs, labels = self.examples["train"][self.layout.span("train", 0)]
        plan = plan_of(self.problem.loss, self.model, inputs, labels)
        return 2 + cost.norms(self.problem.loss, self.model, inputs, labels, plan)

    def _gives_gradient(self, chunk: int, version: int) -> bool:
        """One chunk in twenty, another at each version, also gives ||g_B||^2; of fewer chunks, one at each version."""
        every = min(self.gradient_every_chunks, self.layout.chunks("train"))
        return chunk % every == version % every


class Worker:
    """See the module. It owns nothing: whatever it leaves unfinished is offered to others.

    Attributes:
        version, parameters: What it scores with, flat, shape (P,); version 0: nothing yet.
        turn: How many chunks it has asked for; whose split comes next follows from it.
        left: How many more it asks for before it looks for newer parameters.
        chunk, started, is_scored: The chunk that it is at, since when, and whether only the push is left.
    """

    def __init__(self, config: Config, database: Database, scorer: Scorer) -> None:
        """A worker without parameters."""
        self.config, self.database, self.scorer = config, database, scorer
        self.layout = database.layout()
        self.version = 0
        self.parameters: NDArray[np.float32] | None = None
        self.turn = self.left = 0
        self.chunk: Chunk | None = None
        self.started, self.is_scored = 0.0, False
        self.lease = FIRST_LEASE_SECONDS
        self.passes = 0.0  # in this life
        self.notices: list[str] = []

    @classmethod
    def of(cls, config: Config, problem: Problem, database: Database, device: torch.device) -> "Worker":
        """The worker of a run, with a scorer of its own on this device."""
        return cls(config, database, Scorer(config, problem, database.layout(), device))

    def run(self) -> Generator[Operation]:
        """Pull the newest parameters, score some chunks, for ever (figure 1, right)."""
        turns = turns_of_splits(self.config.worker.shares)
        if self.chunk is not None:  # one that `restore` has brought
            yield from self._score(self.chunk)
        while self.left > 0 or not self._is_over():
            if self.left == 0:
                yield from self._pull()
                self.left = self.config.worker.pull_every_chunks
            chunk = self.database.claim(self.version, turns[self.turn % len(turns)], self.lease)
            self.turn += 1
            if chunk is None:  # all is scored at this version, or there is none yet
                self.left = 0
                yield Operation("wait", self.version, seconds=POLL_SECONDS)
            else:
                self.left -= 1
                self.chunk, self.started = chunk, self.database.seconds()
                yield from self._score(chunk)

    def _is_over(self) -> bool:
        return self.database.get("finished") is not None or self.database.get("stop") is not None

    def _pull(self) -> Generator[Operation]:
        newest = self.database.newest()
        if newest is None or newest.version == self.version:
            return
        yield Operation("pull", newest.version, bytes=4 * self.scorer.parameters.numel())
        if found := self.database.parameters():
            published, self.parameters = found
            if len(self.parameters) != self.scorer.parameters.numel():
                raise DatabaseError(
                    f"Version {published.version} in the database has {len(self.parameters):,} parameters, the run's "
                    f"model has {self.scorer.parameters.numel():,}. Who else writes there?"
                )
            self.version = published.version
            self.scorer.load(self.version, self.parameters)

    def _score(self, chunk: Chunk) -> Generator[Operation]:
        if not self.is_scored:
            span = self.layout.span(chunk.split, chunk.number)
            yield Operation("score", self.version, examples=span.stop - span.start)
        scores = self.score(chunk)
        self.passes += 0.0 if self.is_scored else self.scorer.passes(chunk)
        self.is_scored = True
        yield Operation("push", self.version, bytes=sum(array.nbytes for array in scores[:3]))
        self.chunk, self.is_scored = None, False
        self.scorer.problem.data.refuse_changed()  # else the scores may be of other examples than the master's
        try:
            self.database.push(chunk, self.version, scores)
        except RecordError as error:
            # Behind a barrier the chunk would be waited for in vain; else it is offered again, at a newer version.
            if self.config.master.mode == "exact":
                raise RecordError(
                    f"{error} The training may have diverged by version {self.version} of the parameters. "
                    f"{remedy(self.config)}"
                ) from None
            self.notices = [str(error)]
        self.lease = max(LEAST_LEASE_SECONDS, 4 * (self.database.seconds() - self.started))

    def score(self, chunk: Chunk) -> ChunkScores:
        """Losses, errors and gradient norms of a chunk at this worker's parameters."""
        span = self.layout.span(chunk.split, chunk.number)
        with _scoring(span.stop - span.start):
            if self.parameters is not None:
                self.scorer.load(self.version, self.parameters)  # if another worker has loaded its own meanwhile
            return self.scorer.score(chunk, self.version)

    def state(self) -> dict[str, Any]:
        """Where it is between two operations: numbers and words, but for the parameters, which their version names."""
        place = {"version": self.version, "turn": self.turn, "left": self.left, "lease": self.lease}
        at = self.chunk or Chunk("train", -1)
        return {**place, "split": at.split, "chunk": at.number, "started": self.started, "is_scored": self.is_scored}

    def restore(self, state: Mapping[str, Any], parameters: NDArray[np.float32] | None) -> None:
        """Goes on from `state()`, with the parameters of its version; a chunk that was scored is scored again."""
        self.version, self.parameters = int(state["version"]), parameters
        self.turn, self.left, self.lease = int(state["turn"]), int(state["left"]), float(state["lease"])
        split = next(name for name in SPLITS if name == str(state["split"]))
        self.chunk = Chunk(split, int(state["chunk"])) if state["chunk"] >= 0 else None
        self.started, self.is_scored = float(state["started"]), bool(state["is_scored"])

    def stop(self) -> None:
        """Nothing to save."""

    def status(self) -> dict[str, Any]:
        """The version it works at, its passes, and what was wrong with the last scores that were refused."""
        return {"version": self.version, "passes": self.passes, "notices": self.notices}


@contextmanager
def _scoring(examples: int) -> Iterator[None]:
    """Within, a lack of memory for so many examples is an error that says what to do.

    Raises:
        RunError: Memory has run out, the device's or the machine's.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not known and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RunError(
            f"Memory ran out while scoring a chunk of {examples:,} examples ({reason}). Lower `worker.count`, or "
            "`worker.chunk_size` in a new run, or close other programs."
        ) from None


def turns_of_splits(shares: tuple[int, int, int]) -> list[Split]:
    """Whose turn it is in one round, the rarer splits spread evenly among the others.

    Args:
        shares: train : valid : test, for instance (20, 1, 1).
    """
    places = [
        ((number + 0.5) / share, split) for split, share in zip(SPLITS, shares, strict=True) for number in range(share)
    ]
    return [split for _, split in sorted(places)]
