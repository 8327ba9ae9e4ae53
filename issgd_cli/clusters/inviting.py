"""How workers on other machines get in: by a file in the run's folder, which no other user can read."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from issgd_cli.clusters.jobs import invitation_of
from issgd_cli.clusters.service import Service
from issgd_cli.errors import RunError
from issgd_cli.runs.folder import RunFolder

INVITATION_SECONDS = 60  # for which a worker waits for it, on a shared file system that is slow to show it


@contextlib.contextmanager
def inviting(folder: RunFolder, service: Service) -> Iterator[None]:
    """Within, the run's folder holds what workers on the job's other nodes get in by; no other user can read it."""
    invitation = service.server.invitation if service.server is not None else None
    if invitation is None:
        raise RunError("The job's server listens on no address.")
    partial = Path(f"{invitation_of(folder)}.partial")
    try:
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(invitation.read_text())
        partial.replace(invitation_of(folder))
        yield
    finally:
        for path in (partial, invitation_of(folder)):
            path.unlink(missing_ok=True)


def invited(folder: RunFolder) -> list[str]:
    """What a worker's command line says of it: an environment, Slurm and Ray keep."""
    return ["--database-file", str(invitation_of(folder)), "--wait", str(INVITATION_SECONDS)]
