"""What a run saves of itself: checkpoints, audit points, final parameters. All plain .npz, read without pickle."""

import json
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from issgd_cli.database import SPLITS, Records, Split
from issgd_cli.equations import Float64s
from issgd_cli.errors import RunError
from issgd_cli.files import replacing

Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class Checkpoint:
    """A run as of its next publication. Draws are keyed by step, so no generator's state is needed.

    Attributes:
        step: Steps taken.
        version: Of the next publication.
        seconds: Since the run's start.
        parameters, momentum: Flat, shape (P,).
        proposal: The newest report of the proposal in use, which the trace may not hold yet.
        records: The database's.
    """

    step: int
    version: int
    seconds: float
    parameters: Float32s
    momentum: Float32s
    proposal: dict[str, Any]
    records: dict[Split, Records]

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


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces the checkpoint at once: a reader, or a crash, finds the old one or the new."""
    arrays: dict[str, Any] = {
        "step": checkpoint.step,
        "version": checkpoint.version,
        "seconds": checkpoint.seconds,
        "parameters": checkpoint.parameters,
        "momentum": checkpoint.momentum,
        "proposal": json.dumps(checkpoint.proposal),
    }
    for split, records in checkpoint.records.items():
        arrays |= {f"{split}/{field.name}": getattr(records, field.name) for field in fields(Records)}
    _save(path, arrays)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        RunError: There is none, or it is damaged.
    """
    arrays = _load(path)
    try:
        return Checkpoint(
            step=int(arrays["step"]),
            version=int(arrays["version"]),
            seconds=float(arrays["seconds"]),
            parameters=arrays["parameters"],
            momentum=arrays["momentum"],
            proposal=json.loads(str(arrays["proposal"])),
            records={
                split: Records(**{field.name: arrays[f"{split}/{field.name}"] for field in fields(Records)})
                for split in SPLITS
            },
        )
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from None


@dataclass(frozen=True)
class Audit:
    """An audit point: what is needed to recompute every quantity exactly, once training is over.

    Attributes:
        step, seconds: When it was saved.
        parameters: Flat, shape (P,).
        weights: omega that the master draws from, 0 for examples that can't be drawn, shape (N,).
        table: The norms that the master has read, NaN for those never scored, shape (N,).
        smoothing: The constant in use.
    """

    step: int
    seconds: float
    parameters: Float32s
    weights: Float64s
    table: Float32s
    smoothing: float


def save_audit(directory: Path, audit: Audit) -> None:
    """Writes audits/step-00000123.npz."""
    _save(directory / f"step-{audit.step:08d}.npz", {field.name: getattr(audit, field.name) for field in fields(Audit)})


def load_audit(path: Path) -> Audit:
    """Reads an audit point.

    Raises:
        RunError: It is damaged.
    """
    arrays = _load(path)
    try:
        return Audit(
            step=int(arrays["step"]),
            seconds=float(arrays["seconds"]),
            parameters=arrays["parameters"],
            weights=arrays["weights"],
            table=arrays["table"],
            smoothing=float(arrays["smoothing"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from None


def save_parameters(path: Path, model: nn.Module) -> None:
    """Writes the model's parameters, one array each, by their names in `state_dict()`."""
    _save(path, {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()})


def load_parameters(path: Path, model: nn.Module) -> None:
    """Reads what `save_parameters` wrote into a model of the same shapes.

    Raises:
        RunError: The file is damaged, or of another model.
    """
    import torch

    try:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in _load(path).items()})
    except RuntimeError as error:
        raise RunError(f"{path} holds the parameters of another model: {error}.") from None


def _save(path: Path, arrays: dict[str, Any]) -> None:
    try:
        with replacing(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror}. Free space there and go on with `--resume`."
        ) from None


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Opened here: np.load would leave a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise RunError(f"No {path}.") from None
    except (OSError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile, EOFError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} is damaged ({error}). Remove the run's folder and start it again.")
