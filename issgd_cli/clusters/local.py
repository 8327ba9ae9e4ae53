"""The local cluster: a Redis server, a master, workers and a monitor, each a process of this machine."""

import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from issgd_cli.clusters.launch import (
    ALLOCATION,
    WATCH_SECONDS,
    ActorError,
    Interrupted,
    Snapshot,
    Watch,
    last_checkpoint,
    set_back,
)
from issgd_cli.config import Config
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.server import Server, serving
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import IssgdError
from issgd_cli.runs import RunFolder

POLL_SECONDS = 0.1
GRACE_SECONDS = 8.0  # for master and monitor to save what they can
RESTARTS = 5  # of one worker that never lives long
LONG_LIFE_SECONDS = 60.0
BACKOFF_SECONDS = 0.5
LOG_LINES = 12
MOST_NOTICES = 200


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
    """An actor's process and how often it was started."""

    popen: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)
    starts: int = 1  # the last ones, without a minute of life between them
    again_at: float | None = None  # when a dead one is started again


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
        self.snapshot = Snapshot()

    def run(self) -> None:
        self.folder.update_manifest(
            database=self.database.ping(), database_guard=_guard(self.server), run_name=self.run_name
        )
        try:
            set_back(self.database, self.folder, self.config, self.data, last_checkpoint(self.folder))
            self._say_who_may_join()
            for actor in ("monitor", "master", *(f"worker-{index}" for index in range(self.config.worker.count))):
                self.processes[actor] = _Process(self._start(actor))
            self._look_after()
        finally:
            self._end_all()
            self._show()
            if self.server is None:
                with contextlib.suppress(IssgdError):
                    self.onlooker.clear("stop")
            self.onlooker.close()
            self.database.close()

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

    def _start(self, actor: str) -> subprocess.Popen[bytes]:
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
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C at the terminal is for the launcher alone
            )

    def _look_after(self) -> None:
        """Until master and monitor have done their work."""
        shown = 0.0
        while not all(self._is_done(actor) for actor in ("master", "monitor")):
            if self.stop.wait(POLL_SECONDS):
                raise Interrupted
            if self.server is not None and self._server_is_gone():
                raise ActorError(
                    "database",
                    f"The database server ended (status {self.server.process.returncode}).\n"
                    f"{self._last_lines('database')}",
                )
            for actor, process in self.processes.items():
                self._look_after_one(actor, process)
            if time.monotonic() - shown >= WATCH_SECONDS:
                self._show()
                shown = time.monotonic()

    def _look_after_one(self, actor: str, process: _Process) -> None:
        status = process.popen.poll()
        if process.again_at is not None:
            if time.monotonic() >= process.again_at:
                process.popen, process.again_at = self._start(actor), None
                process.started = time.monotonic()
            return
        if not status:  # runs, or is done
            return
        if time.monotonic() - process.started >= LONG_LIFE_SECONDS:
            process.starts = 1
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        if not actor.startswith("worker") or process.starts > RESTARTS:
            often = f" (started {process.starts} times)" if process.starts > 1 else ""
            raise ActorError(actor, f"The {actor} {how}{often}.\n{self._last_lines(actor)}")
        process.again_at = time.monotonic() + BACKOFF_SECONDS * 2 ** (process.starts - 1)
        process.starts += 1
        self.snapshot.notices.append(f"{actor} {how}; starting it again")

    def _server_is_gone(self) -> bool:
        return self.server is not None and self.server.process.poll() is not None

    def _is_done(self, actor: str) -> bool:
        return self.processes[actor].popen.poll() == 0

    def _last_lines(self, actor: str) -> str:
        """The end of an actor's log, and where the rest is."""
        log = self.folder.log_of(actor)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join([*(f"  {line}" for line in lines[-LOG_LINES:]), f"The whole log: {log}"])

    def _show(self) -> None:
        if not self._server_is_gone():  # else the client would go on trying for half a minute
            with contextlib.suppress(IssgdError):
                self.snapshot.statuses = self.onlooker.statuses()
                self.snapshot.seconds = self.onlooker.seconds()
                self._take_notices()
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
            if notice not in self.snapshot.notices and len(self.snapshot.notices) < MOST_NOTICES:
                self.snapshot.notices.append(notice)

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
