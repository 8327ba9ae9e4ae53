"""The master's publication of its parameters, 76 MB at full size, to a real server while it trains."""

import io
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import redis
import torch

from issgd_cli.actors.actor import Operation, Task
from issgd_cli.actors.master import Master
from issgd_cli.database import Published
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.problem import Problem
from tests.benchmarks import stage
from tests.benchmarks.report import Row
from tests.benchmarks.scale import Scale
from tests.benchmarks.timing import Quartiles, interleaved, quiet

PATH, DELAY = "master: publishing", "master: the slowest step around a publication"
OURS, QUIET = "issgd, beside the training", "no publication"
SAME_THREAD, TORCH = "issgd, on the training thread", "torch.save + SET, on the training thread"
PER_PUBLICATION = 32
WATCHED = 8  # steps after a publication that are watched; it is over by then
UNUSUAL = 2  # blocks that don't count: the first publishes on the training thread, a checkpoint follows it
BARS = {PATH: 1.0, DELAY: 1.15}


def rows(scale: Scale) -> list[Row]:
    """What publishing adds to 32 steps, and by how much it delays the slowest of them."""
    layout = stage.layout(scale)
    with (
        stage.dataset(scale) as data,
        stage.run_folder() as folder,
        stage.real_database(layout) as (database, url, _),
    ):
        masters = {}
        for name, every in ((OURS, WATCHED), (QUIET, 10**6)):
            config = stage.config(scale, f"master.publish_every_steps={every}")
            master = Master.of(config, Problem(config, data), database, folder, stage.CPU)
            master.publishing.version = stage.NEXT_VERSION
            masters[name] = _steps(master)
        with quiet():
            blocks = [{name: _block(steps) for name, steps in masters.items()} for _ in range(UNUSUAL + scale.repeats)]
        seconds = {name: np.array([block[name] for block in blocks[UNUSUAL:]]) for name in masters}  # (rounds, WATCHED)
        found = _beside(seconds, scale)
        return [*found, *_on_the_thread(scale, database, url, float(np.median(seconds[QUIET])))]


def _beside(seconds: dict[str, np.ndarray[Any, np.dtype[np.float64]]], scale: Scale) -> list[Row]:
    size = f"batch {scale.batches[0]}"
    step = np.median(seconds[QUIET], axis=1)  # (rounds,)
    added = seconds[OURS].sum(1) - seconds[QUIET].sum(1)
    share = Quartiles.of(100 * added / (PER_PUBLICATION * step))
    unit, note = f"% of {PER_PUBLICATION} steps", f"what a publication and its refresh add to the {WATCHED} next steps"
    found = [Row(PATH, OURS, size, share, unit, float(np.median(added)), BARS[PATH], note=note)]
    for name in seconds:
        slowest = seconds[name].max(axis=1)
        bar = BARS[DELAY] if name == OURS else None
        note = f"of {WATCHED} steps" if name == OURS else "the machine's own unrest"
        value = Quartiles.of(slowest / step)
        found.append(Row(DELAY, name, size, value, "x median step", float(np.median(slowest)), bar, note=note))
    return found


def _on_the_thread(scale: Scale, database: RedisDatabase, url: str, step_seconds: float) -> list[Row]:
    """How long the training thread would be held up if it did the same itself."""
    model = stage.network(scale)
    parameters = np.concatenate([parameter.detach().numpy().ravel() for parameter in model.parameters()])
    versions = iter(range(10**6, 2 * 10**6))
    with redis.Redis.from_url(url) as client:

        def save_and_set() -> None:
            content = io.BytesIO()
            torch.save(model.state_dict(), content)
            client.set("issgd:rival", content.getbuffer())

        timings = interleaved(
            {SAME_THREAD: lambda: database.publish(Published(next(versions), 0), parameters), TORCH: save_and_set},
            scale.repeats,
        )
    share = 100 / (PER_PUBLICATION * step_seconds)
    size, unit = f"{parameters.nbytes / 1e6:.3g} MB", f"% of {PER_PUBLICATION} steps"
    return [
        Row(PATH, name, size, timings.seconds(name).times(share), unit, timings.seconds(name).median)
        for name in timings.rounds
    ]


def _block(steps: Iterator[float]) -> list[float]:
    return [next(steps) for _ in range(WATCHED)]


def _steps(master: Master) -> Iterator[float]:
    """Seconds of each of the master's steps, with whatever it does between them; tasks in threads, as in a cluster.

    A task begins with the first step after it, not while the caller holds the master between two steps.
    """
    previous: Operation | Task[Any] | None = None
    start = time.perf_counter()
    for item in master.run():
        if isinstance(previous, Operation) and previous.name == "train":
            yield time.perf_counter() - start
            start = time.perf_counter()
        if isinstance(item, Task):
            threading.Thread(target=_do, args=(item,), daemon=True).start()
        previous = item


def _do(task: Task[Any]) -> None:
    while task.advance() is not None:
        pass
