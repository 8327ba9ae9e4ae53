"""The local cluster: a Redis server, a master, workers and a monitor, each a process of this machine."""

import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from issgd_cli import datasets, runs, traces
from issgd_cli.checkpoints import load_checkpoint
from issgd_cli.config import Config
from issgd_cli.database import SPLITS, Layout
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.server import Server, serving
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import ConfigError, IssgdError, RunError
from issgd_cli.models.mlp import fingerprint
from issgd_cli.runs import RunFolder

POLL_SECONDS = 0.1
WATCH_SECONDS = 0.5
GRACE_SECONDS = 8.0  # for master and monitor to save what they can
RESTARTS = 5  # of one worker that never lives long
LONG_LIFE_SECONDS = 60.0
BACKOFF_SECONDS = 0.5
LOG_LINES = 12


@dataclass
class Snapshot:
    """What can be seen of a run while it goes on; the screen draws nothing else.

    Attributes:
        seconds: Since the run's start.
        statuses: The newest of each actor.
        processes: Actor -> running, restarting, finished.
        notices: What happened that a user should know, oldest first.
    """

    seconds: float = 0.0
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    processes: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


Watch = Callable[[Snapshot], None]


def train(
    config: Config,
    folder: RunFolder,
    *,
    command: list[str],
    resume: bool = False,
    watch: Watch = lambda snapshot: None,
    stop: threading.Event | None = None,
    labels: dict[str, str] | None = None,
    jobs: int = 1,
) -> None:
    """One run, from its beginning or its checkpoint to its end.

    Args:
        config: Of the run.
        folder: Where it is written.
        command: What to note in the manifest as the command line.
        resume: Go on with an unfinished run.
        watch: Called about twice a second.
        stop: Set by the caller to interrupt the run; it then ends within seconds, as interrupted.
        labels: More for the manifest: the experiment's setting and method.
        jobs: How many runs share this machine, and so its cores.

    Raises:
        RunError: The folder is in use or not resumable, an actor failed, or the run was interrupted.
        IssgdError: The dataset or the database is not there.
    """
    if config.master.mode == "exact" and config.worker.count == 0 and not config.database.url:
        raise ConfigError("Exact mode waits for workers, worker.count is 0, and without --database none can join.")
    data = dataset_of(config)
    with runs.locked(folder.path, "another issgd"):
        refuse_other_data(folder, data)
        runs.begin(folder, config, command, resume)
        folder.update_manifest(
            dataset={"name": config.data.name, "fingerprint": data.fingerprint, **data.sizes},
            **(labels or {}),
        )
        try:
            with _database(config, folder) as (url, server):
                _Launch(config, folder, data, url, server, watch, stop or threading.Event(), jobs).run()
        except _Interrupted:
            runs.end(folder, "interrupted", {"actor": "launcher", "reason": "interrupted"})
            raise RunError(f"Interrupted. Go on with `--resume`; the trace so far is in {folder.trace}.") from None
        except BaseException as error:
            actor = error.actor if isinstance(error, ActorError) else "launcher"
            with contextlib.suppress(OSError):  # the disk may be full
                runs.end(folder, "failed", {"actor": actor, "reason": str(error) or type(error).__name__})
            raise
        runs.end(folder, "finished")


def dataset_of(config: Config) -> Prepared:
    """The dataset that a configuration names, refused if it was prepared with another split.

    Raises:
        DataError: It is not there, or another.
    """
    return datasets.load(
        config.data.name,
        Path(config.data.dir),
        config.data.train_size,
        validation_fraction=config.data.validation_fraction,
        split_seed=config.data.split_seed,
    )


def refuse_other_data(folder: RunFolder, data: Prepared) -> None:
    """A run goes on with the examples that it was started with, and stands beside runs on the same ones.

    Raises:
        RunError: The folder's run was started on another dataset of this name.
    """
    before = folder.read_manifest().get("dataset", {}).get("fingerprint") if folder.manifest.exists() else None
    if before not in (None, data.fingerprint):
        raise RunError(
            f"{folder.path} was run on other data: {data.name} has been prepared anew since (fingerprint "
            f"{data.fingerprint[:12]}, then {before[:12]}). Prepare it as it was, or choose another `--results-dir`."
        )


