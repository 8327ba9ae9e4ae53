"""Audit points: what the monitor needs to recompute every quantity exactly, saved on the way and read at the end."""

from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from issgd_cli.database.records import Float32s
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import DamagedError
from issgd_cli.runs.arrays import Arrays, load_arrays, number, numbers, save_arrays, vector, whole

LEARNED = "learned/"  # what the names of what a method has learned begin with


@dataclass(frozen=True)
class Audit:
    """An audit point: what is needed to recompute every quantity exactly, once training is over.

    Attributes:
        step, seconds: When it was saved.
        parameters: Flat, shape (P,).
        weights: omega that the master draws from, 0 for examples that can't be drawn, shape (N,).
        previous: The norms before those that the weights are made of, NaN for examples not scored at two versions,
            shape (N,).
        smoothing: The constant in use; None where there is none.
        passes: The run's until then (scores/cost.py); None where it is not known to the step.
        epochs: That the method has made; None where they are N draws each.
        learned: What a method that draws by more than these weights has learned, by name; finite. Empty of all others.
    """

    step: int
    seconds: float
    parameters: Float32s
    weights: Float64s
    previous: Float32s
    smoothing: float | None
    passes: float | None = None
    epochs: float | None = None
    learned: Arrays = field(default_factory=dict)


def save_audit(directory: Path, audit: Audit) -> None:
    """Writes audits/step-00000123.npz."""
    values = {each.name: getattr(audit, each.name) for each in fields(Audit) if each.name != "learned"}
    arrays = {name: value for name, value in values.items() if value is not None}
    arrays |= {LEARNED + name: array for name, array in audit.learned.items()}
    save_arrays(directory / f"step-{audit.step:08d}.npz", arrays)


def load_audit(path: Path) -> Audit:
    """Reads an audit point; an older one knows no previous norms, passes or epochs.

    Raises:
        DamagedError: It is not as it was saved.
        RunError: There is none.
    """
    remedy = "Remove it, its audit is lost, and go on with `--resume`."
    arrays = load_arrays(path, remedy)
    try:
        weights = vector(arrays, "weights", "<f8")
        previous = arrays.get("previous", np.full(len(weights), np.nan, np.float32))
        if not ((weights >= 0).all() and (weights > 0).any()):
            raise ValueError("its weights define no proposal")
        if previous.shape != weights.shape or previous.dtype != np.float32:
            raise ValueError(f"previous is {previous.dtype} of shape {previous.shape}")
        if (np.isinf(previous) | (previous < 0)).any():
            raise ValueError("its previous norms are none")
        return Audit(
            step=whole(arrays, "step"),
            seconds=number(arrays, "seconds"),
            parameters=vector(arrays, "parameters", "<f4"),
            weights=weights,
            previous=previous,
            smoothing=number(arrays, "smoothing", finite=False) if "smoothing" in arrays else None,
            passes=number(arrays, "passes") if "passes" in arrays else None,
            epochs=number(arrays, "epochs") if "epochs" in arrays else None,
            learned={name.removeprefix(LEARNED): numbers(arrays, name) for name in arrays if name.startswith(LEARNED)},
        )
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedError(path, error, remedy) from None
