"""The local cluster: a Redis server, a master, workers and a monitor, each a process of this machine.

Whoever dies is started again. A worker owns nothing, and a monitor goes on with the trace: each of them alone. With the
master the steps since the last checkpoint are lost, with the server all records: then the run goes back to its last
checkpoint, the database and the folder are set back to it, and master and monitor start anew. Workers, those that
joined from elsewhere too, notice that the run lives anew and join it again.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from issgd_cli.clusters.launch import (
    ALLOCATION,
    GONE_STATUS,
    WATCH_SECONDS,
    ActorError,
    Interrupted,
    Snapshot,
    Watch,
    last_checkpoint,
    set_back,
)
from issgd_cli.config import Config
from issgd_cli.database.redis import CLOCK_STEP_SECONDS, RedisDatabase
from issgd_cli.database.server import Server, serving
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import DatabaseError, GoneError, IssgdError
from issgd_cli.runs import RunFolder

POLL_SECONDS = 0.1
GRACE_SECONDS = 8.0  # for master and monitor to save what they can
LONG_LIFE_SECONDS = 60.0  # who lives for so long may die again as often
BACKOFF_SECONDS = 0.5  # before the first start after a short life, doubled before each further one
LONGEST_BACKOFF_SECONDS = 30.0
AWAY_SECONDS = 2.0  # a server that is silent for so long is told of
LOG_LINES = 12
MOST_NOTICES = 1000

HINTS = {
    signal.SIGKILL: ", by somebody or by the system for want of memory",
    signal.SIGBUS: ": a data file was cut short while it was in use, or a disk is failing",
}


def run(config: Config, folder: RunFolder, data: Prepared, watch: Watch, stop: threading.Event, jobs: int = 1) -> None:
    """The whole run, its actors in processes; see `training.train`, which this is a part of.

    Raises:
        ActorError: An actor or the server has ended before its time.
        Interrupted: `stop` was set.
        IssgdError: The database is not there.
    """
    with _database(config, folder) as (url, server):
        _Launch(config, folder, data, url, server, watch, stop, jobs).run()


@contextlib.contextmanager
def _database(config: Config, folder: RunFolder) -> Iterator[tuple[str, Server | None]]:
    if config.database.url:
        yield config.database.url, None
        return
    with serving(folder.log_of("database"), config.database.listen) as server:
        yield server.url, server


def _guard(server: Server | None) -> str:
    """How the database tells a worker from the master, for the manifest."""
    if server is None:
        return "its own: whoever has the URL can do what its user may"
    if server.limits_workers:
        return "users and key permissions: a worker writes its records, status and events"
    return "users alone, since only Redis 7.0 has key permissions: a worker's password opens all of the run's keys"


@dataclass
class _Process:
    """An actor's process.

    Attributes:
        popen: The process, of which only the end is left where `again_at` is set.
        log_from: Where its part of the actor's log begins, bytes.
        again_at: When it is started again, by the monotonic clock.
    """

    popen: subprocess.Popen[bytes]
    log_from: int
    again_at: float | None = None


@dataclass
class _Restarts:
    """How often each actor, and the server, was started again, and whether it may be once more.

    Attributes:
        most: How many short lives may follow each other.
        counts: Restarts so far.
    """

    most: int
    counts: dict[str, int] = field(default_factory=dict)
    short_lives: dict[str, int] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)

    def began(self, name: str) -> None:
        """Takes note of a start, the first or another."""
        self.started[name] = time.monotonic()

    def pause(self, name: str) -> float | None:
        """How many seconds to wait before starting it again; None: it has died too often."""
        if time.monotonic() - self.started[name] >= LONG_LIFE_SECONDS:
            self.short_lives[name] = 0
        lives = self.short_lives[name] = self.short_lives.get(name, 0) + 1
        if lives > self.most:
            return None
        self.counts[name] = self.counts.get(name, 0) + 1
        return float(min(BACKOFF_SECONDS * 2 ** (lives - 1), LONGEST_BACKOFF_SECONDS))


def _end_of(status: int) -> str:
    """How a process ended, for people, by its exit status."""
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def _was_killed(status: int) -> bool:
    """Whether a signal ended the process, or asked it to end."""
    return status < 0 or status > 128


class _Launch:
    """Starts the actors, looks after them, and ends them."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        data: Prepared,
        url: str,
        server: Server | None,
        watch: Watch,
        stop: threading.Event,
        jobs: int,
    ) -> None:
        self.config, self.folder, self.data, self.url, self.server = config, folder, data, url, server
        self.watch, self.stop, self.jobs = watch, stop, jobs
        # The token keeps two checkouts that do the same run on one server apart.
        place = "/".join(folder.path.parts[-3:])
        self.run_name = folder.read_manifest().get("run_name") or f"{place}-{secrets.token_hex(4)}"
        self.database = RedisDatabase(url, self.run_name)
        self.onlooker = RedisDatabase(url, self.run_name, patient=False)
        self.processes: dict[str, _Process] = {}
        self.restarts = _Restarts(config.cluster.restarts)
        self.away_since: float | None = None
        self.snapshot = Snapshot()

    def run(self) -> None:
        self.folder.update_manifest(
            database=self.database.ping(), database_guard=_guard(self.server), run_name=self.run_name
        )
        try:
            self.restarts.began("database")
            self._set_back()
            self._say_who_may_join()
            for actor in ("monitor", "master", *(f"worker-{index}" for index in range(self.config.worker.count))):
                self._start(actor)
            self._look_after()
        finally:
            self._end_all()
            self._show()
            if self.server is None:
                with contextlib.suppress(IssgdError):
                    self.onlooker.clear("stop")
            self.onlooker.close()
            self.database.close()

    def _set_back(self) -> None:
        """Sets database and folder to the run's beginning, or to its last checkpoint."""
        checkpoint = last_checkpoint(self.folder, self.snapshot.notices)
        set_back(self.database, self.folder, self.config, self.data, checkpoint)

    def _say_who_may_join(self) -> None:
        join = f"issgd worker --run {self.run_name} --database-file FILE"
        if self.server is None:
            self.snapshot.notices.append(f"workers join by: {join}, where FILE holds the database's URL")
        elif self.server.invitation is not None:
            self.snapshot.notices.append(
                f"workers on other machines join by: {join}, where FILE is their copy of {self.server.invitation}"
            )
        if self.server is not None and not self.server.limits_workers:
            self.snapshot.notices.append(f"{self.server.version}: {_guard(self.server)}")

    def _start(self, actor: str) -> None:
        kind, _, index = actor.partition("-")
        command = [sys.executable, "-m", "issgd_cli", kind, "--run", self.run_name, "--data-dir", self.config.data.dir]
        command += ["--index", index] if kind == "worker" else ["--folder", str(self.folder.path)]
        environment = {
            **os.environ,
            # Not on the command line: every user of the machine could read a password there.
            "ISSGD_DATABASE": self.server.worker_url if self.server and kind == "worker" else self.url,
            "ISSGD_LAUNCHER": str(os.getpid()),
            "ISSGD_JOBS": str(self.jobs),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            **ALLOCATION,
        }
        with self.folder.log_of(actor).open("ab") as log:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C at the terminal is for the launcher alone
            )
            self.processes[actor] = _Process(popen, log.tell())
        self.restarts.began(actor)

    def _look_after(self) -> None:
        """Until master and monitor have done their work."""
        shown = 0.0
        while not all(self._is_done(actor) for actor in ("master", "monitor")):
            if self.stop.wait(POLL_SECONDS):
                raise Interrupted
            self.data.refuse_changed()
            if self.server is not None and (status := self.server.process.poll()) is not None:
                self._go_back("database", status)
            for actor in list(self.processes):
                self._look_after_one(actor)
            if time.monotonic() - shown >= WATCH_SECONDS:
                self._show()
                shown = time.monotonic()

    def _look_after_one(self, actor: str) -> None:
        process = self.processes[actor]
        status = process.popen.poll()
        if process.again_at is not None:
            if time.monotonic() >= process.again_at:
                self._start(actor)
        elif not status:  # runs, or is done
            return
        elif actor.startswith("worker") or (actor == "monitor" and _was_killed(status)):
            process.again_at = time.monotonic() + self._pause(actor, status, "starting it again")
        elif _was_killed(status) or status == GONE_STATUS:
            self._go_back(actor, status)
        else:  # it says why, and would do so again
            raise ActorError(actor, f"The {actor} {_end_of(status)}.\n{self._last_words(actor)}")

    def _go_back(self, culprit: str, status: int) -> None:
        """Goes on from the last checkpoint, since with `culprit` what came after it is lost."""
        pause = self._pause(culprit, status, "going back to the last checkpoint")
        for actor in ("master", "monitor"):
            self.processes[actor].popen.kill()
            self.processes[actor].popen.wait()
        if self.stop.wait(pause):
            raise Interrupted
        if self.server is not None and self._server_is_gone():
            self.server.restart()
            self.restarts.began("database")
        self.onlooker.close()
        self.onlooker = RedisDatabase(self.url, self.run_name, patient=False)  # the old one knows an earlier life
        self._set_back()
        for actor in ("monitor", "master"):
            self._start(actor)

    def _pause(self, name: str, status: int, remedy: str) -> float:
        """How many seconds to wait before starting an actor, or the server, again; tells of it.

        Raises:
            ActorError: It has died too often.
        """
        pause = self.restarts.pause(name)
        what = "The database server" if name == "database" else f"The {name}"
        if pause is None:
            hint = HINTS.get(signal.Signals(-status), "") if status < 0 else ""
            often = f" (started {self.restarts.counts[name] + 1} times)" if name in self.restarts.counts else ""
            raise ActorError(name, f"{what} {_end_of(status)}{hint}{often}.\n{self._last_words(name)}")
        self._notice(f"{name} {_end_of(status)}; {remedy}")
        self.folder.update_manifest(restarts=self.restarts.counts)
        return pause

    def _notice(self, line: str) -> None:
        if len(self.snapshot.notices) < MOST_NOTICES:
            self.snapshot.notices.append(line)

    def _server_is_gone(self) -> bool:
        return self.server is not None and self.server.process.poll() is not None

    def _is_done(self, actor: str) -> bool:
        return self.processes[actor].popen.poll() == 0

    def _last_words(self, actor: str) -> str:
        """The end of its log, or what it told the database where a full disk has no room for a log."""
        log, process = self.folder.log_of(actor), self.processes.get(actor)
        lines: list[str] = []
        with contextlib.suppress(OSError), log.open("rb") as file:
            file.seek(process.log_from if process is not None else 0)
            lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
        if not lines:
            self._look()
            lines = self.snapshot.statuses.get(actor, {}).get("notices", [])
        return "\n".join([*(f"  {line}" for line in lines), f"The whole log: {log}"])

    def _look(self) -> None:
        """What the database tells of the run, if it is there."""
        if self._server_is_gone():  # else the client would go on trying for a while
            return
        try:
            moved = self.onlooker.synchronise()
            if moved < -CLOCK_STEP_SECONDS:
                self.database.advance(-moved)
                self._notice(f"the database's clock was set back by {-moved:.0f} s; the run's own goes on")
            self.snapshot.statuses, self.snapshot.seconds = self.onlooker.statuses(), self.onlooker.seconds()
            self._take_notices()
        except GoneError:  # it answers; master or monitor will say so, too
            pass
        except DatabaseError:
            now = time.monotonic()
            self.away_since = self.away_since or now
            if now - self.away_since >= AWAY_SECONDS:
                if not self.snapshot.away:
                    self._notice("the database does not answer; waiting for it, and training as far as that goes")
                self.snapshot.away = now - self.away_since
            return
        if self.snapshot.away and self.away_since is not None:
            self._notice(f"the database answers again, after {time.monotonic() - self.away_since:.0f} s")
        self.away_since, self.snapshot.away = None, 0.0

    def _show(self) -> None:
        self._look()
        for actor, process in self.processes.items():
            running = "restarting" if process.again_at is not None else "running"
            status = process.popen.poll()
            self.snapshot.processes[actor] = (
                running if status is None or process.again_at else ("finished" if status == 0 else "dead")
            )
        self.watch(self.snapshot)

    def _take_notices(self) -> None:
        """What the actors and the database tell of, once each; whoever writes there cannot flood the screen."""
        told = [f"{actor}: {line}" for actor, status in self.snapshot.statuses.items() for line in status["notices"]]
        for notice in [*self.onlooker.complaints(), *told]:
            if notice not in self.snapshot.notices:
                self._notice(notice)

    def _end_all(self) -> None:
        """Master and monitor get a moment to save what they can; workers own nothing."""
        for actor, process in self.processes.items():
            if actor.startswith("worker") or self._server_is_gone():
                process.popen.kill()
            else:
                process.popen.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self.processes.values():
            try:
                process.popen.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()
