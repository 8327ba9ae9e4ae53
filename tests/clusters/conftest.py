"""What the tests of the clusters share."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from issgd_cli.clusters.service import Service
from issgd_cli.config.config import Config
from issgd_cli.database import SPLITS, Layout
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import DatabaseError
from issgd_cli.problem import Problem
from issgd_cli.runs.checkpoints import Checkpoint


class OwnedMemory(MemoryDatabase):
    """A database in memory as if it were a server's.

    Attributes:
        now: Of its clock, a list of one.
        error: What it answers; None: as it should.
        moved: By how much its clock is found moved at the next reading, seconds.
        grumbles: What it complains of.
    """

    def __init__(self, now: list[float]) -> None:
        super().__init__(lambda: now[0])
        self.now = now
        self.error: DatabaseError | None = None
        self.moved = 0.0
        self.grumbles: list[str] = []

    def synchronise(self) -> float:
        if self.error is not None:
            raise self.error
        moved, self.moved = self.moved, 0.0
        return moved

    def advance(self, seconds: float) -> None:
        self._start -= seconds

    def complaints(self) -> list[str]:
        return self.grumbles


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The machine's clock, seconds; it goes on only by what somebody sleeps."""
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    return now


@pytest.fixture
def database(now: list[float], configured: Callable[..., Config], data: Prepared) -> OwnedMemory:
    """In which a run of the tiny dataset has just begun."""
    database = OwnedMemory(now)
    layout = Layout(**data.sizes, chunk_size=configured().worker.chunk_size)
    database.begin(layout, 0.0, {split: layout.empty(split) for split in SPLITS})
    return database


@pytest.fixture
def service(database: OwnedMemory) -> Service:
    """Whose server somebody else looks after."""
    return Service("run/a/seed-000-0", "redis://somewhere", database)


@pytest.fixture
def checkpoint_of(data: Prepared) -> Callable[[Config, int], Checkpoint]:
    """A checkpoint of this configuration's run at this step, a tenth of as many seconds after its start."""

    def of(config: Config, step: int) -> Checkpoint:
        layout = Layout(**data.sizes, chunk_size=config.worker.chunk_size)
        flat = np.zeros(Problem(config, data).size, np.float32)
        records = {split: layout.empty(split) for split in SPLITS}
        return Checkpoint(
            step, step + 1, step / 10, flat, {"momentum": flat}, {}, {"work/examples_trained": 8.0 * step}, records
        )

    return of
