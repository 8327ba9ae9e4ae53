"""What tests and benchmarks do with a master by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from issgd_cli.actors.master import Master, take_step
from issgd_cli.config.config import Config
from issgd_cli.database import Chunk, ChunkScores, Database, Published
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.methods.issgd import ISSGD
from issgd_cli.methods.method import Refreshed
from issgd_cli.methods.table import OwnNorms

Hired = Callable[[Config], Master]


def relaxed(configured: Callable[..., Config], *settings: str) -> Config:
    """The tiny configuration of a master that waits for nobody."""
    return configured("master.mode=relaxed", *settings)


def refresh(master: Master) -> None:
    """Reads the table for the steps to come, as of the last publication."""
    master.method.adopt(master.refreshed(Published(master.publishing.version - 1, master.learner.step)))


def train(master: Master) -> torch.Tensor:
    """Takes a step; its weighted loss."""
    return take_step(master.learner, master.method, master.examples, master.config.master.minibatch_size)


# What workers put into its table


def score_chunk(database: Database, number: int, version: int, norms: Any) -> None:
    """Stands in for a worker: this chunk's norms at a version."""
    span = database.layout().span("train", number)
    values = np.broadcast_to(np.asarray(norms, np.float32), (span.stop - span.start,)).copy()
    errors = np.zeros(len(values), np.uint8)
    database.push(Chunk("train", number), version, ChunkScores(values, values, errors, None))


def score_everything(database: Database, version: int, seed: int = 0) -> None:
    """All chunks of the training examples, with random norms."""
    random = np.random.default_rng([seed, version])
    for number in range(database.layout().chunks("train")):
        size = database.layout().sizes("train")[number]
        score_chunk(database, number, version, random.exponential(1.0, size))


def poison(database: Database) -> None:
    """Puts into the table what its door refuses."""
    assert isinstance(database, MemoryDatabase)
    score_chunk(database, 3, 1, 1.0)
    database._records["train"].norms[30] = np.nan


# What is seen of it


def report(master: Master) -> dict[str, float]:
    """What it last told of its proposal."""
    return dict((master.database.get("proposal") or {})["values"])


def in_use(master: Master) -> Refreshed:
    """What it draws from."""
    assert master.method.in_use is not None
    return master.method.in_use


def own_norms(master: Master) -> OwnNorms:
    """Its own minibatches' norms."""
    assert isinstance(master.method, ISSGD)
    assert master.method.own is not None
    return master.method.own
