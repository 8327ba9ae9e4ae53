"""What can be seen of a run, by a file in its folder: whoever watches from another machine sees what its head does."""

import json
import math
from dataclasses import asdict, fields
from typing import Any

from issgd_cli.clusters.cluster import Snapshot
from issgd_cli.clusters.jobs import live_of
from issgd_cli.database.documents import UnfitError, read_status
from issgd_cli.errors import RunError
from issgd_cli.files import replacing
from issgd_cli.runs.folder import RunFolder

LONGEST = 2**24


def write(folder: RunFolder, snapshot: Snapshot) -> None:
    """Replaces what was to be seen; nothing of the run hangs on it, so a full disk is no matter."""
    try:
        with replacing(live_of(folder)) as file:
            file.write(json.dumps(asdict(snapshot)).encode())
    except OSError:
        return


def read(folder: RunFolder) -> Snapshot | None:
    """What is to be seen; None where there is nothing, or nothing that is whole."""
    try:
        with live_of(folder).open("rb") as file:
            text = file.read(LONGEST + 1)
        values = json.loads(text) if len(text) <= LONGEST else None
        return _checked(values)
    except (OSError, ValueError, RecursionError, UnfitError, RunError):
        return None


def _checked(values: Any) -> Snapshot | None:
    if not isinstance(values, dict) or set(values) != {field.name for field in fields(Snapshot)}:
        return None
    seconds, pace, away = (values[name] for name in ("seconds", "pace", "away"))
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in (seconds, pace, away)):
        return None
    statuses, processes, notices = (values[name] for name in ("statuses", "processes", "notices"))
    if not (isinstance(statuses, dict) and isinstance(processes, dict) and isinstance(notices, list)):
        return None
    if not all(isinstance(text, str) for text in (*processes.values(), *notices)):
        return None
    checked = {actor: read_status(json.dumps(status).encode()) for actor, status in statuses.items()}
    return Snapshot(seconds, pace, away, checked, processes, notices)
