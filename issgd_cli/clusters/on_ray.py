"""A run on a Ray cluster: Ray places the workers and restarts them; server, master and monitor are where we are."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from issgd_cli.clusters.cluster import Handle, Watch, arguments
from issgd_cli.clusters.inviting import invited, inviting
from issgd_cli.clusters.processes import Processes, process_environment, text_of
from issgd_cli.clusters.service import opened
from issgd_cli.clusters.supervisor import Supervisor
from issgd_cli.config.config import Config
from issgd_cli.errors import RunError
from issgd_cli.networks import naming
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder

OLDEST = (2, 59)  # from here on a new cluster, which listens on the network, asks for a token
KILLED = -9
BROKEN = 1  # of a worker that could not even be started


def run(config: Config, folder: RunFolder, problem: Problem, watch: Watch, stop: threading.Event) -> None:
    """The whole run; see `experiments.run.train`, which this is a part of.

    Raises:
        ActorError: An actor or the server has ended before its time.
        Interrupted: `stop` was set.
        IssgdError: Ray is not there, or the server does not come up.
    """
    model = naming.named(config.model.network)
    with connected(config) as (ray, here):
        listen = config.database.listen or f"{here}:0"
        config = config.model_copy(update={"database": config.database.model_copy(update={"listen": listen})})
        with opened(config, folder) as service, inviting(folder, service):
            beside = Processes(service.run_name, folder, config.data.dir, 1, model)
            launcher = RayActors(ray, config, folder, beside, model)
            Supervisor(config, folder, problem, service, launcher, watch, stop).run()


@contextlib.contextmanager
def connected(config: Config) -> Iterator[tuple[Any, str]]:
    """Ray, joined to the cluster that is configured, or a new one of this machine; and our address in it.

    Raises:
        RunError: It is not installed, or there is no such cluster, or the new one is too small.
    """
    try:
        import ray
    except ImportError:
        raise RunError("cluster.kind = 'ray' needs Ray. Install it with `pip install 'issgd[ray]'`.") from None
    address = config.cluster.ray.address
    if not address and tuple(map(int, ray.__version__.split(".")[:2])) < OLDEST:
        raise RunError(f"Ray {ray.__version__} asks nobody for a token. Update it by `pip install 'issgd[ray]'`.")
    paths = {"env_vars": {"PYTHONPATH": process_environment()["PYTHONPATH"]}}
    where = {"address": address} if address else {"address": "local", "include_dashboard": False}
    heard = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(**where, runtime_env=paths, log_to_driver=False, configure_logging=False)
    except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise RunError(
            f"No Ray cluster at {address or 'this machine'}: {error}. Start one with `ray start --head`, or leave out "
            "cluster.ray.address."
        ) from None
    if threading.current_thread() is threading.main_thread():
        for number, handler in heard.items():  # which Ray has taken
            signal.signal(number, handler)
    try:
        if not address:
            refuse_too_much(config, ray.cluster_resources())
        yield ray, "127.0.0.1" if not address else str(ray.util.get_node_ip_address())
    finally:
        ray.shutdown()


def refuse_too_much(config: Config, there: Mapping[str, float]) -> None:
    """Workers whom Ray finds no place for wait without a word; a cluster of this machine alone grows by none.

    Raises:
        RunError: There are fewer CPUs or GPUs than they ask for.
    """
    count, ray = config.worker.count, config.cluster.ray
    for what, each in (("CPU", ray.cpus_per_worker), ("GPU", ray.gpus_per_worker)):
        if count * each > (have := there.get(what, 0.0)) + 1e-6:
            key = f"cluster.ray.{what.lower()}s_per_worker"
            raise RunError(
                f"This machine has {have:g} {what}s for Ray, and {count} workers ask for {count * each:g}. Lower "
                f"worker.count or {key}, which may be a fraction, or name a larger cluster by cluster.ray.address."
            )


class Body:
    """What a Ray actor is: it starts a worker's process, which ends with it, and tells how that has ended.

    Ray starts it again, elsewhere if need be, where its machine or its process has died.
    """

    def live(self, words: list[str], environment: dict[str, str], place: str, log: str) -> int:
        """The exit status of the worker's process."""
        ours = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ}  # Ray's share
        with Path(place, log).open("ab") as output:
            process = subprocess.Popen(
                words,
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**environment, **ours, "ISSGD_LAUNCHER": str(os.getpid())},  # with which it ends
            )
        return process.wait()


@dataclass
class RayActor:
    """See Handle.

    Attributes:
        ray: The package.
        actor: A `Body`.
        status: Of its process, once that has ended.
        log: The worker's.
        log_from: Where this life's part of it begins, bytes.
        ended: With what; None until that was asked for.
    """

    ray: Any
    actor: Any
    status: Any
    log: Path
    log_from: int
    ended: int | None = None

    def poll(self) -> int | None:
        if self.ended is None and self.ray.wait([self.status], timeout=0)[0]:
            self.ended = self._end()
        return self.ended

    def _end(self) -> int:
        try:
            return int(self.ray.get(self.status))
        except self.ray.exceptions.RayTaskError as error:  # its node does not see our folders, for instance
            with contextlib.suppress(OSError), self.log.open("a") as log:
                log.write(f"On its node: {error.cause}\n")
            return BROKEN
        except self.ray.exceptions.RayError:  # it was killed, by us or oftener than Ray starts it again
            return KILLED

    def end(self) -> None:
        """It owns nothing that it could save."""
        self.kill()

    def kill(self) -> None:
        self.ray.kill(self.actor, no_restart=True)

    def last_words(self) -> str:
        return text_of(self.log, self.log_from)


@dataclass(frozen=True)
class RayActors:
    """Starts a run's workers as Ray actors; see Launcher.

    Attributes:
        ray: The package, joined to a cluster.
        config: Of the run.
        folder: Its folder, where workers find their invitation.
        beside: Starts those that live where we do.
        model: See `arguments`.
    """

    ray: Any
    config: Config
    folder: RunFolder
    beside: Processes
    model: str | None = None

    def start(self, actor: str, environment: Mapping[str, str]) -> Handle:
        if not actor.startswith("worker"):
            return self.beside.start(actor, environment)
        asked, restarts, log = self.config.cluster.ray, self.config.cluster.restarts, self.folder.log_of(actor)
        words = arguments(actor, self.beside.run_name, self.beside.data_dir, self.folder.path, self.model)
        options = {
            "num_cpus": asked.cpus_per_worker,
            "num_gpus": asked.gpus_per_worker,
            "max_restarts": restarts,
            "max_task_retries": restarts,  # what a restarted actor does is what it did: it lives
            "scheduling_strategy": "SPREAD",  # over the nodes
        }
        log.touch()
        start = log.stat().st_size
        body = self.ray.remote(Body).options(**options).remote()
        status = body.live.remote(
            [sys.executable, "-m", "issgd_cli", *words, *invited(self.folder)],
            {**worker_environment(process_environment()), "ISSGD_CORES": str(max(1, int(asked.cpus_per_worker)))},
            os.getcwd(),
            str(log),
        )
        return RayActor(self.ray, body, status, log, start)


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a worker's process is given, on any machine: how it finds Python, and that us; and nobody's database."""
    kept = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "PYTHONSAFEPATH")
    ours = {name: value for name, value in environment.items() if name in kept or name.startswith("MALLOC_")}
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **ours}
