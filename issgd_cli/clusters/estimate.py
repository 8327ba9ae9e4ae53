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


class Estimate(NamedTuple):
    """What a run is going to be."""

    steps: int
    step_seconds: float
    seconds: float  # of training; audits come on top
    epochs: float
    device: str


def estimate(config: Config) -> Estimate:
    """Times the master's own steps on this machine, with nothing else running.

    Where the actors share cores a step takes longer; that is counted as if each core did an equal part of the work.
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
    step = float(np.median(seconds))
    if device.type == "cpu":
        step *= max(1.0, (1 + config.worker.count) / (os.cpu_count() or 1))
    limits = config.master
    steps = min(
        limits.steps or np.inf,
        limits.seconds / step if limits.seconds else np.inf,
    )
    return Estimate(int(steps), step, steps * step, steps * limits.minibatch_size / layout.train, device.type)
