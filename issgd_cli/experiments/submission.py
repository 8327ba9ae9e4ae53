"""A run handed to a scheduler as a job, and watched from elsewhere, by the files in its folder."""

import threading
from pathlib import Path

from issgd_cli.clusters import batch, live
from issgd_cli.clusters.cluster import Snapshot, Standing, Submission, Watch
from issgd_cli.clusters.jobs import job_ids, live_of, script_of
from issgd_cli.clusters.resuming import dataset_of, refuse_other_data
from issgd_cli.config.config import Config
from issgd_cli.errors import RunError
from issgd_cli.files import write_text, writing
from issgd_cli.networks import naming
from issgd_cli.runs import folder as runs
from issgd_cli.runs.folder import RunFolder

LOOK_SECONDS = 1.0  # at the folder
ASK_SECONDS = 5.0  # the scheduler, whom all its users ask
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
    data = dataset_of(config)
    refuse_at_work(folder, submission)
    with runs.locked(folder.path, "another issgd"):
        refuse_other_data(folder, data)
        runs.begin(folder, config, command, resume, "queued")
        folder.update_manifest(cluster=config.cluster.kind, **(labels or {}))
        text = batch.script(config, folder, naming.named(config.model.network), Path.cwd())
        with writing(script_of(folder), runs.ELSEWHERE):
            write_text(script_of(folder), text)
            live_of(folder).unlink(missing_ok=True)
            folder.jobs.touch()
    try:  # without the lock, for which the job's head may ask at once
        job = submission.submit(script_of(folder))
    except RunError as error:
        runs.end(folder, "failed", {"actor": "launcher", "reason": str(error)})
        raise
    with writing(folder.jobs), folder.jobs.open("a") as file:
        file.write(f"{job}\n")
    return job


def standing(folder: RunFolder, submission: Submission) -> Standing | None:
    """How the newest of the run's jobs stands; None where none waits or runs, or nobody knows."""
    if not (ids := job_ids(folder)):
        return None
    known = submission.standings() or {}
    return next((known[job] for job in reversed(ids) if job in known), None)


def refuse_at_work(folder: RunFolder, submission: Submission) -> None:
    """Two never work at the same run.

    Raises:
        RunError: A job of the run waits or runs.
    """
    if (found := standing(folder, submission)) is not None:
        job = job_ids(folder)[-1]
        raise RunError(f"Job {job} is {found.state} for {folder.path}. Wait for it, or `scancel {job}` first.")


def watch(folder: RunFolder, submission: Submission, show: Watch, stop: threading.Event) -> bool:
    """Shows the run until it is over; whether it is: False where `stop` was set.

    Raises:
        RunError: It has failed, or its job has ended before it.
    """
    told: list[str] = []
    asked = gone = 0.0
    waited = 0.0
    found: Standing | None = None
    while True:
        if waited - asked >= ASK_SECONDS or not waited:
            asked, known = waited, submission.standings()
            if known is not None:
                ids = job_ids(folder)
                found = next((known[job] for job in reversed(ids) if job in known), None)
                gone = 0.0 if found else gone or max(waited, LOOK_SECONDS)
                job = ids[-1] if ids else ""
                line = f"job {job} is {found.state}{f' ({found.reason})' if found.reason else ''}" if found else ""
                if line and line not in told[-1:]:
                    told.append(line)
        manifest = folder.read_manifest()
        if manifest["state"] == "finished":
            return True
        if gone and (manifest["state"] in ("failed", "interrupted") or waited - gone >= GONE_SECONDS):
            reason = (manifest.get("failure") or {}).get("reason") or "it has ended without a word, perhaps killed"
            raise RunError(f"{reason}\nThe job's log is in {folder.logs}. Go on with `--resume`.")
        snapshot = live.read(folder) or Snapshot()
        snapshot.notices = [*told, *snapshot.notices]
        show(snapshot)
        if stop.wait(LOOK_SECONDS):
            return False
        waited += LOOK_SECONDS
