"""The local cluster: a Redis server, a master, workers and a monitor, each a process of this machine.

Whoever dies is started again. A worker owns nothing, and a monitor goes on with the trace: each of them alone. With the
master the steps since the last checkpoint are lost, with the server all records: then the run goes back to its last
checkpoint, the database and the folder are set back to it, and master and monitor start anew. Workers, those that
joined from elsewhere too, notice that the run lives anew and join it again.
"""

import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from issgd_cli.clusters.cluster import GONE_STATUS, WATCH_SECONDS, ActorError, Interrupted, Snapshot, Watch
from issgd_cli.clusters.processes import environment
from issgd_cli.clusters.restarts import Process, Restarts, end_of, hint, was_killed
from issgd_cli.clusters.resuming import checkpointed_at, renumbered_checkpoint, set_back
from issgd_cli.config.config import Config
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.redis.connection import PATIENCE_SECONDS
from issgd_cli.database.redis.lifetime import CLOCK_STEP_SECONDS
from issgd_cli.database.server import Server, serving
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import AwayError, DatabaseError, GoneError, IssgdError, RunError
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder

POLL_SECONDS = 0.1
GRACE_SECONDS = 8.0  # for master and monitor to save what they can
AWAY_SECONDS = 2.0  # a server that is silent for so long is told of
LOG_LINES = 12
MOST_NOTICES = 1000


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
        # Impatient: whoever waits for a server here must hear Ctrl-C.
        self.database = RedisDatabase(url, self.run_name, patient=False)
        self.processes: dict[str, Process] = {}
        self.restarts = Restarts(config.cluster.restarts, dict(folder.read_manifest().get("restarts") or {}))
        self.gone_back_to: int | None = None  # when that checkpoint was saved
        self.went_back = 0.0  # when, by the monotonic clock
        self.is_checkpointed = False
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
                    self.database.clear("stop")
            self.database.close()

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
                if self.server is not None and (status := self.server.process.poll()) is not None:
                    self._hold_on("database", status, "starting it again, from the last checkpoint")
                    self.server.restart()
                    self.restarts.began("database")
                    deadline = time.monotonic() + PATIENCE_SECONDS
                checkpoint = renumbered_checkpoint(self.folder, self.config, self.snapshot.notices)
                self.gone_back_to = checkpointed_at(self.folder)
                set_back(self.database, self.folder, self.config, Problem(self.config, self.data), checkpoint)
                return
            except DatabaseError as error:
                killed = self._server_is_gone()  # while it started, or while it was being filled
                if not killed and (not isinstance(error, AwayError) or time.monotonic() > deadline):
                    raise
            if self.stop.wait(POLL_SECONDS):
                raise Interrupted

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
        surroundings = {
            **environment(),
            # Not on the command line: every user of the machine could read a password there.
            "ISSGD_DATABASE": self.server.worker_url if self.server and kind == "worker" else self.url,
            "ISSGD_LAUNCHER": str(os.getpid()),
            "ISSGD_JOBS": str(self.jobs),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }
        with self.folder.log_of(actor).open("ab") as log:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=surroundings,
                start_new_session=True,  # Ctrl-C at the terminal is for the launcher alone
            )
            self.processes[actor] = Process(popen, log.tell())
        self.restarts.began(actor)

    def _look_after(self) -> None:
        """Until master and monitor have done their work."""
        shown = 0.0
        while not all(self._is_done(actor) for actor in ("master", "monitor")):
            if self.stop.wait(POLL_SECONDS):
                raise Interrupted
            self.data.refuse_changed()
            if self._server_is_gone():
                self._go_back()
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
        elif status == 0 and actor.startswith("worker") and self.restarts.started[actor] < self.went_back:
            self._start(actor)  # it took the run for finished before that went back
        elif not status:  # runs, or is done
            return
        elif actor.startswith("worker") or (actor == "monitor" and was_killed(status)):
            process.again_at = time.monotonic() + self._pause(actor, status, "starting it again")
        elif was_killed(status) or status == GONE_STATUS:
            self._hold_on(actor, status, "going back to the last checkpoint")
            self._go_back()
        else:  # it says why, and would do so again
            raise ActorError(actor, f"The {actor} {end_of(status)}.\n{self._last_words(actor)}")

    def _go_back(self) -> None:
        """Goes on from the last checkpoint: with the master, or the server, what came after it is lost."""
        for actor in ("master", "monitor"):
            self.processes[actor].popen.kill()
            self.processes[actor].popen.wait()
        self._set_back()
        self.went_back = time.monotonic()
        for actor in ("monitor", "master"):
            self._start(actor)

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
        goes_back = name in ("master", "database") or status == GONE_STATUS
        forgiven = checkpointed_at(self.folder) != self.gone_back_to if goes_back else self.restarts.lived_long(name)
        pause = self.restarts.pause(name, forgiven)
        if pause is None:
            what = "The database server" if name == "database" else f"The {name}"
            often = f" (started {self.restarts.counts[name] + 1} times)" if name in self.restarts.counts else ""
            raise ActorError(name, f"{what} {end_of(status)}{hint(status)}{often}.\n{self._last_words(name)}")
        self._notice(f"{name} {end_of(status)}; {remedy}")
        with contextlib.suppress(RunError):  # a full disk need not end it
            self.folder.update_manifest(restarts=self.restarts.counts)
        return pause

    def _notice(self, line: str) -> None:
        self.snapshot.notices.append(line)

    def _server_is_gone(self) -> bool:
        return self.server is not None and self.server.process.poll() is not None

    def _is_done(self, actor: str) -> bool:
        return self.processes[actor].popen.poll() == 0

    def _last_words(self, actor: str) -> str:
        """The end of its log, or what it told the database where a full disk has no room for a log."""
        log, process = self.folder.log_of(actor), self.processes.get(actor)
        text = b""
        with contextlib.suppress(OSError), log.open("rb") as file:
            file.seek(process.log_from if process is not None else 0)
            text = file.read()
        lines = text.decode(errors="replace").splitlines()[-LOG_LINES:]
        if not text.endswith(b"\n"):  # nothing, or a line that the disk had no room for the rest of
            self._look()
            lines = self.snapshot.statuses.get(actor, {}).get("notices", []) or lines
        return "\n".join([*(f"  {line}" for line in lines), f"The whole log: {log}"])

    def _look(self) -> None:
        """What the database tells of the run, if it is there."""
        if self._server_is_gone():  # else the client would go on trying for a while
            return
        try:
            moved = self.database.synchronise()
            if moved < -CLOCK_STEP_SECONDS:
                self.database.advance(-moved)
                self._notice(f"the database's clock was set back by {-moved:.0f} s; the run's own goes on")
            self.snapshot.statuses, self.snapshot.seconds = self.database.statuses(), self.database.seconds()
            self._take_notices()
        except AwayError:
            now = time.monotonic()
            self.away_since = self.away_since or now
            if now - self.away_since >= AWAY_SECONDS:
                if not self.snapshot.away:
                    self._notice("the database does not answer; waiting for it, and training as far as that goes")
                self.snapshot.away = now - self.away_since
            return
        except GoneError:  # master or monitor will say so, too
            return
        except DatabaseError as error:
            self._tell_once([str(error)])
        if self.snapshot.away and self.away_since is not None:
            self._notice(f"the database answers again, after {time.monotonic() - self.away_since:.0f} s")
        self.away_since, self.snapshot.away = None, 0.0

    def _show(self) -> None:
        self._look()
        if not self.is_checkpointed and self.folder.checkpoint.exists():
            with contextlib.suppress(RunError):  # on a full disk, later
                self.folder.update_manifest(checkpointed=True)  # a run that never was goes on from its beginning
                self.is_checkpointed = True
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
        self._tell_once([*self.database.complaints(), *told])

    def _tell_once(self, notices: list[str]) -> None:
        for notice in notices:
            if notice not in self.snapshot.notices and len(self.snapshot.notices) < MOST_NOTICES:
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
