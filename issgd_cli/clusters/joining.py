"""One actor in a process of its own, on this machine or another: joins a run by the database, and works."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from issgd_cli import datasets
from issgd_cli.actors.actor import Actor, Operation, Task
from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.recorder import Recorder
from issgd_cli.actors.worker import Worker
from issgd_cli.config.config import Config
from issgd_cli.config.validation import resolve
from issgd_cli.database import Document, Layout
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.errors import ConfigError, DatabaseError, DataError, GoneError, IssgdError, RunError
from issgd_cli.files import telling
from issgd_cli.problem import Problem
from issgd_cli.runs.checkpoints import load_checkpoint
from issgd_cli.runs.folder import RunFolder, locked

Kind = Literal["master", "worker", "monitor"]

REPORT_SECONDS = 0.5
FAREWELL_SECONDS = 2.0  # for the last report that is under way
RETURN_SECONDS = 600.0  # how long a worker waits for a run that has left the database: it may be set back, or resumed


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
    launcher = os.environ.get("ISSGD_LAUNCHER")  # absent where a user started this actor
    if launcher is not None:
        threading.Thread(target=_leave_with, args=(int(launcher),), daemon=True).start()
    knows_the_run = launcher is not None
    while True:
        database = RedisDatabase(url, run)
        try:
            if not knows_the_run:
                database.ping()
            description = database.get("description")
            if description is None:
                raise GoneError(f"The database holds no run {run}. Start it with `issgd train --database ...` first.")
            knows_the_run = True
            _take_part(kind, database, run, description, data_dir, folder, index, device)
            return
        except GoneError:
            if kind != "worker" or not knows_the_run:
                raise
            if not _comes_back(url, run):
                return
        finally:
            database.close()


def _leave_with(launcher: int) -> None:
    """Ends this process when whoever started it is gone: nobody else would. All files are written whole or not."""
    while os.getppid() == launcher:
        time.sleep(REPORT_SECONDS)
    os._exit(1)


def _comes_back(url: str, run: str) -> bool:
    """Waits until the run is in the database again; False where it leaves word that it has ended.

    Raises:
        GoneError: It has stayed away.
    """
    minutes = RETURN_SECONDS / 60
    with contextlib.suppress(OSError):  # a log on a full disk
        print(f"The run has left the database. Waiting for it to come back, {minutes:.0f} minutes at most.", flush=True)
    deadline = time.monotonic() + RETURN_SECONDS
    with contextlib.closing(RedisDatabase(url, run, patient=False)) as database:
        while time.monotonic() < deadline:
            with contextlib.suppress(DatabaseError):  # the server may be starting
                if database.get("stop") is not None:
                    return False
                if database.get("description") is not None:
                    return True
            time.sleep(REPORT_SECONDS)
    raise GoneError(f"The run has not come back within {minutes:.0f} minutes. Join again when it does.")


def _take_part(
    kind: Kind,
    database: RedisDatabase,
    run: str,
    description: Document,
    data_dir: Path,
    folder: Path | None,
    index: int | None,
    device: str | None,
) -> None:
    config = resolve(description["config"], "the run's description in the database")
    torch.set_num_threads(threads(config))
    torch.set_float32_matmul_precision(config.cluster.matmul_precision)
    data = datasets.load(config.data.name, data_dir, config.data.train_size)
    if data.fingerprint != description["dataset"]:
        raise DataError(
            f"{config.data.name} in {data_dir} is not the dataset of run {run} (fingerprint {data.fingerprint[:16]}, "
            f"not {description['dataset'][:16]}). Prepare it with the same source, size and seed."
        )
    problem = Problem(config, data)
    if problem.fingerprint != description["model"]:
        raise RunError(f"This issgd builds another model than the one that run {run} trains. Use the same version.")
    layout = Layout(**data.sizes, chunk_size=config.worker.chunk_size)
    if database.layout() != layout:
        raise DatabaseError(f"The database's records of run {run} are of other sizes than {config.data.name} has.")
    place = torch.device(device or device_of(config, kind, index or 0))
    if kind == "worker":
        name = f"worker-{socket.gethostname()}-{os.getpid()}" if index is None else f"worker-{index}"
        Execution(name, Worker.of(config, problem, database, place), database).run()
        return
    if folder is None:
        raise RunError(f"The {kind} needs --folder, the run's folder.")
    there = RunFolder(folder)
    # One that a killed launcher has left behind may still be at work: nobody writes the same files beside it.
    with locked(there.checkpoint.parent if kind == "master" else there.logs, f"another {kind}"):
        if kind == "master":
            checkpoint = load_checkpoint(there.checkpoint) if description["resumed"] else None
            actor: Actor = Master.of(config, problem, database, there, place, checkpoint)
        else:
            actor = Monitor(config, problem, database, there, place)
        Execution(kind, actor, database).run()


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
    database: RedisDatabase
    recorder: Recorder = field(init=False)
    stopping: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)  # the actor's life
    doing: str = "starting"
    signal_number: int = 0
    gone: GoneError | None = None

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.name, self.actor, os.getpid())

    def run(self) -> None:
        """Until the actor's life is over, a signal says stop, or whoever started us is gone.

        Raises:
            SystemExit: With 128 + the signal's number, so that nobody takes an actor that was stopped for done.
            IssgdError: The actor failed; the database has been told, since a log on a full disk may stay empty.
        """
        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with telling():
                self._live()
        except DatabaseError:
            # A worker's run may have ended, and its records been taken away under its hands.
            if not self.name.startswith("worker") or not self._is_over():
                raise
        except IssgdError as error:
            self._tell(error)
            raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.signal_number:
            raise SystemExit(128 + self.signal_number)

    def _is_over(self) -> bool:
        return self.database.get("finished") is not None or self.database.get("stop") is not None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self.stopping.set()

    def _live(self) -> None:
        operations = self.actor.run()
        operation: Operation | None = None
        start = self.database.seconds()
        with contextlib.closing(operations), self._reporting():
            while not self.stopping.is_set():
                if operation is not None and operation.seconds:
                    self.stopping.wait(operation.seconds)
                following = next(operations, None)
                while isinstance(following, Task):
                    threading.Thread(target=self._beside, args=(following,), daemon=True).start()
                    following = next(operations, None)
                now = self.database.seconds()
                if operation is not None:
                    self.recorder.done(operation, start, now)
                if following is None:
                    break
                if self.gone is not None:
                    raise self.gone
                operation, start, self.doing = following, now, following.name
            else:
                self.actor.stop()
        self.recorder.report(self.database, "stopped" if self.stopping.is_set() else "finished")

    def _beside(self, task: Task[Any]) -> None:
        """Does a task, in a thread of its own."""
        operation, start = task.advance(), self.database.seconds()
        while operation is not None:
            if operation.seconds:
                self.stopping.wait(operation.seconds)
            following, now = task.advance(), self.database.seconds()
            self.recorder.done(operation, start, now, id(task))
            operation, start = following, now

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Within, the database is told twice a second what the actor does: beside it, since a database may be away."""
        reporter = threading.Thread(target=self._report, daemon=True)
        reporter.start()
        try:
            yield
        finally:
            self.over.set()
            reporter.join(FAREWELL_SECONDS)

    def _report(self) -> None:
        while not self.over.wait(REPORT_SECONDS):
            try:
                self.database.synchronise()
                self.recorder.report(self.database, self.doing)
            except GoneError as error:
                self.gone = error
                return
            except (
                DatabaseError
            ):  # away for longer than the client is patient; what matters to the actor, it meets itself
                continue

    def _tell(self, error: IssgdError) -> None:
        line = " ".join(str(error).split())[:1000]
        with contextlib.suppress(DatabaseError):
            status = self.recorder.status(self.database.seconds(), "failed")
            self.database.report(self.name, {**status, "notices": [line]})
