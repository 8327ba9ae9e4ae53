"""How long a run will take, from a few measured steps; and a virtual clock from a few measured operations."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from issgd_cli.actors.actor import Operation
from issgd_cli.actors.devices import computing, device_of
from issgd_cli.actors.master import Master, take_step
from issgd_cli.actors.worker import Worker
from issgd_cli.clusters.resuming import dataset_of
from issgd_cli.config.config import Config
from issgd_cli.config.sections import Clock
from issgd_cli.database import SPLITS, Chunk, ChunkScores, Database, Published
from issgd_cli.database.contributions import TYPES
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.database.records import Layout
from issgd_cli.errors import RunError
from issgd_cli.methods.method import Method
from issgd_cli.methods.table import fields_read
from issgd_cli.problem import Problem
from issgd_cli.registries import METHODS
from issgd_cli.runs.folder import RunFolder
from issgd_cli.simulation.clock import SCORING_SHARE, durations, on_link, resolved

TIMED = 5


class Estimate(NamedTuple):
    """What a run is going to be."""

    steps: int
    step_seconds: float  # with what the other actors take of it
    seconds: float  # of training; audits come on top
    epochs: float
    examples: int  # N, of the training split
    device: str


def estimate(config: Config, jobs: int = 1) -> Estimate:
    """Times the master's own steps on this machine, with nothing else running.

    Where actors share cores or GPUs a step takes longer; that is counted as if each did an equal part of the work. On
    the simulated cluster one process does all the work, and a virtual clock says how much there is.

    Args:
        config: Of the run.
        jobs: How many such runs share the machine.
    """
    data = dataset_of(config)
    problem = Problem(config, data)
    device = torch.device(device_of(config, "master", 0))
    with computing(config):
        master = _master(config, problem, device, Path())
        alone = _seconds(_step_of(master))
    torch.cuda.empty_cache()  # nothing where there is no CUDA
    cores = max(1, ((os.cpu_count() or 1) if device.type == "cpu" else torch.cuda.device_count()) // jobs)
    passes = master.learner.passes / max(1, master.learner.step)  # of a step
    limits, everything = config.master, sum(data.sizes.values())
    score = SCORING_SHARE * alone / limits.minibatch_size  # an example
    if config.cluster.roles == "peers":
        # Each step takes a gradient, or a synchronous one all of theirs.
        each = config.peers.count if config.peers.mode == "synchronous" else 1
        step = alone * each / (1 if config.cluster.kind == "simulated" else min(cores, config.peers.count))
        pace = _pace_of_peers(config, problem, master.method) if config.cluster.kind == "simulated" else 1 / step
        steps = min(limits.steps or np.inf, limits.seconds * pace if limits.seconds else np.inf)
        if limits.most_passes is not None:
            steps = min(steps, limits.most_passes / (passes * each))
        epochs = steps * each * limits.minibatch_size / data.sizes["train"]
        return Estimate(int(steps), step, steps * step, epochs, data.sizes["train"], device.type)
    if config.cluster.kind == "simulated":
        clock = resolved(config.cluster.clock, data.sizes["train"], lambda: _as_measured(alone, score))
        virtual, rate = clock.step_seconds or alone, clock.examples_per_second or 1 / score
        steps = min(limits.steps or np.inf, limits.seconds / virtual if limits.seconds else np.inf)
        # At most everything once a version; without barriers, at most what the workers' rate allows meanwhile.
        scored = float(everything)
        if limits.mode == "relaxed":
            scored = min(scored, rate * config.worker.count * virtual * limits.publish_every_steps)
        step = alone + score * scored / limits.publish_every_steps
        passes += 2 * scored / limits.publish_every_steps
    elif limits.mode == "exact":  # master and workers take turns: a sweep before every block of steps
        step = alone + score * everything / max(1, min(cores, config.worker.count)) / limits.publish_every_steps
        steps = float(limits.steps or 0)
    else:
        step = alone * max(1.0, (1 + config.worker.count) / cores)
        steps = min(limits.steps or np.inf, limits.seconds / step if limits.seconds else np.inf)
    if limits.most_passes is not None:
        steps = min(steps, limits.most_passes / passes)
    epochs = steps * limits.minibatch_size / data.sizes["train"]
    return Estimate(int(steps), step, steps * step, epochs, data.sizes["train"], device.type)


def _pace_of_peers(config: Config, problem: Problem, method: Method) -> float:
    """Steps that they make in a virtual second: as they come round, or as their server applies what they push, or as
    its link carries what they push and pull, whichever takes longest."""
    examples, count = problem.data.sizes["train"], config.peers.count
    clock = resolved(config.cluster.clock, examples, lambda: config.cluster.clock)
    seconds, table = durations(clock), 0.0
    if METHODS.parts[config.proposal.method].by_scores:
        fields = fields_read(config.proposal, method.reads_pairs)
        layout = Layout(**problem.data.sizes, chunk_size=config.worker.chunk_size)
        table = layout.bytes_of("train", fields) / config.peers.refresh_every_steps
    gradient = problem.trained_size * TYPES[config.peers.gradients].itemsize
    pull, push = Operation("pull", bytes=round(4 * problem.size + table)), Operation("push", bytes=gradient)
    parts = [pull, Operation("train"), push, Operation("apply")]
    around = sum(seconds("peer-0", part) for part in parts)
    one_by_one = max(seconds("server", parts[-1]), *(on_link(clock, part) for part in (pull, push)))
    if config.peers.mode == "synchronous":
        return 1 / (around + one_by_one * (count - 1))
    return min(count / around, 1 / one_by_one if one_by_one else np.inf)


def measured(config: Config, problem: Problem, device: torch.device) -> Clock:
    """What each operation takes on this machine by itself, between actors in one process: no network in between."""
    with tempfile.TemporaryDirectory(prefix="issgd-") as place:
        master = _master(config, problem, device, Path(place))
        database, layout = master.database, master.database.layout()
        worker = Worker.of(config, problem, database, device)
        parameters = master.learner.parameters.cpu().numpy()
        found = {"step_seconds": _seconds(_step_of(master))}
        versions = iter(range(1, 10 * TIMED))
        found["publish_seconds"] = _seconds(lambda: database.publish(Published(next(versions), 0), parameters))
        found["pull_seconds"] = _seconds(lambda: worker.scorer.load(next(versions), parameters))
        chunks = [Chunk("train", number) for number in range(layout.chunks("train"))]
        numbers = iter(range(10 * TIMED))
        chunk_seconds = _seconds(lambda: worker.score(chunks[next(numbers) % len(chunks)]))
        found["examples_per_second"] = min(config.worker.chunk_size, layout.train) / chunk_seconds
        newest = Published(10 * TIMED, 0)
        database.publish(newest, parameters)
        scores = worker.score(chunks[0])
        found["push_seconds"] = _seconds(lambda: _pushed(database, chunks[0], next(versions), scores))
        for version in (newest.version - 1, newest.version):  # so that all weights are usable, and have a pair
            for chunk, size in zip(chunks, layout.sizes("train"), strict=True):
                norms = np.random.default_rng(version).exponential(1.0, size).astype(np.float32)
                _pushed(database, chunk, version, ChunkScores(norms, norms, np.zeros(size, np.uint8), None))
        found["refresh_seconds"] = _seconds(lambda: master.refreshed(newest))
        found["checkpoint_seconds"] = _seconds(lambda: master.checkpoint(0.0))
    return Clock.model_validate({"preset": "measured", **found})


def _pushed(database: Database, chunk: Chunk, version: int, scores: ChunkScores) -> None:
    if not database.push(chunk, version, scores):
        raise RunError(f"The scores of {chunk} at version {version} were refused while timing this machine.")


def _master(config: Config, problem: Problem, device: torch.device, folder: Path) -> Master:
    """With a database of its own, in which nothing is scored."""
    database = MemoryDatabase(time.monotonic)
    layout = Layout(**problem.data.sizes, chunk_size=config.worker.chunk_size)
    database.begin(layout, 0.0, {split: layout.empty(split) for split in SPLITS})
    run_folder = RunFolder(folder)
    if folder != Path():
        run_folder.checkpoint.parent.mkdir()
    return Master.of(config, problem, database, run_folder, device)


def _step_of(master: Master) -> Callable[[], float]:
    size = master.config.master.minibatch_size
    return lambda: float(take_step(master.learner, master.method, master.examples, size))  # waits for the device


def _seconds(operation: Callable[[], object]) -> float:
    """The median of a few times."""
    times = []
    for _ in range(TIMED):
        start = time.perf_counter()
        operation()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _as_measured(step: float, score: float) -> Clock:
    return Clock(step_seconds=step, examples_per_second=1 / score)
