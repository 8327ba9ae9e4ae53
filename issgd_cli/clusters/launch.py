"""What the launch of a run needs on any cluster: its data, where it goes on from, and what can be seen of it."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from issgd_cli import datasets
from issgd_cli.config.config import Config
from issgd_cli.database import SPLITS, Database, Layout
from issgd_cli.datasets.prepared import Prepared, verify
from issgd_cli.errors import RunError
from issgd_cli.problem import Problem
from issgd_cli.runs import cutting
from issgd_cli.runs.checkpoints import Checkpoint, load_checkpoint, recover, refuse_other
from issgd_cli.runs.folder import RunFolder

WATCH_SECONDS = 0.5
GONE_STATUS = 75  # an actor's exit status: the run has left the database, and can be set back to its checkpoint

# For the environment of processes that compute: keeps glibc from handing back and faulting in again the same megabytes
# at every step, 14% of a CPU step.
ALLOCATION = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}


def environment() -> dict[str, str]:
    """Of a process of ours: it imports what we do, from where we do, and nothing that lies in the current folder."""
    ours = [path for path in sys.path if os.path.isabs(path) and os.path.exists(path) and os.pathsep not in path]
    home = str(Path(__file__).parents[2])  # for a checkout that was never installed
    paths = ours if home in ours else [*ours, home]
    return {**os.environ, **ALLOCATION, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}


@dataclass
class Snapshot:
    """What can be seen of a run while it goes on; the screen draws nothing else.

    Attributes:
        seconds: Since the run's start, by its own clock.
        pace: Seconds of that clock in a real one: 1 but on a virtual clock; 0 before it is known.
        away: For how many seconds the database has not answered; 0 while it does.
        statuses: The newest of each actor.
        processes: Actor -> running, restarting, finished, dead.
        notices: What happened that a user should know, oldest first.
    """

    seconds: float = 0.0
    pace: float = 1.0
    away: float = 0.0
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    processes: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


Watch = Callable[[Snapshot], None]


class ActorError(RunError):
    """An actor ended otherwise than it should."""

    def __init__(self, actor: str, message: str) -> None:
        super().__init__(message)
        self.actor = actor


class Interrupted(Exception):  # noqa: N818 - no error of anybody's
    """The caller said stop."""


def dataset_of(config: Config) -> Prepared:
    """The dataset that a configuration names, refused if it was prepared with another split.

    Raises:
        DataError: It is not there, or another.
    """
    return datasets.load(
        config.data.name,
        Path(config.data.dir),
        config.data.train_size,
        validation_fraction=config.data.validation_fraction,
        split_seed=config.data.split_seed,
    )


def refuse_other_data(folder: RunFolder, data: Prepared) -> None:
    """A run goes on with the examples that it was started with, and stands beside runs on the same ones.

    Raises:
        RunError: The folder's run was started on another dataset of this name.
        DataError: The dataset's files have been changed since.
    """
    noted = folder.read_manifest().get("dataset") or {} if folder.manifest.exists() else {}
    before = noted.get("fingerprint")
    if before not in (None, data.fingerprint):
        raise RunError(
            f"{folder.path} was run on other data: {data.name} has been prepared anew since (fingerprint "
            f"{data.fingerprint[:12]}, then {before!s:.12}). Prepare it as it was, or choose another `--results-dir`."
        )
    if noted.get("files") not in (None, data.stamps):  # put back from a copy, or changed: only the content tells
        verify(data.directory)


def last_checkpoint(folder: RunFolder, notices: list[str]) -> Checkpoint | None:
    """Where the run goes on from; None: from its beginning. Adds to `notices` what was wrong with a newer one."""
    notices += recover(folder.checkpoint)
    if folder.checkpoint.exists():
        return load_checkpoint(folder.checkpoint)
    if folder.manifest.exists() and folder.read_manifest().get("checkpointed"):
        raise RunError(
            f"{folder.checkpoint} is gone, and so is the one before it. Put it back, or remove the run's folder and "
            "start it again."
        )
    return None


def set_back(
    database: Database, folder: RunFolder, config: Config, problem: Problem, checkpoint: Checkpoint | None
) -> None:
    """Sets the database to the run's start, or to its checkpoint, and cuts back to it what the folder holds."""
    data = problem.data
    layout = Layout(**data.sizes, chunk_size=config.worker.chunk_size)
    if checkpoint is not None:
        refuse_other(folder.checkpoint, checkpoint, layout, problem.size)
    seconds, step = (0.0, 0) if checkpoint is None else (checkpoint.seconds, checkpoint.step)
    if checkpoint is None or not checkpoint.moment:  # else the simulated cluster cuts, to the bit
        cutting.drop_from(folder.trace, step)
        cutting.drop_events_from(folder.events, seconds)
    for path in folder.audits.glob("step-*.npz"):
        # An exact run would save the same again; a relaxed one something else.
        number = path.stem.removeprefix("step-")
        if not number.isdecimal() or int(number) > step:
            path.unlink()
    records = {split: layout.empty(split) for split in SPLITS} if checkpoint is None else checkpoint.records
    database.begin(layout, seconds, records)
    if checkpoint is not None and checkpoint.proposal:
        database.put("proposal", checkpoint.proposal)
    if checkpoint is not None and checkpoint.work:
        database.put("work", {"before": checkpoint.work})
    # Written last: an actor that finds it finds the rest.
    description = {
        "config": config.model_dump(mode="json", exclude_none=True, exclude={"database"}),
        "dataset": data.fingerprint,
        "model": problem.fingerprint,
        "resumed": checkpoint is not None,
    }
    database.put("description", description)
