"""Bytes of private memory an example costs each actor: the slope between two N, so that all else cancels out."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from issgd_cli.actors.actor import Operation, Task
from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.worker import Worker
from issgd_cli.database import Published
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from tests.benchmarks import processes, stage
from tests.benchmarks.report import Row
from tests.benchmarks.scale import Scale
from tests.benchmarks.timing import Quartiles

Kind = Literal["master", "worker", "monitor"]
BYTES, LINEAR = "memory: bytes an example", "memory: growth"
SERVER = "database server"
OPERATIONS = 6  # of an actor before its memory is looked at: some of each kind
NOTE = "at its peak; the bar is the dataset itself, of which a float32 copy would be 12,288"


def rows(scale: Scale) -> list[Row]:
    """Between N, 2 N and 3 N, and whether the second step up costs what the first did."""
    # What does not depend on N is kept small, so that the rest stands in the clear.
    scale = replace(scale, hidden=(64,), chunk_size=256, batches=(16,))
    counts = [scale.examples, 2 * scale.examples, 3 * scale.examples]
    usages = [_usages(scale, count) for count in counts]
    size = f"N = {counts[0]:,} to {counts[-1]:,}"
    found = []
    for name in usages[0]:
        values = np.array([usage[name] for usage in usages], np.float64)
        first, second = (np.diff(values) / np.diff(counts)).tolist()
        whole = Quartiles.exactly(float((values[-1] - values[0]) / (counts[-1] - counts[0])))
        ours = name != SERVER
        found.append(
            Row(BYTES, name, size, whole, "bytes", bar=scale.features if ours else None, note=NOTE if ours else "")
        )
        bend = Quartiles.exactly(second / first if first > 0 else 1.0)
        found.append(Row(LINEAR, name, size, bend, "x the first half's bytes an example"))
    return found


def _usages(scale: Scale, examples: int) -> dict[str, int]:
    """Bytes of private memory of every actor and of the server, each actor in a fresh process."""
    layout = stage.layout(scale, examples)
    with stage.dataset(scale, examples, sparse=True) as data, stage.real_database(layout) as (database, url, server):
        parameters = flatten_parameters(stage.network(scale)).numpy()
        database.publish(Published(stage.NEXT_VERSION, 0), parameters)
        folder = stage.folder_of(data)
        usages = {kind: processes.in_another(_usage, kind, scale, url, folder) for kind in get_args(Kind)}
        return {**usages, SERVER: processes.private_bytes(server)}


def _usage(kind: Kind, scale: Scale, url: str, folder: Path) -> int:
    """In a process of its own: the most that an actor at work has held, in bytes."""
    with stage.run_folder() as run_folder, processes.PeakWatch() as watch:
        actor = _actor(kind, scale, url, folder, run_folder)
        life = actor.run()
        for _ in range(OPERATIONS):
            _do(next(life))
        settled = processes.private_bytes()
        _close(actor)
    return max(settled, watch.peak_bytes)


def _do(item: Operation | Task[object]) -> None:
    if isinstance(item, Task):
        while item.advance() is not None:
            pass


def _close(actor: Master | Worker | Monitor) -> None:
    actor.database.close()
    if isinstance(actor, Monitor):
        actor.trace.close()
        actor.events.close()


def _actor(kind: Kind, scale: Scale, url: str, data_folder: Path, folder: RunFolder) -> Master | Worker | Monitor:
    data, database = stage.opened(data_folder, scale.classes), RedisDatabase(url, "bench")
    config = stage.config(scale, "master.publish_every_steps=2")
    if kind == "worker":
        return Worker.of(config, Problem(config, data), database, stage.CPU)
    if kind == "monitor":
        return Monitor(config, Problem(config, data), database, folder, stage.CPU)
    master = Master.of(config, Problem(config, data), database, folder, stage.CPU)
    master.publishing.version = stage.NEXT_VERSION + 1
    return master
