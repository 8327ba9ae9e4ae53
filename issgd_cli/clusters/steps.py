"""A job's actors: master and monitor as processes beside the head, each worker a step of the job, by srun."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from issgd_cli.clusters.batch import step_options
from issgd_cli.clusters.cluster import Handle, arguments
from issgd_cli.clusters.inviting import invited
from issgd_cli.clusters.processes import Processes, process_environment, text_of
from issgd_cli.config.config import Config
from issgd_cli.runs.folder import RunFolder

# What a step inherits of the one that it is started from; the rest, the head's own share, would become its.
KEPT = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTER_NAME")


@dataclass
class Step:
    """See Handle: srun stands for its task, and hands signals on to it.

    Attributes:
        srun: The process.
        log: The actor's.
        log_from: Where this life's part of it begins, bytes.
        is_told: Whether srun was told to kill its task.
    """

    srun: subprocess.Popen[bytes]
    log: Path
    log_from: int
    is_told: bool = False

    def poll(self) -> int | None:
        return self.srun.poll()

    def end(self) -> None:
        self.srun.terminate()

    def kill(self) -> None:
        """By srun, which kills its task at a SIGQUIT; told once more, srun itself: what is left ends with the job."""
        self.srun.send_signal(signal.SIGKILL if self.is_told else signal.SIGQUIT)
        self.is_told = True

    def last_words(self) -> str:
        return text_of(self.log, self.log_from)


@dataclass(frozen=True)
class Steps:
    """Starts a run's actors within its job; see Launcher.

    Attributes:
        config: Of the run.
        folder: Its folder, where workers find their invitation.
        beside: Starts those that live where we do.
        model: See `arguments`.
    """

    config: Config
    folder: RunFolder
    beside: Processes
    model: str | None = None

    def start(self, actor: str, environment: Mapping[str, str]) -> Handle:
        cores = self.config.cluster.slurm.cpus_per_task
        if not actor.startswith("worker"):  # with whom the server shares
            return self.beside.start(actor, {**environment, "ISSGD_CORES": str(max(1, cores - 1))})
        words = arguments(actor, self.beside.run_name, self.beside.data_dir, self.folder.path, self.model)
        log = self.folder.log_of(actor)
        with log.open("ab") as output:
            start = output.tell()
            srun = subprocess.Popen(
                ["srun", *step_options(self.config), sys.executable, "-m", "issgd_cli", *words, *invited(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**step_environment(process_environment()), "ISSGD_CORES": str(cores)},
                start_new_session=True,
            )
            return Step(srun, log, start)


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What srun is given: where the job is, and nothing of the step that we are, nor of anybody's database."""
    ours = {name: value for name, value in environment.items() if name not in ("ISSGD_DATABASE", "ISSGD_LAUNCHER")}
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        **{name: value for name, value in ours.items() if not name.startswith(("SLURM_", "SRUN_")) or name in KEPT},
    }
