"""One actor in a process of its own, on this machine or another: joins a run by the database, and works."""

import contextlib
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from issgd_cli import datasets
from issgd_cli.checkpoints import load_checkpoint
from issgd_cli.clusters.recording import Recorder
from issgd_cli.config import Config, resolve
from issgd_cli.database import Database, Layout
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.errors import ConfigError, DatabaseError, DataError, RunError
from issgd_cli.master import Master
from issgd_cli.models.mlp import fingerprint
from issgd_cli.monitor import Monitor
from issgd_cli.operations import Actor, Operation, Task
from issgd_cli.runs import RunFolder
from issgd_cli.worker import Worker

Kind = Literal["master", "worker", "monitor"]

REPORT_SECONDS = 0.5


def join(
    kind: Kind, url: str, run: str, data_dir: Path, folder: Path | None, index: int | None, device: str | None
) -> None:
    """Runs one actor until the run is over, or a signal says stop.

    Args:
        kind: Which actor.
        url: Of the database.
        run: The run's name in the database.
        data_dir: Where the prepared dataset is on this machine.
        folder: The run's folder; master and monitor need it.
        index: Which of the launcher's workers; None: one that a user started, named after its machine.
        device: Where to compute; None: what the configuration deals to this actor.

    Raises:
        IssgdError: The run is unknown, the dataset is another, or the actor failed.
    """
    database = RedisDatabase(url, run)
    database.ping()
    description = database.get("description")
    if description is None:
        raise DatabaseError(f"The database holds no run {run}. Start it with `issgd train --database ...` first.")
    config = resolve(description["config"], "the run's description in the database")
    torch.set_num_threads(threads(config))
    torch.set_float32_matmul_precision(config.cluster.matmul_precision)
    data = datasets.load(config.data.name, data_dir, config.data.train_size)
    if data.fingerprint != description["dataset"]:
        raise DataError(
            f"{config.data.name} in {data_dir} is not the dataset of run {run} (fingerprint {data.fingerprint[:16]}, "
            f"not {description['dataset'][:16]}). Prepare it with the same source, size and seed."
        )
    if fingerprint(data.features, config.model.hidden, data.classes) != description["model"]:
        raise RunError(f"This issgd builds another model than the one that run {run} trains. Use the same version.")
    layout = Layout(**data.sizes, chunk_size=config.worker.chunk_size)
    if database.layout() != layout:
        raise DatabaseError(f"The database's records of run {run} are of other sizes than {config.data.name} has.")
    place = torch.device(device or device_of(config, kind, index or 0))
    if kind == "worker":
        actor: Actor = Worker(config, data, database, place)
        name = f"worker-{socket.gethostname()}-{os.getpid()}" if index is None else f"worker-{index}"
    else:
        if folder is None:
            raise RunError(f"The {kind} needs --folder, the run's folder.")
        if kind == "master":
            checkpoint = load_checkpoint(RunFolder(folder).checkpoint) if description["resumed"] else None
            actor = Master(config, data, database, RunFolder(folder), place, checkpoint)
        else:
            actor = Monitor(config, data, database, RunFolder(folder), place)
        name = kind
    Execution(name, actor, database).run()


def device_of(config: Config, kind: Kind, index: int) -> str:
    """The device that the configuration deals to an actor: master first, then workers, then the monitor."""
    devices = config.cluster.devices
    place = {"master": 0, "worker": 1 + index, "monitor": 1 + config.worker.count}[kind]
    device = devices[place % len(devices)]
    count = torch.cuda.device_count()
    if device == "auto":
        return f"cuda:{place % count}" if count else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter: torch built without CUDA
        there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(count))])
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"cluster.devices: torch cannot use {device!r} here ({reason}). There is {there}.") from None
    return device


def threads(config: Config) -> int:
    """Torch threads an actor: as configured, else 1 where the bits must not depend on the machine, else its cores
    shared out."""
    if config.cluster.threads is not None:
        return config.cluster.threads
    if config.master.mode == "exact" or config.cluster.kind == "simulated":
        return 1
    actors = (config.worker.count + 1) * int(os.environ.get("ISSGD_JOBS", "1"))
    return max(1, (os.cpu_count() or 1) // actors)


@dataclass
class Execution:
    """Resumes an actor's operations one by one, and those of its tasks beside them; times them, tells the database."""

    name: str
    actor: Actor
    database: Database
    recorder: Recorder = field(init=False)
    stopping: threading.Event = field(default_factory=threading.Event)
    signal_number: int = 0

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.name, self.actor, os.getpid())

    def run(self) -> None:
        """Until the actor's life is over, a signal says stop, or whoever started us is gone.

        Raises:
            SystemExit: With 128 + the signal's number, so that nobody takes an actor that was stopped for done.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            self._live()
        except DatabaseError:
            # A worker's run may have ended, and its records been taken away under its hands.
            if not self.name.startswith("worker") or not self._is_over():
                raise
        if self.signal_number:
            raise SystemExit(128 + self.signal_number)

    def _is_over(self) -> bool:
        return self.database.get("finished") is not None or self.database.get("stop") is not None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self.stopping.set()

    def _live(self) -> None:
        launcher = os.environ.get("ISSGD_LAUNCHER")  # absent where a user started this actor
        origin = self.database.seconds() - time.monotonic()
        operations = self.actor.run()
        operation: Operation | None = None
        start = reported = time.monotonic()
        with contextlib.closing(operations):
            while not self.stopping.is_set():
                if operation is not None and operation.seconds:
                    self.stopping.wait(operation.seconds)
                following = next(operations, None)
                while isinstance(following, Task):
                    threading.Thread(target=self._beside, args=(following, origin), daemon=True).start()
                    following = next(operations, None)
                now = time.monotonic()
                if operation is not None:
                    self.recorder.done(operation, start + origin, now + origin)
                if following is None:
                    break
                if now - reported >= REPORT_SECONDS:
                    self.recorder.report(self.database, following.name)
                    reported = now
                    if launcher is not None and os.getppid() != int(launcher):
                        return  # it was killed: nobody else would end this process
                operation, start = following, now
            else:
                self.actor.stop()
        self.recorder.report(self.database, "stopped" if self.stopping.is_set() else "finished")

    def _beside(self, task: Task[Any], origin: float) -> None:
        """Does a task, in a thread of its own."""
        operation, start = task.advance(), time.monotonic()
        while operation is not None:
            if operation.seconds:
                self.stopping.wait(operation.seconds)
            following, now = task.advance(), time.monotonic()
            self.recorder.done(operation, start + origin, now + origin, id(task))
            operation, start = following, now
