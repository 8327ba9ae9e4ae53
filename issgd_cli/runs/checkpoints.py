"""What a run goes on from: its newest checkpoint, and the one before it, which `recover` goes back to."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from issgd_cli.database import SPLITS, Layout, Records, Split
from issgd_cli.database.documents import read_topic
from issgd_cli.database.records import FIELDS, Float32s, flaw
from issgd_cli.errors import DamagedError, RunError
from issgd_cli.files import writing
from issgd_cli.runs.arrays import START_AGAIN, Arrays, load_arrays, number, numbers, save_arrays, told, vector, whole
from issgd_cli.runs.audits import LEARNED

PREVIOUS = "previous.npz"  # beside a checkpoint: the one before it
DAMAGED = "damaged.npz"  # and one that could not be read, kept for a look
OPTIMIZER = "optimizer/"  # what the names of an optimiser's vectors begin with
MOMENTUM = "momentum"  # the one of them in checkpoints of issgd 0.1
MOMENT = "moment/"  # what the names of a moment's arrays begin with


@dataclass(frozen=True)
class Checkpoint:
    """A run as of its next publication. Draws are keyed by step, so no generator's state is needed.

    Attributes:
        step: Steps taken.
        version: Of the next publication.
        seconds: Since the run's start.
        parameters: Flat, shape (P,), with the buffers that training changes.
        optimizer: Its state, by name, each flat, one number for each parameter that is trained, shape (T,).
        proposal: The newest report of the proposal in use, which the trace may not hold yet.
        work: What all actors have done so far, quantity -> count; empty before it was first counted.
        records: The database's.
        moment: What the simulated cluster goes on from (simulation/moment.py); empty on the local one, which begins the
            actors anew, and in checkpoints of older versions of issgd.
        learned: What the master's minibatches have taught its method, by name; finite.
        remembered: Gradients that its method keeps, float32, shape (J, T), in a file of their own; mostly none, J = 0.
    """

    step: int
    version: int
    seconds: float
    parameters: Float32s
    optimizer: Mapping[str, Float32s]
    proposal: dict[str, Any]
    work: dict[str, float]
    records: dict[Split, Records]
    moment: Arrays = field(default_factory=dict)
    learned: Arrays = field(default_factory=dict)
    remembered: Float32s = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def renumbered(self, by: int) -> "Checkpoint":
        """The same with all versions that much higher, the next publication's and the records', so that ages stay."""
        if by == 0:
            return self
        moved = {}
        for split, records in self.records.items():
            numbers: dict[str, Any] = {
                name: np.where(getattr(records, name) > 0, getattr(records, name) + by, 0).astype(np.int32)
                for name in ("versions", "previous_versions", "gradient_versions")
            }
            moved[split] = replace(records, **numbers)
        return replace(self, version=self.version + by, records=moved)


def total_work(work: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What all actors have done together, quantity -> count; empty before it was first counted.

    Args:
        work: The database's topic: life of an actor, or `before` -> quantity -> count.
    """
    totals: dict[str, float] = {}
    for counts in work.values():
        for quantity, count in counts.items():
            totals[quantity] = totals.get(quantity, 0.0) + count
    return totals


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces the checkpoint, and keeps the one before it as previous.npz.

    At every moment one of the two is whole, the newest, and where `recover` finds it. What a method remembers is
    written first, under a name that the checkpoint tells; what belongs to neither of the two is removed.
    """
    arrays: dict[str, Any] = {
        "step": checkpoint.step,
        "version": checkpoint.version,
        "seconds": checkpoint.seconds,
        "parameters": checkpoint.parameters,
        "proposal": json.dumps(checkpoint.proposal),
        "work": json.dumps(checkpoint.work),
    }
    for split, records in checkpoint.records.items():
        arrays |= {f"{split}/{each.name}": getattr(records, each.name) for each in fields(Records)}
    arrays |= {OPTIMIZER + name: array for name, array in checkpoint.optimizer.items()}
    arrays |= {MOMENT + name: array for name, array in checkpoint.moment.items()}
    arrays |= {LEARNED + name: array for name, array in checkpoint.learned.items()}
    if checkpoint.remembered.size:
        arrays["remembered"] = f"remembered-{checkpoint.step:08d}-{checkpoint.version}.npz"
        save_arrays(path.with_name(arrays["remembered"]), {"gradients": checkpoint.remembered})
    save_arrays(path, arrays, older=path.with_name(PREVIOUS))
    if checkpoint.remembered.size:
        kept = {arrays["remembered"], told(path.with_name(PREVIOUS), "remembered")}
        for other in path.parent.glob("remembered-*.npz"):
            if other.name not in kept:
                other.unlink(missing_ok=True)


def recover(path: Path) -> list[str]:
    """Makes `path` the newest checkpoint that can be read, if there is any: after a kill, or damage on the disk.

    Nobody may be saving one meanwhile.

    Returns:
        What was done, a line each for people; none where `path` was well, or no checkpoint was ever saved.

    Raises:
        DamagedError: There are checkpoints, and none of them can be read. They stay as they are.
        RunError: The files cannot be moved.
    """
    previous, damage = path.with_name(PREVIOUS), None
    with writing(path):
        path.with_name(path.name + ".partial").unlink(missing_ok=True)
    if path.exists():
        try:
            load_checkpoint(path)
            return []
        except DamagedError as error:
            damage = error
    if not previous.exists():
        if damage is not None:
            raise DamagedError(path, f"{damage.reason}, and there is none before it", START_AGAIN)
        return []
    try:
        step = load_checkpoint(previous).step
    except DamagedError as error:
        if damage is None:
            raise
        both = f"{damage.reason}, and so is the one before it: {error.reason}"
        raise DamagedError(path, both, START_AGAIN) from None
    with writing(path):
        if damage is not None:
            path.replace(path.with_name(DAMAGED))
        previous.replace(path)
    going_on = f"going on from the one before it, of step {step}"
    if damage is None:
        return [f"{path.name} is missing, as after a kill while it was saved; {going_on}."]
    return [f"{path.name} is damaged ({damage.reason}); {going_on}. The damaged one is kept as {DAMAGED}."]


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        DamagedError: It is not as it was saved.
        RunError: There is none.
    """
    arrays = load_arrays(path)
    try:
        version = whole(arrays, "version", low=1)
        parameters = vector(arrays, "parameters", "<f4")
        checkpoint = Checkpoint(
            step=whole(arrays, "step"),
            version=version,
            seconds=number(arrays, "seconds"),
            parameters=parameters,
            optimizer={
                name.removeprefix(OPTIMIZER): vector(arrays, name, "<f4")
                for name in arrays
                if name.startswith(OPTIMIZER) or name == MOMENTUM
            },
            proposal=json.loads(str(arrays["proposal"])),
            work=_counts(json.loads(str(arrays["work"]))),
            records={split: _records(arrays, split, version) for split in SPLITS},
            moment={name.removeprefix(MOMENT): array for name, array in arrays.items() if name.startswith(MOMENT)},
            learned={name.removeprefix(LEARNED): numbers(arrays, name) for name in arrays if name.startswith(LEARNED)},
            **({"remembered": _remembered(path, str(arrays["remembered"]))} if "remembered" in arrays else {}),
        )
        if checkpoint.proposal:
            read_topic("proposal")(str(arrays["proposal"]).encode())
        return checkpoint
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise DamagedError(path, error, START_AGAIN) from None


