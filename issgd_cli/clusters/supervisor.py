"""Looks after a run's actors on any cluster: notices who has died, and sees to what follows.

Whoever dies is started again. A worker owns nothing, and a monitor goes on with the trace: each of them alone. With the
master the steps since the last checkpoint are lost, with the server all records: then the run goes back to its last
checkpoint, the database and the folder are set back to it, and master and monitor start anew. Workers, those that
joined from elsewhere too, notice that the run lives anew and join it again. (A parameter server is a master here, and
its peers are workers: a dead one loses the gradient that it was at.) Who ended by itself with an error would do
so again: that ends the run, and so does who has died too often.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from issgd_cli.actors.actor import HANDS
from issgd_cli.clusters.cluster import (
    GONE_STATUS,
    WATCH_SECONDS,
    ActorError,
    Handle,
    Interrupted,
    Launcher,
    Watch,
    actors,
)
from issgd_cli.clusters.notices import Notices
from issgd_cli.clusters.restarts import Restarts, end_of, hint, was_killed
from issgd_cli.clusters.resuming import checkpointed_at, renumbered_checkpoint, set_back
from issgd_cli.clusters.service import Service
from issgd_cli.config.config import Config
from issgd_cli.database.redis.connection import PATIENCE_SECONDS
from issgd_cli.errors import AwayError, DatabaseError, RunError
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder

POLL_SECONDS = 0.1
END_POLL_SECONDS = 0.02
GRACE_SECONDS = 8.0  # for master and monitor to save what they can
LOG_LINES = 12


@dataclass
class _Life:
    """An actor's latest.

    Attributes:
        handle: Of which only the end is left where `again_at` is set.
        again_at: When the actor is started again, by the monotonic clock.
    """

    handle: Handle
    again_at: float | None = None

    def health(self) -> str:
        """As in a snapshot's `processes`."""
        if self.again_at is not None:
            return "restarting"
        status = self.handle.poll()
        return "running" if status is None else "finished" if status == 0 else "dead"


