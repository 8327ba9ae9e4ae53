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
from issgd_cli.config import Config, resolve
from issgd_cli.database import Database
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.errors import ConfigError, DatabaseError, DataError, RunError
from issgd_cli.master import Master
from issgd_cli.models.mlp import fingerprint
from issgd_cli.monitor import Monitor
from issgd_cli.operations import Actor, Operation
from issgd_cli.runs import RunFolder
from issgd_cli.traces import Event
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
    data = datasets.load(config.data.name, data_dir, config.data.train_size)
    if data.fingerprint != description["dataset"]:
        raise DataError(
            f"{config.data.name} in {data_dir} is not the dataset of run {run} (fingerprint {data.fingerprint[:16]}, "
            f"not {description['dataset'][:16]}). Prepare it with the same source, size and seed."
        )
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
    if fingerprint(data.features, config.model.hidden, data.classes) != description["model"]:
        raise RunError(f"This issgd builds another model than the one that run {run} trains. Use the same version.")
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
    """Torch threads an actor: as configured, else 1 in exact mode, else this machine's cores shared out."""
    if config.cluster.threads is not None:
        return config.cluster.threads
    if config.master.mode == "exact":
        return 1
    actors = (config.worker.count + 1) * int(os.environ.get("ISSGD_JOBS", "1"))
    return max(1, (os.cpu_count() or 1) // actors)


@dataclass
class Execution:
    """Resumes an actor's operations one by one, times them, and tells the database."""

    name: str
    actor: Actor
    database: Database
    examples: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    batch: int = 0
    pending: list[Event] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    signal_number: int = 0

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
                now = time.monotonic()
                if operation is not None:
                    self._done(operation, start + origin, now + origin)
                if following is None:
                    break
                if now - reported >= REPORT_SECONDS:
                    self.report(following.name)
                    reported = now
                    if launcher is not None and os.getppid() != int(launcher):
                        self._orphaned()
                        return
                operation, start = following, now
            else:
                self.actor.stop()
        self.report("stopped" if self.stopping.is_set() else "finished")

    def _done(self, operation: Operation, start: float, end: float) -> None:
        self.examples[operation.name] = self.examples.get(operation.name, 0) + operation.examples
        self.bytes += operation.bytes
        last = self.pending[-1] if self.pending else None
        if last is not None and (last.event, last.version) == (operation.name, operation.version):
            self.pending[-1] = last._replace(end=end)  # 32 steps are one bar of figure 1
        else:
            self.pending.append(Event(self.name, start, end, operation.name, operation.version))

    def report(self, doing: str) -> None:
        """Hands the events over, and says what this actor does."""
        if self.pending:
            self.database.push_events(f"{self.name}:{os.getpid()}:{self.batch:08d}", self.pending)
            self.batch, self.pending = self.batch + 1, []
        status: dict[str, Any] = {
            **self.actor.status(),
            "process": os.getpid(),
            "seconds": self.database.seconds(),
            "doing": doing,
            "examples": self.examples,
            "bytes": self.bytes,
        }
        self.database.report(self.name, status)

    def _orphaned(self) -> None:
        """The launcher was killed: nobody else would end this process, or the server that was started for the run."""
        time.sleep(3 * REPORT_SECONDS)  # so that the other actors notice too, before the server is gone
        if os.environ.get("ISSGD_OWN_SERVER") == "1" and isinstance(self.database, RedisDatabase):
            self.database.shutdown()
