"""The jobs that a run was given to, and what its folder holds for them."""

import re
from pathlib import Path

from issgd_cli.files import writing
from issgd_cli.runs.folder import RunFolder

_ID = re.compile(r"[0-9]+(_[0-9]+)?")  # 12_3: the fourth of the array 12


def job_ids(folder: RunFolder) -> list[str]:
    """The jobs that a run was given to, oldest first; none where it was none."""
    try:
        lines = folder.jobs.read_text(errors="replace").splitlines()
    except OSError:
        return []
    ids = [line.partition(";")[0].strip() for line in lines]
    return [job for job in ids if _ID.fullmatch(job)]


def add_job(folder: RunFolder, job: str) -> None:
    """Takes a job into the run's list, where it is not yet: whoever submits it does so, and so does its head.

    Raises:
        RunError: The list cannot be written.
    """
    with writing(folder.jobs), folder.jobs.open("a") as file:
        if job not in job_ids(folder):
            file.write(f"{job}\n")


def script_of(folder: RunFolder) -> Path:
    """The batch script that the scheduler was given."""
    return folder.path / "job.sh"


def live_of(folder: RunFolder) -> Path:
    """What can be seen of the run while a job is at it, rewritten twice a second."""
    return folder.path / "live.json"


def head_of(folder: RunFolder) -> Path:
    """The name of the machine that the newest head is, or was, on."""
    return folder.path / "head"


def invitation_of(folder: RunFolder) -> Path:
    """The database's URL for the job's workers, this user's alone; there while the job's server is."""
    return folder.path / "worker-database"
