"""What several tests share: a tiny prepared dataset, configurations for it, and a stage on which actors play."""

import fcntl
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli.actors.actor import Actor, Operation, Task
from issgd_cli.actors.master import Master
from issgd_cli.config.config import Config
from issgd_cli.config.layers import assignments, merged
from issgd_cli.config.validation import resolve
from issgd_cli.database import SPLITS, Layout
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets import prepared, writing
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.datasets.sources import Block, Dataset, Part
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder

CLASSES = 3
SHAPE = (1, 4, 4)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of `pytest -n auto`: twice as many as cores, since a test with processes of its own waits for them."""
    return min(2 * (os.cpu_count() or 1), 16)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the real command line are slow; the slowest begin first, so that none is left alone at the end."""

    def rank(item: pytest.Item) -> tuple[bool, bool]:
        return "end_to_end" not in item.path.parts, item.get_closest_marker("slow") is None

    for item in items:
        if "end_to_end" in item.path.parts:
            item.add_marker("slow")
    items.sort(key=rank)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """As in a terminal: what a script starts in the background inherits that Ctrl-C is ignored, and hands it on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """One whose path leaves room for a socket's name in a socket's address, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="issgd-test-", dir="/tmp") as place:
        yield Path(place)


Shared = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """A folder by its name, filled by the first who asks for it: pytest's parallel processes share it. Read only."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def of(name: str, fill: Callable[[Path], object]) -> Path:
        place = root / name
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                unfinished = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
                fill(unfinished)
                unfinished.rename(place)
        return place

    return of


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """95 train, 5 valid and 23 test images of 16 pixels: three noisy patterns, so that something can be learned."""
    random = np.random.default_rng(5)
    patterns = random.integers(60, 190, (CLASSES, 16))

    def part(count: int) -> Part:
        labels = random.integers(0, CLASSES, count, dtype=np.uint8)
        images = (patterns[labels] + random.normal(0, 30, (count, 16))).clip(0, 255).astype(np.uint8)
        blocks: list[Block] = [(images, labels)]
        return Part(count, blocks)

    directory = tmp_path_factory.mktemp("data") / "patterns"
    writing.write(directory, "patterns", Dataset(SHAPE, CLASSES, part(100), part(23), list), {})
    return prepared.load(directory)


@pytest.fixture(scope="session")
def configured() -> Callable[..., Config]:
    """A configuration for the tiny dataset, with `section.key=value` strings on top."""

    def of(*settings: str) -> Config:
        base = assignments(
            [
                "model.hidden=[7, 6]",
                "model.initial_weight_std=0.5",
                "optimizer.learning_rate=0.05",
                "proposal.smoothing=0.5",
                "master.mode=exact",
                "master.minibatch_size=8",
                "master.steps=9",
                "master.publish_every_steps=3",
                "worker.count=2",
                "worker.chunk_size=10",
                "worker.gradient_every_chunks=4",
            ]
        )
        return resolve(merged(base, assignments(settings)), "test")

    return of


@pytest.fixture
def clock() -> list[float]:
    """The time, to be set; the stage moves it on a little with every operation."""
    return [100.0]


@pytest.fixture
def begun(data: Prepared, clock: list[float]) -> Callable[[Config], MemoryDatabase]:
    """A database in memory, in which the run of this configuration has just begun."""

    def of(config: Config) -> MemoryDatabase:
        database = MemoryDatabase(lambda: clock[0])
        train, valid, test = (len(data.splits[split]) for split in SPLITS)
        layout = Layout(train, valid, test, config.worker.chunk_size)
        database.begin(layout, 0.0, {split: layout.empty(split) for split in SPLITS})
        return database

    return of


@pytest.fixture
def new_folder(tmp_path: Path) -> Callable[[str], RunFolder]:
    """An empty run folder of this name."""

    def of(name: str) -> RunFolder:
        folder = RunFolder(tmp_path / name / "seed-000")
        for place in (folder.logs, folder.checkpoint.parent, folder.audits):
            place.mkdir(parents=True)
        return folder

    return of


@pytest.fixture
def hired(
    data: Prepared, begun: Callable[[Config], MemoryDatabase], new_folder: Callable[[str], RunFolder]
) -> Callable[[Config], Master]:
    """A master at step 0 with a database and a folder of its own."""

    def of(config: Config) -> Master:
        return Master.of(config, Problem(config, data), begun(config), new_folder("run"), torch.device("cpu"))

    return of


Play = Callable[..., list[tuple[Actor, Operation]]]


@pytest.fixture
def play(clock: list[float]) -> Play:
    """Plays actors in turn, one operation each, until all have ended or `until` says so; what they announced."""

    def of(
        *actors: Actor, until: Callable[[Actor, Operation], bool] = lambda actor, operation: False, limit: int = 50_000
    ) -> list[tuple[Actor, Operation]]:
        def next_of(life: Iterator[Operation | Task[Any]]) -> Operation | Task[Any] | None:
            return next(life, None)

        lives: list[tuple[Actor, Callable[[], Operation | Task[Any] | None]]] = []
        lives += [(actor, partial(next_of, actor.run())) for actor in actors]
        announced: list[tuple[Actor, Operation]] = []
        while lives:
            for actor, following in list(lives):
                operation = following()
                clock[0] += 0.001
                while isinstance(operation, Task):
                    lives.append((actor, operation.advance))
                    operation = following()
                if operation is None:
                    lives.remove((actor, following))
                    continue
                announced.append((actor, operation))
                if until(actor, operation):
                    return announced
            assert len(announced) < limit, f"the actors do not end; the last operations: {announced[-5:]}"
        return announced

    return of