def refuse_other(path: Path, checkpoint: Checkpoint, layout: Layout, parameters: int, trained: int) -> None:
    """Keeps a run from going on from a checkpoint of another dataset or model.

    Raises:
        RunError: Its records are not of this layout, or its parameters, or those that are trained, are not so many.
    """
    shapes = {(split, name): layout.shape(split, name) for split in SPLITS for name in FIELDS}
    held = {(split, name): len(getattr(checkpoint.records[split], name)) for split, name in shapes}
    fits = len(checkpoint.parameters) == parameters and {len(each) for each in checkpoint.optimizer.values()} <= {
        trained
    }
    if held != shapes or not fits:
        raise RunError(f"{path} is of another dataset or model than this run's. Remove the run's folder, start again.")


def _records(arrays: Arrays, split: Split, version: int) -> Records:
    found = {}
    for name, kind in FIELDS.items():
        found[name] = arrays[f"{split}/{name}"]
        if found[name].ndim != 1 or found[name].dtype != np.dtype(kind.dtype):
            raise ValueError(f"{split}/{name} is {found[name].dtype} of shape {found[name].shape}")
    if wrong := flaw(found, version - 1):
        raise ValueError(f"{split}/{wrong}")
    return Records(**found)


def _remembered(path: Path, name: str) -> Float32s:
    """What lies beside a checkpoint in a file of this name, finite, shape (J, T).

    Raises:
        ValueError: It is not what was saved with it, or gone.
    """
    beside = path.with_name(name)  # which refuses what leads elsewhere
    if not beside.exists():
        raise ValueError(f"{name}, which lay beside it, is gone")
    found = load_arrays(beside)["gradients"]
    if found.ndim != 2 or found.dtype != np.float32 or not np.isfinite(found).all():
        raise ValueError(f"{name} holds {found.dtype} of shape {found.shape}, or what are no finite numbers")
    return found


def _counts(document: Any) -> dict[str, float]:
    """The document, if it is what a checkpoint's `work` must be.

    Raises:
        ValueError: It is not.
    """
    kind = isinstance(document, dict) and all(isinstance(value, (int, float)) for value in document.values())
    if not kind or not all(0 <= value < math.inf for value in document.values()):
        raise ValueError(f"its work is {document!r}")
    return dict(document)
