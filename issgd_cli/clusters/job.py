"""A run within its Slurm job: the head's part, which is the local cluster's, but that workers are steps of the job."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Mapping

from issgd_cli.clusters.cluster import Snapshot, Watch
from issgd_cli.clusters.inviting import inviting
from issgd_cli.clusters.jobs import add_job, head_of, job_ids
from issgd_cli.clusters.live import write
from issgd_cli.clusters.processes import Processes
from issgd_cli.clusters.service import opened
from issgd_cli.clusters.slurm import Slurm, address, nodes
from issgd_cli.clusters.steps import Steps
from issgd_cli.clusters.supervisor import GRACE_SECONDS, Supervisor
from issgd_cli.config.config import Config
from issgd_cli.errors import RunError
from issgd_cli.files import write_text, writing
from issgd_cli.locks import forget
from issgd_cli.networks import naming
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder

LOCK_SECONDS = 120.0  # a file server keeps the locks of a machine that has died for a while: NFS for 90 s unless set


def run(config: Config, folder: RunFolder, problem: Problem, watch: Watch, stop: threading.Event) -> None:
    """The whole run, or what this job sees of it; see `experiments.run.train`, which this is a part of.

    Raises:
        ActorError: An actor or the server has ended before its time.
        Interrupted: `stop` was set.
        IssgdError: This is no job, or the server does not come up.
    """
    note(folder, os.environ)
    listen = config.database.listen or f"{_bracketed(own_address(os.environ))}:0"
    config = config.model_copy(update={"database": config.database.model_copy(update={"listen": listen})})
    model = naming.named(config.model.network)

    def show(snapshot: Snapshot) -> None:
        write(folder, snapshot)
        watch(snapshot)

    with opened(config, folder) as service, inviting(folder, service):
        beside = Processes(service.run_name, folder, config.data.dir, 1, model)
        steps = Steps(config, folder, beside, model)
        Supervisor(config, folder, problem, service, steps, show, stop, lambda: grace_seconds(config, stop)).run()


def grace_seconds(config: Config, stop: threading.Event) -> float:
    """How long a job waits at its end for who saves: where it was warned of that, half of what it has asked for."""
    warned = getattr(stop, "signal_number", None) == signal.SIGUSR2
    return config.cluster.slurm.signal_seconds / 2 if warned else GRACE_SECONDS


def note(folder: RunFolder, environment: Mapping[str, str]) -> None:
    """Takes the job that we are into the run's list, where whoever submitted it by hand did not, and the manifest.

    Raises:
        RunError: We are none.
    """
    add_job(folder, identity(environment))
    folder.update_manifest(jobs=job_ids(folder))


def arrived(folder: RunFolder) -> None:
    """Notes which machine the run's locks are of, as soon as we have the first; see `take_over`."""
    with writing(head_of(folder)):
        write_text(head_of(folder), f"{socket.gethostname()}\n")


def identity(environment: Mapping[str, str]) -> str:
    """The job that this process is a part of; 12_3, where that is one of an array.

    Raises:
        RunError: It is part of none.
    """
    if "SLURM_JOB_ID" not in environment:
        raise RunError("This is no Slurm job. `issgd train --cluster slurm` submits one.")
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


def take_over(folder: RunFolder) -> None:
    """Forgets the locks that an earlier head has left on another machine, where no kernel has dropped them.

    Only where Slurm says that no other job of the run's is at work: of one run's they run one after the other.
    """
    with contextlib.suppress(FileNotFoundError):
        before = head_of(folder).read_text(errors="replace").strip()
        known, ours = Slurm().standings(), identity(os.environ)
        others = {job for job in job_ids(folder) if job != ours}
        if known is not None and not any(job in others and known[job].state == "running" for job in known):
            for place in (folder.path, folder.checkpoint.parent, folder.logs):
                if before != socket.gethostname():
                    forget(place / "lock", before)


def own_address(environment: Mapping[str, str]) -> str:
    """The address from which this machine reaches the job's other nodes; where there are none, nobody else's.

    Raises:
        RunError: Slurm does not say where they are, or the network not how to get there.
    """
    ours = environment.get("SLURMD_NODENAME")
    others = [node for node in nodes(environment) if node != ours]
    if not others:
        return "127.0.0.1"
    there = address(others[0])
    try:
        family, _, _, _, place = socket.getaddrinfo(there, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(place)  # sends nothing: asks for the way
            return str(probe.getsockname()[0])
    except OSError as error:
        raise RunError(
            f"No way from here to the job's node {others[0]} ({there}): {error.strerror}. Name the address of the "
            "head's network by --listen HOST:0, * for all."
        ) from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