class ActorError(RunError):
    """An actor ended otherwise than it should."""

    def __init__(self, actor: str, message: str) -> None:
        super().__init__(message)
        self.actor = actor


class _Interrupted(Exception):  # noqa: N818 - no error of anybody's
    pass


@contextlib.contextmanager
def _database(config: Config, folder: RunFolder) -> Iterator[tuple[str, Server | None]]:
    if config.database.url:
        yield config.database.url, None
        return
    with serving(folder.log_of("database")) as server:
        yield server.url, server


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
        self.config, self.folder, self.url, self.server = config, folder, url, server
        self.watch, self.stop, self.jobs = watch, stop, jobs
        # The token keeps two checkouts that do the same run on one server apart.
        place = "/".join(folder.path.parts[-3:])
        self.run_name = folder.read_manifest().get("run_name") or f"{place}-{secrets.token_hex(4)}"
        self.database = RedisDatabase(url, self.run_name)
        self.onlooker = RedisDatabase(url, self.run_name, patient=False)
        self.layout = Layout(**data.sizes, chunk_size=config.worker.chunk_size)
        self.description = {
            "config": config.model_dump(mode="json", exclude_none=True, exclude={"database"}),
            "dataset": data.fingerprint,
            "model": fingerprint(data.features, config.model.hidden, data.classes),
        }
        self.processes: dict[str, _Process] = {}
        self.snapshot = Snapshot()

    def run(self) -> None:
        self.folder.update_manifest(database=self.database.ping(), run_name=self.run_name)
        try:
            self._begin()
            if self.server is None:
                self.snapshot.notices.append(f"workers join by: issgd worker --database URL --run {self.run_name}")
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

    def _begin(self) -> None:
        """Sets the database to the run's start, or to its checkpoint; cuts the trace back to it."""
        resumed = self.folder.checkpoint.exists()
        if resumed:
            checkpoint = load_checkpoint(self.folder.checkpoint)
            seconds, records, step = checkpoint.seconds, checkpoint.records, checkpoint.step
        else:
            seconds, records, step = 0.0, {split: self.layout.empty(split) for split in SPLITS}, 0
        traces.drop_from(self.folder.trace, step)
        traces.drop_events_from(self.folder.events, seconds)
        for path in self.folder.audits.glob("step-*.npz"):
            # An exact run would save the same again; a relaxed one something else.
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()
        self.database.begin(self.layout, seconds, records)
        if resumed and checkpoint.proposal:
            self.database.put("proposal", checkpoint.proposal)
        # Written last: an actor that finds it finds the rest.
        self.database.put("description", {**self.description, "resumed": resumed})

    def _start(self, actor: str) -> subprocess.Popen[bytes]:
        kind, _, index = actor.partition("-")
        command = [sys.executable, "-m", "issgd_cli", kind, "--run", self.run_name, "--data-dir", self.config.data.dir]
        command += ["--index", index] if kind == "worker" else ["--folder", str(self.folder.path)]
        environment = {
            **os.environ,
            # Not on the command line: every user of the machine could read a password there.
            "ISSGD_DATABASE": self.url,
            "ISSGD_LAUNCHER": str(os.getpid()),
            "ISSGD_JOBS": str(self.jobs),
            "ISSGD_OWN_SERVER": "1" if self.server else "0",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            # Keeps glibc from handing back and faulting in again the same megabytes at every step: 14% of a CPU step.
            "MALLOC_MMAP_THRESHOLD_": "1073741824",
            "MALLOC_TRIM_THRESHOLD_": "4294967296",
            "MALLOC_TOP_PAD_": "67108864",
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
                raise _Interrupted
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
        for actor, process in self.processes.items():
            running = "restarting" if process.again_at is not None else "running"
            status = process.popen.poll()
            self.snapshot.processes[actor] = (
                running if status is None or process.again_at else ("finished" if status == 0 else "dead")
            )
        self.watch(self.snapshot)

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
