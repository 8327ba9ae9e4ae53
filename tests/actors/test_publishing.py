"""Publishing: what goes out is as of the step it names, and the barrier of exact mode."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from issgd_cli.actors.actor import Operation, Task
from issgd_cli.config.config import Config
from issgd_cli.database import Chunk, ChunkScores, Published
from tests.masters import Hired, relaxed, score_everything

Configured = Callable[..., Config]


def test_what_is_published_is_as_of_the_step_it_names_though_training_goes_on(
    hired: Hired, configured: Configured
) -> None:
    master = hired(relaxed(configured, "master.steps=12", "master.publish_every_steps=2"))
    at_step_2 = None
    for operation in master.run():
        if isinstance(operation, Task):
            at_step_2 = master.learner.parameters.clone()
            task = operation
        if master.learner.step == 5:
            break
    assert at_step_2 is not None
    while task.advance() is not None:
        pass
    found = master.database.parameters()
    assert found is not None
    assert found[0] == Published(2, 2)
    np.testing.assert_array_equal(found[1], at_step_2.numpy())
    assert not torch.equal(at_step_2, master.learner.parameters)


def test_an_exact_master_waits_until_every_record_has_its_version_and_the_monitor_has_sampled(
    hired: Hired, configured: Configured
) -> None:
    master = hired(configured())
    database: Any = master.database
    life = (operation for operation in master.run() if isinstance(operation, Operation))
    assert next(life).name == "publish"
    assert next(life).name == "wait"
    score_everything(database, 1)
    assert next(life).name == "wait"  # valid and test are behind
    for split in ("valid", "test"):
        for number in range(database.layout().chunks(split)):
            span = database.layout().span(split, number)
            ones = np.ones(span.stop - span.start, np.float32)
            database.push(Chunk(split, number), 1, ChunkScores(ones, ones, ones.astype(np.uint8), None))
    assert next(life).name == "wait"  # the monitor has not sampled
    database.put("acknowledged", {"version": 1})
    assert next(life).name == "refresh"
    assert next(life).name == "train"