class Supervisor:
    """Starts the actors, looks after them, and ends them."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        problem: Problem,
        service: Service,
        launcher: Launcher,
        watch: Watch,
        stop: threading.Event,
        grace_seconds: Callable[[], float] = lambda: GRACE_SECONDS,
    ) -> None:
        """`grace_seconds`: asked at the end, which `stop` may have brought about."""
        self.grace_seconds = grace_seconds
        self.config, self.folder, self.problem = config, folder, problem
        self.service, self.launcher, self.watch, self.stop = service, launcher, watch, stop
        self.trainer = config.cluster.trainer
        self.notices = Notices(service)
        self.lives: dict[str, _Life] = {}
        self.restarts = Restarts(config.cluster.restarts, dict(folder.read_manifest().get("restarts") or {}))
        self.gone_back_to: int | None = None  # when that checkpoint was saved
        self.went_back = 0.0  # when, by the monotonic clock
        self.is_checkpointed = False

    def run(self) -> None:
        """The whole run, from its beginning or its last checkpoint to its end.

        Raises:
            ActorError: An actor or the server has ended before its time.
            Interrupted: `stop` was set.
            IssgdError: The database is not there.
        """
        try:
            self.restarts.began("database")
            self._set_back()
            for line in self.service.welcome():
                self.notices.tell(line)
            for actor in ("monitor", *actors(self.config)):
                self._start(actor)
            self._look_after()
        finally:
            self._end_all()
            self._show()

    def _start(self, actor: str) -> None:
        # Not on the command line: every user of the machine could read a password there.
        environment = {"ISSGD_DATABASE": self.service.url_for(actor)}
        self.lives[actor] = _Life(self.launcher.start(actor, environment))
        self.restarts.began(actor)

    def _look_after(self) -> None:
        """Until master and monitor have done their work."""
        shown = 0.0
        while not all(self.lives[actor].handle.poll() == 0 for actor in (self.trainer, "monitor")):
            if self.stop.wait(POLL_SECONDS):
                raise Interrupted
            self.problem.data.refuse_changed()
            if self.service.poll() is not None:
                self._go_back()
            for actor in list(self.lives):
                self._look_after_one(actor)
            if time.monotonic() - shown >= WATCH_SECONDS:
                self._show()
                shown = time.monotonic()

    def _look_after_one(self, actor: str) -> None:
        life = self.lives[actor]
        status = life.handle.poll()
        if life.again_at is not None:
            if time.monotonic() >= life.again_at:
                self._start(actor)
        elif status == 0 and actor.startswith(HANDS) and self.restarts.started[actor] < self.went_back:
            self._start(actor)  # it took the run for finished before that went back
        elif not status:  # runs, or is done
            return
        elif actor.startswith(HANDS) or (actor == "monitor" and was_killed(status)):
            life.again_at = time.monotonic() + self._pause(actor, status, "starting it again")
        elif was_killed(status) or status == GONE_STATUS:
            self._hold_on(actor, status, "going back to the last checkpoint")
            self._go_back()
        else:  # it says why, and would do so again
            raise ActorError(actor, f"The {actor} {end_of(status)}.\n{self._last_words(actor)}")

    def _go_back(self) -> None:
        """Goes on from the last checkpoint: with the master, or the server, what came after it is lost."""
        for actor in (self.trainer, "monitor"):
            self.lives[actor].handle.kill()
            _wait_for([self.lives[actor]])
        self._set_back()
        self.went_back = time.monotonic()
        for actor in ("monitor", self.trainer):
            self._start(actor)

    def _set_back(self) -> None:
        """Sets database and folder to the run's beginning, or to its last checkpoint, once the server is there.

        Raises:
            ActorError: The server has died too often.
            AwayError: It does not answer for long.
            Interrupted: The caller said stop meanwhile.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if (status := self.service.poll()) is not None:
                    self._hold_on("database", status, "starting it again, from the last checkpoint")
                    self.service.restart()
                    self.restarts.began("database")
                    deadline = time.monotonic() + PATIENCE_SECONDS
                checkpoint = renumbered_checkpoint(self.folder, self.config, self.notices.snapshot.notices)
                self.gone_back_to = checkpointed_at(self.folder)
                set_back(self.service.database, self.folder, self.config, self.problem, checkpoint)
                return
            except DatabaseError as error:
                killed = self.service.poll() is not None  # while it started, or while it was being filled
                if not killed and (not isinstance(error, AwayError) or time.monotonic() > deadline):
                    raise
            if self.stop.wait(POLL_SECONDS):
                raise Interrupted

    def _hold_on(self, name: str, status: int, remedy: str) -> None:
        """The pause before the run goes back since `name` has died.

        Raises:
            ActorError: It has died too often.
            Interrupted: The caller said stop meanwhile.
        """
        pause = self._pause(name, status, remedy)
        self._show()
        if self.stop.wait(pause):
            raise Interrupted

    def _pause(self, name: str, status: int, remedy: str) -> float:
        """How many seconds to wait before starting an actor, or the server, again; tells of it.

        Raises:
            ActorError: It has died too often.
        """
        # A run that goes back again and again must have come further each time.
        goes_back = name in (self.trainer, "database") or status == GONE_STATUS
        forgiven = checkpointed_at(self.folder) != self.gone_back_to if goes_back else self.restarts.lived_long(name)
        pause = self.restarts.pause(name, forgiven)
        if pause is None:
            what = "The database server" if name == "database" else f"The {name}"
            often = f" (started {self.restarts.counts[name] + 1} times)" if name in self.restarts.counts else ""
            raise ActorError(name, f"{what} {end_of(status)}{hint(status)}{often}.\n{self._last_words(name)}")
        self.notices.tell(f"{name} {end_of(status)}; {remedy}")
        with contextlib.suppress(RunError):  # a full disk need not end it
            self.folder.update_manifest(restarts=self.restarts.counts)
        return pause

    def _last_words(self, name: str) -> str:
        """The end of its log, or what it told the database where a full disk has no room for a log."""
        said = (self.service if name == "database" else self.lives[name].handle).last_words()
        lines = said.splitlines()[-LOG_LINES:]
        if not said.endswith("\n"):  # nothing, or a line that the disk had no room for the rest of
            self.notices.look()
            lines = self.notices.snapshot.statuses.get(name, {}).get("notices", []) or lines
        return "\n".join([*(f"  {line}" for line in lines), f"The whole log: {self.folder.log_of(name)}"])

    def _show(self) -> None:
        self.notices.look()
        if not self.is_checkpointed and self.folder.checkpoint.exists():
            with contextlib.suppress(RunError):  # on a full disk, later
                self.folder.update_manifest(checkpointed=True)  # a run that never was goes on from its beginning
                self.is_checkpointed = True
        snapshot = self.notices.snapshot
        snapshot.processes.update({actor: life.health() for actor, life in self.lives.items()})
        self.watch(snapshot)

    def _end_all(self) -> None:
        """Master and monitor get a moment to save what they can; workers own nothing."""
        for actor, life in self.lives.items():
            if actor.startswith(HANDS) or self.service.poll() is not None:
                life.handle.kill()
            else:
                life.handle.end()
        _wait_for(self.lives.values(), self.grace_seconds())
        for life in self.lives.values():
            life.handle.kill()
        _wait_for(self.lives.values())


def _wait_for(lives: Iterable[_Life], seconds: float = math.inf) -> None:
    """Until all have ended, or so long."""
    deadline = time.monotonic() + seconds
    while any(life.handle.poll() is None for life in lives) and time.monotonic() < deadline:
        time.sleep(END_POLL_SECONDS)
