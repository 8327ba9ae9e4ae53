"""How long a run will take, from a few measured steps."""

import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from issgd_cli.clusters.actors import device_of, threads
from issgd_cli.clusters.local import dataset_of
from issgd_cli.config import Config
from issgd_cli.database import SPLITS
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.database.records import Layout
from issgd_cli.master import Master
from issgd_cli.runs import RunFolder

TIMED_STEPS = 5
SCORING_SHARE = 0.65  # of a training step, an example


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

    Where actors share cores or GPUs a step takes longer; that is counted as if each did an equal part of the work.

    Args:
        config: Of the run.
        jobs: How many such runs share the machine.
    """
    data = dataset_of(config)
    device = torch.device(device_of(config, "master", 0))
    database = MemoryDatabase(time.monotonic)
    layout = Layout(**data.sizes, chunk_size=config.worker.chunk_size)
    database.begin(layout, 0.0, {split: layout.empty(split) for split in SPLITS})
    before = torch.get_num_threads()
    torch.set_num_threads(threads(config))
    try:
        master = Master(config, data, database, RunFolder(Path()), device)
        seconds = []
        for _ in range(TIMED_STEPS):
            start = time.perf_counter()
            float(master.train())  # waits for the device
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    del master
    torch.cuda.empty_cache()  # nothing where there is no CUDA
    alone = float(np.median(seconds))
    cores = max(1, ((os.cpu_count() or 1) if device.type == "cpu" else torch.cuda.device_count()) // jobs)
    limits = config.master
    if limits.mode == "exact":  # master and workers take turns: a sweep before every block of steps
        sweep = SCORING_SHARE * alone * sum(data.sizes.values()) / limits.minibatch_size
        step = alone + sweep / max(1, min(cores, config.worker.count)) / limits.publish_every_steps
        steps = float(limits.steps or 0)
    else:
        step = alone * max(1.0, (1 + config.worker.count) / cores)
        steps = min(limits.steps or np.inf, limits.seconds / step if limits.seconds else np.inf)
    epochs = steps * limits.minibatch_size / layout.train
    return Estimate(int(steps), step, steps * step, epochs, layout.train, device.type)
