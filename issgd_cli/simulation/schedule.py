"""Which version's norms the master's table would hold on some cluster: a schedule, simulated without computing.

The real master and workers run on the virtual clock; what they are given counts steps instead of training, and pushes
ones instead of norms. Parameters travel at the real network's size. When each chunk is scored depends on no value.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.actors.actor import Operation, Task
from issgd_cli.actors.learner import Pass
from issgd_cli.actors.master import Master
from issgd_cli.actors.worker import Scorer, Worker
from issgd_cli.config.config import Config
from issgd_cli.config.sections import Clock
from issgd_cli.database import SPLITS, Chunk, ChunkScores, Layout, Published, Weights
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.losses.squared import squared
from issgd_cli.methods.method import Drawn, Gradient, Method, Needs, Refreshed, Seen
from issgd_cli.methods.sgd import SGD
from issgd_cli.methods.table import Table
from issgd_cli.problem import Problem
from issgd_cli.simulation.clock import Durations, deaths, durations
from issgd_cli.simulation.virtual import VirtualTime


@dataclass(frozen=True)
class Schedule:
    """What the master's table holds, of the training split.

    Attributes:
        workers, publish_every_steps: Of the cluster.
        steps: The audited ones, shape (A,).
        scored_at: At which step the parameters stood that each chunk's norms are of; -1: never, shape (A, chunks).
        previous_at: Likewise of its previous norms.
    """

    workers: int
    publish_every_steps: int
    steps: tuple[int, ...]
    scored_at: NDArray[np.int64]
    previous_at: NDArray[np.int64]

    def since(self, step: int) -> "Schedule":
        """The same, without the audits before a step."""
        kept = np.array(self.steps) >= step
        steps = tuple(np.array(self.steps)[kept].tolist())
        return replace(self, steps=steps, scored_at=self.scored_at[kept], previous_at=self.previous_at[kept])


class _Notebook(MemoryDatabase):
    """Remembers at which step each version was published."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.step_of = {0: -1}  # never scored

    def publish(self, published: Published, parameters: NDArray[np.float32]) -> None:
        self.step_of[published.version] = published.step
        super().publish(published, parameters)


class _Counting:
    """Stands in for a learner: counts its steps instead of taking them."""

    def __init__(self) -> None:
        self.step, self.passes, self.parameters, self.loss = 0, 0.0, torch.zeros(1), torch.zeros(1)

    def forward(self, inputs: None, targets: None, needs: Needs) -> Pass:
        return Pass(self.loss, Seen(self.loss, self.loss, self.loss, squared))

    def backward(self, forward: Pass, coefficients: Tensor) -> tuple[Gradient, None]:
        return (), None

    def descend(self, gradient: Gradient, rate: float = 1.0) -> None:
        self.step += 1

    def trouble(self, losses: Tensor | None = None) -> None:
        return None


@dataclass(frozen=True)
class _Seen(Refreshed):
    """With the records that it would be made of."""

    records: Weights


class _Looking(SGD):
    """Draws nothing; remembers what it would draw from."""

    def refreshed(self, table: Table) -> Refreshed:
        return _Seen(self.proposal, table.previous(), 0.0, {}, table.workers)

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        return Drawn(torch.zeros(1, dtype=torch.int64), torch.ones(1))


class _Blank:
    """Stands in for examples: none, whichever are asked for."""

    def __getitem__(self, which: Tensor) -> tuple[None, None]:
        return None, None


class _Noting:
    """Stands in for what a master saves: notes the records in use at every audit, and writes nothing.

    Attributes:
        found: Step -> records.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps
        self.found: dict[int, Weights] = {}

    def audit_if_due(self, learner: _Counting, method: Method, passes: float) -> None:
        # The last step's audit may be at none that the trajectory has norms of.
        if learner.step % self.every_steps == 0 and isinstance(method.in_use, _Seen):
            self.found[learner.step] = method.in_use.records

    def may_checkpoint(self, version: int) -> Iterator[Task[Any]]:
        return iter(())


class _Ones:
    """Stands in for a scorer: scores in no time of ours."""

    def __init__(self, problem: Problem, layout: Layout) -> None:
        self.problem, self.layout, self.parameters = problem, layout, torch.zeros(1)

    def load(self, version: int, parameters: NDArray[np.float32]) -> None:
        pass

    def passes(self, chunk: Chunk) -> float:
        return 0.0

    def score(self, chunk: Chunk, version: int) -> ChunkScores:
        span = self.layout.span(chunk.split, chunk.number)
        ones = np.ones(span.stop - span.start, np.float32)
        return ChunkScores(ones, ones, ones.astype(np.uint8), None)


def schedule(config: Config, problem: Problem, layout: Layout, clock: Clock) -> Schedule:
    """Simulates a cluster's traffic for as long as the master takes its steps.

    Args:
        config: Relaxed; its worker.count, publish_every_steps, steps and audit_every_steps matter.
        problem: What would be learned: parameters travel at its network's size.
        layout: Of its examples.
        clock: A resolved one.
    """
    time = VirtualTime(config, _durations(clock, problem.size), deaths=deaths(clock))
    database = time.database = _Notebook(lambda: time.now)
    database.begin(layout, 0.0, {split: layout.empty(split) for split in SPLITS})
    learner, method = _Counting(), _Looking(config, layout.train, torch.device("cpu"))
    noting, scorer = _Noting(config.monitor.audit_every_steps or 1), _Ones(problem, layout)
    stand_ins: tuple[Any, ...] = learner, method, _Blank(), database, noting
    time.add("master", Master(config, *stand_ins))
    for index in range(config.worker.count):
        time.add(f"worker-{index}", Worker(config, database, cast(Scorer, scorer)))
    while learner.step != config.master.steps:
        time.turn()
    found = noting.found
    step_of = np.vectorize(database.step_of.__getitem__, otypes=[np.int64])
    return Schedule(
        config.worker.count,
        config.master.publish_every_steps,
        tuple(found),
        np.stack([step_of(records.versions) for records in found.values()]),
        np.stack([step_of(records.previous_versions) for records in found.values()]),
    )


def _durations(clock: Clock, parameters: int) -> Durations:
    """The clock's, for as many parameters as the real model has."""
    real, content = durations(clock), 4 * parameters

    def seconds(actor: str, operation: Operation) -> float:
        travels = operation.name in ("publish", "pull")
        return real(actor, operation._replace(bytes=content) if travels else operation)

    return seconds
