"""The jobs that a run was given to, and what its folder holds for them."""

from pathlib import Path

from issgd_cli.runs.folder import RunFolder


def job_ids(folder: RunFolder) -> list[str]:
    """The jobs that a run was given to, oldest first; none where it was none."""
    try:
        lines = folder.jobs.read_text(errors="replace").splitlines()
    except OSError:
        return []
    ids = [line.partition(";")[0].strip() for line in lines]
    return [job for job in ids if job.isdecimal()]


def script_of(folder: RunFolder) -> Path:
    """The batch script that the scheduler was given."""
    return folder.path / "job.sh"


def live_of(folder: RunFolder) -> Path:
    """What can be seen of the run while a job is at it, rewritten twice a second."""
    return folder.path / "live.json"


def invitation_of(folder: RunFolder) -> Path:
    """The database's URL for the job's workers, this user's alone; there while the job's server is."""
    return folder.path / "worker-database"
