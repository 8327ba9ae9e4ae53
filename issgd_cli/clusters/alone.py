"""A master and its monitor in one process, on the real clock: for methods that need no workers.

No database server, no other process: they meet in memory, in turn. What a relaxed master wants done beside its training
is done at once. Nobody scores the examples, so that losses and errors come from audits alone, when training is over:
`monitor.audit_every_steps` says how many.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from issgd_cli.actors.actor import Actor, Operation, Task
from issgd_cli.actors.devices import computing, device_of
from issgd_cli.actors.execution import REPORT_SECONDS
from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.recorder import Recorder
from issgd_cli.clusters.cluster import WATCH_SECONDS, ActorError, Interrupted, Snapshot, Watch
from issgd_cli.clusters.resuming import last_checkpoint, set_back
from issgd_cli.config.config import Config
from issgd_cli.database import Database
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.errors import IssgdError
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder


def run(config: Config, folder: RunFolder, problem: Problem, watch: Watch, stop: threading.Event) -> None:
    """The whole run; see `experiments.run.train`, which this is a part of.

    Raises:
        ActorError: An actor has failed.
        Interrupted: `stop` was set; the run can go on from the checkpoint that was saved then.
    """
    device = torch.device(device_of(config, "master", 0))
    with computing(config):
        alone = _Alone(config, folder, problem, device, watch, stop)
        try:
            alone.run()
        finally:
            alone.close()


@dataclass
class _Life:
    """An actor's, one operation after the other.

    Attributes:
        announced, since: The operation under way, and when it began.
        again_at: When an actor that waits looks again.
    """

    name: str
    actor: Actor
    database: Database
    recorder: Recorder = field(init=False)
    announced: Operation | None = None
    since: float = 0.0
    again_at: float = 0.0
    over: bool = False

    def __post_init__(self) -> None:
        self.recorder, self._operations = Recorder(self.name, self.actor, 0), self.actor.run()

    def advance(self) -> None:
        """Does what was announced, and all tasks that follow it, up to the next operation.

        Raises:
            ActorError: The actor has failed.
        """
        try:
            following = next(self._operations, None)
            while isinstance(following, Task):
                self._told()
                self._do(following)
                following = next(self._operations, None)
        except IssgdError as error:
            raise ActorError(self.name, str(error)) from error
        self._told()
        self.announced, self.over = following, following is None
        self.again_at = self.since + (0.0 if following is None else following.seconds)

    def _do(self, task: Task[Any]) -> None:
        while (operation := task.advance()) is not None:
            self._told()
            self.announced = operation
        self._told()

    def _told(self) -> None:
        """The operation under way has ended just now."""
        now = self.database.seconds()
        if self.announced is not None:
            self.recorder.done(self.announced, self.since, now)
        self.announced, self.since = None, now

    def stop(self) -> None:
        """Interrupted, before its end."""
        if not self.over:
            self.actor.stop()

    def report(self) -> None:
        """For the trace: what it has done."""
        self.recorder.report(self.database, self.doing())

    def doing(self) -> str:
        """For people."""
        return "finished" if self.announced is None else self.announced.name


class _Alone:
    """A run, from its beginning or its last checkpoint to its end."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        problem: Problem,
        device: torch.device,
        watch: Watch,
        stop: threading.Event,
    ) -> None:
        self.watch, self.stop = watch, stop
        self.shown = self.reported = 0.0
        self.notices: list[str] = []
        self.database = MemoryDatabase(time.monotonic)
        checkpoint = last_checkpoint(folder, self.notices)
        set_back(self.database, folder, config, problem, checkpoint)
        master = Master.of(config, problem, self.database, folder, device, checkpoint)
        self.notices += master.status()["notices"]
        self.monitor = Monitor(config, problem, self.database, folder, device)
        self.lives = _Life("master", master, self.database), _Life("monitor", self.monitor, self.database)

    def close(self) -> None:
        """Ends both lives as they are."""
        self.monitor.trace.close()
        self.monitor.events.close()

    def run(self) -> None:
        """To its end. Raises: see `run` of the module."""
        master, monitor = self.lives
        while not (master.over and monitor.over):
            if self.stop.is_set():
                self._stop()
            now = self.database.seconds()
            life = monitor if master.over or (not monitor.over and now >= monitor.again_at) else master
            if now - self.reported >= REPORT_SECONDS or life.doing() in ("sample", "checkpoint"):
                self._report(now)  # a sample and a checkpoint hold all that has been done
            if now - self.shown >= WATCH_SECONDS:
                self._show(now)
            life.advance()
        self._report(now)
        self.monitor.write_events()
        self._show(now)

    def _report(self, now: float) -> None:
        self.reported = now
        for life in self.lives:
            life.report()
        self.monitor.count_work()

    def _show(self, now: float) -> None:
        self.shown = now
        self.watch(
            Snapshot(
                seconds=now,
                statuses={life.name: life.recorder.status(now, life.doing()) for life in self.lives},
                processes={life.name: "finished" if life.over else "running" for life in self.lives},
                notices=list(self.notices),
            )
        )

    def _stop(self) -> None:
        """Saves what can be saved.

        Raises:
            Interrupted: When that is done.
        """
        self._report(self.database.seconds())
        for life in self.lives:
            try:
                life.stop()
            except IssgdError as error:
                raise ActorError(life.name, str(error)) from error
        raise Interrupted
