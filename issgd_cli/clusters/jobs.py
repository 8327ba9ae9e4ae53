"""The jobs that a run was given to."""

from issgd_cli.runs.folder import RunFolder


def job_ids(folder: RunFolder) -> list[str]:
    """The jobs that a run was given to, oldest first; none where it was none."""
    try:
        lines = folder.jobs.read_text(errors="replace").splitlines()
    except OSError:
        return []
    ids = [line.partition(";")[0].strip() for line in lines]
    return [job for job in ids if job.isdecimal()]
