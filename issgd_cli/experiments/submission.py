"""A run handed to a scheduler as a job, and watched from elsewhere, by the files in its folder."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from issgd_cli.clusters import batch, live
from issgd_cli.clusters.cluster import Snapshot, Standing, Submission, Watch
from issgd_cli.clusters.jobs import add_job, job_ids, live_of, script_of
from issgd_cli.clusters.resuming import dataset_of, refuse_other_data
from issgd_cli.config.config import Config
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import RunError
from issgd_cli.files import write_text, writing
from issgd_cli.networks import naming
from issgd_cli.runs import folder as runs
from issgd_cli.runs.folder import RunFolder

LOOK_SECONDS = 1.0  # at the folder
ASK_SECONDS = 5.0  # the scheduler, whom all its users ask
SILENT = "Slurm does not say which jobs wait or run. See whether `squeue --me` works, and try again."
GONE_SECONDS = 30.0  # for which a job that has ended may not have told how: the folder is on another machine's disk


def submit(
    config: Config,
    folder: RunFolder,
    submission: Submission,
    *,
    command: list[str],
    resume: bool = False,
    labels: dict[str, str] | None = None,
) -> str:
    """Makes the run's folder and batch script and submits it; the job's id.

    Raises:
        RunError: The folder is in use or not resumable, a job is at it, or the scheduler refuses this one.
        IssgdError: The dataset is not there.
    """
    batch.refuse_unfit(config)
    refuse_at_work(folder, submission)
    queue(config, folder, dataset_of(config), command=command, resume=resume, labels=labels)
    text = batch.script(config, folder, naming.named(config.model.network), Path.cwd())
    with writing(script_of(folder), runs.ELSEWHERE):
        write_text(script_of(folder), text)
    try:  # without the lock, for which the job's head may ask at once
        job = submission.submit(script_of(folder))
    except RunError as error:
        refused(folder, error)
        raise
    add_job(folder, job)
    return job


def queue(
    config: Config,
    folder: RunFolder,
    data: Prepared,
    *,
    command: list[str],
    resume: bool,
    labels: dict[str, str] | None = None,
) -> None:
    """Makes the folder of a run, or makes it ready to go on, in state queued.

    Raises:
        RunError: It is in use, or not resumable.
    """
    with runs.locked(folder.path, "another issgd"):
        refuse_other_data(folder, data)
        runs.begin(folder, config, command, resume, "queued")
        folder.update_manifest(cluster=config.cluster.kind, **(labels or {}))
        with writing(folder.jobs, runs.ELSEWHERE):
            live_of(folder).unlink(missing_ok=True)
            folder.jobs.touch()


def refused(folder: RunFolder, error: RunError) -> None:
    """Notes that the scheduler does not take the run."""
    runs.end(folder, "failed", {"actor": "launcher", "reason": str(error)})


@dataclass
class Outlook:
    """A run that was given to a scheduler, as it is seen from elsewhere: by its folder, and by what the scheduler says.

    Attributes:
        folder: The run's.
        job: The newest of its jobs that waits or runs; None where none does, or nobody knows.
        standing: How that stands.
        gone_at: When it was first seen to have none.
    """

    folder: RunFolder
    job: str | None = None
    standing: Standing | None = None
    gone_at: float | None = None

    def learn(self, known: Mapping[str, Standing] | None, now: float) -> None:
        """Takes in what the scheduler has answered; None: nothing."""
        if known is not None:
            self.job = at_work(self.folder, known)
            self.standing = None if self.job is None else known[self.job]
            self.gone_at = None if self.standing else now if self.gone_at is None else self.gone_at

    def is_over(self, now: float) -> bool:
        """Whether the run has finished.

        Raises:
            RunError: It has failed, or its job has ended before it.
        """
        manifest = self.folder.read_manifest()
        if manifest["state"] == "finished":
            return True
        told = manifest["state"] in ("failed", "interrupted")
        if self.gone_at is not None and (told or now - self.gone_at >= GONE_SECONDS):
            reason = (manifest.get("failure") or {}).get("reason") or "it has ended without a word, perhaps killed"
            raise RunError(f"{reason}\nThe job's log is in {self.folder.logs}. Go on with `--resume`.")
        return False


def at_work(folder: RunFolder, known: Mapping[str, Standing]) -> str | None:
    """The newest of the run's jobs that waits or runs."""
    return next((job for job in reversed(job_ids(folder)) if job in known), None)


def standing(folder: RunFolder, known: Mapping[str, Standing]) -> Standing | None:
    """How it stands; None where none waits or runs."""
    job = at_work(folder, known)
    return None if job is None else known[job]


def refuse_at_work(folder: RunFolder, submission: Submission) -> None:
    """Two never work at the same run.

    Raises:
        RunError: A job of the run waits or runs, or the scheduler does not say so.
    """
    if not job_ids(folder):
        return
    if (known := submission.standings()) is None:
        raise RunError(SILENT)
    if (job := at_work(folder, known)) is not None:
        raise RunError(f"Job {job} is {known[job].state} for {folder.path}. Wait for it, or `scancel {job}` first.")


def watch(folder: RunFolder, submission: Submission, show: Watch, stop: threading.Event) -> bool:
    """Shows the run until it is over; whether it is: False where `stop` was set.

    Raises:
        RunError: It has failed, or its job has ended before it.
    """
    told: list[str] = []
    outlook, waited, asked = Outlook(folder), 0.0, -ASK_SECONDS
    while True:
        if waited - asked >= ASK_SECONDS:
            asked = waited
            outlook.learn(submission.standings(), waited)
            found = outlook.standing
            line = f"job {outlook.job} is {found.state}{f' ({found.reason})' if found.reason else ''}" if found else ""
            if line and line not in told[-1:]:
                told.append(line)
        if outlook.is_over(waited):
            return True
        snapshot = live.read(folder) or Snapshot()
        snapshot.notices = [*told, *snapshot.notices]
        show(snapshot)
        if stop.wait(LOOK_SECONDS):
            return False
        waited += LOOK_SECONDS
