"""Which version's norms the master's table would hold on some cluster: a schedule, simulated without computing.

The real Master and Worker run on the virtual clock; this master counts its steps instead of training, these workers
push ones instead of norms; parameters travel at the real model's size. When each chunk is scored depends on no value.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from issgd_cli.actors.actor import Operation
from issgd_cli.actors.exchange import Refreshed
from issgd_cli.actors.master import Master
from issgd_cli.actors.worker import Scorer, Worker
from issgd_cli.config.config import Config
from issgd_cli.config.layers import merged
from issgd_cli.config.sections import Clock
from issgd_cli.config.validation import resolve
from issgd_cli.database import SPLITS, Chunk, ChunkScores, Layout, Published, Weights
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets.prepared import Prepared, Split
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
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
    """Remembers at which step each version was published, and the table that was read last."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.step_of = {0: -1}  # never scored
        self.table: Weights | None = None

    def publish(self, published: Published, parameters: NDArray[np.float32]) -> None:
        self.step_of[published.version] = published.step
        super().publish(published, parameters)

    def weights(self, previous: bool) -> Weights:
        self.table = super().weights(previous)
        return self.table


class _Counting(Master):
    """Draws and trains nothing; writes down its table at every audit instead of saving parameters."""

    def __init__(self, *arguments: Any) -> None:
        self.found: list[tuple[int, Weights]] = []
        self.table: Weights | None = None
        super().__init__(*arguments)

    def train(self) -> torch.Tensor:
        self.step += 1
        return torch.zeros(())

    def checkpoint(self, now: float) -> None:
        pass

    def _checkpoint_is_due(self) -> bool:
        return False

    def _adopt(self, refreshed: Refreshed | None) -> None:
        super()._adopt(refreshed)
        if isinstance(self.database, _Notebook):
            self.table = self.database.table

    def _save_audit(self) -> None:
        # The last step's audit may be at none that the trajectory has norms of.
        if self.table is not None and self.step % (self.config.monitor.audit_every_steps or 1) == 0:
            self.found.append((self.step, self.table))


class _Idle(Worker):
    """Scores in no time of ours."""

    def score(self, chunk: Chunk) -> ChunkScores:
        span = self.layout.span(chunk.split, chunk.number)
        ones = np.ones(span.stop - span.start, np.float32)
        return ChunkScores(ones, ones, ones.astype(np.uint8), None)


def _nothing(layout: Layout) -> Prepared:
    """As many examples as the real dataset has, of one pixel each."""
    splits = {
        name: Split(np.zeros((count, 1), np.uint8), np.zeros(count, np.int64))
        for name, count in (("train", layout.train), ("valid", layout.valid), ("test", layout.test))
    }
    one = np.ones(1, np.float32)
    return Prepared("nothing", splits, one, one, 2, "", (1,))  # type: ignore[arg-type]


def schedule(config: Config, layout: Layout, parameters: int, clock: Clock) -> Schedule:
    """Simulates a cluster's traffic for as long as the master takes its steps.

    Args:
        config: Relaxed; its worker.count, publish_every_steps, steps and audit_every_steps matter.
        layout: Of the real dataset.
        parameters: P of the real model.
        clock: A resolved one.
    """
    cpu = torch.device("cpu")
    small = resolve(
        merged(config.model_dump(exclude_none=True), {"model": {"hidden": [1]}, "proposal": {"method": "sgd"}}),
        "a replay",
    )
    problem = Problem(small, _nothing(layout))
    time = VirtualTime(small, _durations(clock, parameters), deaths=deaths(clock))
    database = time.database = _Notebook(lambda: time.now)
    database.begin(layout, 0.0, {split: layout.empty(split) for split in SPLITS})
    scorer = Scorer(small, problem, layout, cpu)
    with tempfile.TemporaryDirectory() as folder:
        master = _Counting(small, problem, database, RunFolder(Path(folder)), cpu)
        life = time.add("master", master)
        for index in range(config.worker.count):
            time.add(f"worker-{index}", _Idle(small, problem, database, cpu, scorer))
        while not life.over:
            time.turn()
    step_of = np.vectorize(database.step_of.__getitem__, otypes=[np.int64])
    return Schedule(
        config.worker.count,
        config.master.publish_every_steps,
        tuple(step for step, _ in master.found),
        np.stack([step_of(table.versions) for _, table in master.found]),
        np.stack([step_of(table.previous_versions) for _, table in master.found]),
    )


def _durations(clock: Clock, parameters: int) -> Durations:
    """The clock's, for as many parameters as the real model has."""
    real, content = durations(clock), 4 * parameters

    def seconds(actor: str, operation: Operation) -> float:
        travels = operation.name in ("publish", "pull")
        return real(actor, operation._replace(bytes=content) if travels else operation)

    return seconds
