"""Where a run goes on from: its dataset, its last checkpoint, and the database and folder set back to that."""

from pathlib import Path

from issgd_cli import datasets
from issgd_cli.actors.saving import RESERVED_VERSIONS
from issgd_cli.config.config import Config
from issgd_cli.database import SPLITS, Database, Layout
from issgd_cli.datasets.prepared import Prepared, verify
from issgd_cli.errors import RunError
from issgd_cli.problem import Problem
from issgd_cli.runs import cutting
from issgd_cli.runs.checkpoints import Checkpoint, load_checkpoint, recover, refuse_other, save_checkpoint
from issgd_cli.runs.folder import RunFolder


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
        label_noise=config.data.label_noise,
        imbalance=config.data.imbalance,
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


def renumbered_checkpoint(folder: RunFolder, config: Config, notices: list[str]) -> Checkpoint | None:
    """`last_checkpoint`, its versions, and the file's, above all that a newer one may have reserved which was lost."""
    told = len(notices)
    checkpoint = last_checkpoint(folder, notices)
    if checkpoint is not None and len(notices) > told and config.master.mode == "relaxed":
        # The newer one, which cannot be read, had reserved versions above this one's.
        checkpoint = checkpoint.renumbered(RESERVED_VERSIONS)
        save_checkpoint(folder.checkpoint, checkpoint)
    return checkpoint


def checkpointed_at(folder: RunFolder) -> int | None:
    """When the newest checkpoint was saved, in nanoseconds; None before the first."""
    try:
        return folder.checkpoint.stat().st_mtime_ns
    except OSError:
        return None


def set_back(
    database: Database, folder: RunFolder, config: Config, problem: Problem, checkpoint: Checkpoint | None
) -> None:
    """Sets the database to the run's start, or to its checkpoint, and cuts back to it what the folder holds."""
    data = problem.data
    layout = Layout(**data.sizes, chunk_size=config.worker.chunk_size)
    if checkpoint is not None:
        refuse_other(folder.checkpoint, checkpoint, layout, problem.size, problem.trained_size)
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
