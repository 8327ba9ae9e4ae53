"""What a run saves of itself: checkpoints, audit points, final parameters. All plain .npz, read without pickle.

Each file holds a sum over all its arrays, so that a damaged one is refused and never gone on from. The checkpoint
before the newest is kept: `recover` goes back to it.
"""

import errno
import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from issgd_cli.database import SPLITS, Layout, Records, Split
from issgd_cli.database.documents import read_topic
from issgd_cli.database.records import FIELDS, LARGEST_VERSION, flaw
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import DamagedError, RunError
from issgd_cli.files import replacing, writing

Float32s = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]

PREVIOUS = "previous.npz"  # beside a checkpoint: the one before it
DAMAGED = "damaged.npz"  # and one that could not be read, kept for a look
MOMENT = "moment/"  # what the names of a moment's arrays begin with
SUM = "sha256"  # the member of every file that holds the sum over the others
NO_DAMAGE = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)  # try again later
START_AGAIN = "Remove the run's folder and start it again."


@dataclass(frozen=True)
class Checkpoint:
    """A run as of its next publication. Draws are keyed by step, so no generator's state is needed.

    Attributes:
        step: Steps taken.
        version: Of the next publication.
        seconds: Since the run's start.
        parameters, momentum: Flat, shape (P,).
        proposal: The newest report of the proposal in use, which the trace may not hold yet.
        work: What all actors have done so far, quantity -> count; empty before it was first counted.
        records: The database's.
        moment: What the simulated cluster goes on from (clusters/moment.py); empty on the local one, which begins the
            actors anew, and in checkpoints of older versions of issgd.
    """

    step: int
    version: int
    seconds: float
    parameters: Float32s
    momentum: Float32s
    proposal: dict[str, Any]
    work: dict[str, float]
    records: dict[Split, Records]
    moment: Arrays = field(default_factory=dict)

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

    At every moment one of the two is whole, the newest, and where `recover` finds it.
    """
    arrays: dict[str, Any] = {
        "step": checkpoint.step,
        "version": checkpoint.version,
        "seconds": checkpoint.seconds,
        "parameters": checkpoint.parameters,
        "momentum": checkpoint.momentum,
        "proposal": json.dumps(checkpoint.proposal),
        "work": json.dumps(checkpoint.work),
    }
    for split, records in checkpoint.records.items():
        arrays |= {f"{split}/{each.name}": getattr(records, each.name) for each in fields(Records)}
    arrays |= {MOMENT + name: array for name, array in checkpoint.moment.items()}
    _save(path, arrays, older=path.with_name(PREVIOUS))


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
    arrays = _load(path)
    try:
        version = _whole(arrays, "version", low=1)
        parameters = _vector(arrays, "parameters", "<f4")
        checkpoint = Checkpoint(
            step=_whole(arrays, "step"),
            version=version,
            seconds=_number(arrays, "seconds"),
            parameters=parameters,
            momentum=_vector(arrays, "momentum", "<f4", len(parameters)),
            proposal=json.loads(str(arrays["proposal"])),
            work=_counts(json.loads(str(arrays["work"]))),
            records={split: _records(arrays, split, version) for split in SPLITS},
            moment={name.removeprefix(MOMENT): array for name, array in arrays.items() if name.startswith(MOMENT)},
        )
        if checkpoint.proposal:
            read_topic("proposal")(str(arrays["proposal"]).encode())
        return checkpoint
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise DamagedError(path, error, START_AGAIN) from None


def refuse_other(path: Path, checkpoint: Checkpoint, layout: Layout, parameters: int) -> None:
    """Keeps a run from going on from a checkpoint of another dataset or model.

    Raises:
        RunError: Its records are not of this layout, or its parameters are not so many.
    """
    shapes = {(split, name): layout.shape(split, name) for split in SPLITS for name in FIELDS}
    held = {(split, name): len(getattr(checkpoint.records[split], name)) for split, name in shapes}
    if held != shapes or len(checkpoint.parameters) != parameters:
        raise RunError(f"{path} is of another dataset or model than this run's. Remove the run's folder, start again.")


def _records(arrays: dict[str, NDArray[Any]], split: Split, version: int) -> Records:
    found = {}
    for name, kind in FIELDS.items():
        found[name] = arrays[f"{split}/{name}"]
        if found[name].ndim != 1 or found[name].dtype != np.dtype(kind.dtype):
            raise ValueError(f"{split}/{name} is {found[name].dtype} of shape {found[name].shape}")
    if wrong := flaw(found, version - 1):
        raise ValueError(f"{split}/{wrong}")
    return Records(**found)


def _vector(arrays: dict[str, NDArray[Any]], name: str, dtype: str, length: int | None = None) -> NDArray[Any]:
    """A finite one."""
    array = arrays[name]
    if array.ndim != 1 or array.dtype != np.dtype(dtype) or len(array) != (len(array) if length is None else length):
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite")
    return array


def _whole(arrays: dict[str, NDArray[Any]], name: str, low: int = 0) -> int:
    array = arrays[name]
    if array.shape != () or array.dtype.kind not in "iu" or not low <= int(array) < LARGEST_VERSION:
        raise ValueError(f"{name} is {array!r:.60}")
    return int(array)


def _number(arrays: dict[str, NDArray[Any]], name: str, finite: bool = True) -> float:
    array = arrays[name]
    if array.shape != () or array.dtype.kind not in "iuf" or np.isnan(array) or (finite and np.isinf(array)):
        raise ValueError(f"{name} is {array!r:.60}")
    return float(array)


def _counts(document: Any) -> dict[str, float]:
    """The document, if it is what a checkpoint's `work` must be.

    Raises:
        ValueError: It is not.
    """
    kind = isinstance(document, dict) and all(isinstance(value, (int, float)) for value in document.values())
    if not kind or not all(0 <= value < math.inf for value in document.values()):
        raise ValueError(f"its work is {document!r}")
    return dict(document)


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
    _save(directory / f"step-{audit.step:08d}.npz", {each.name: getattr(audit, each.name) for each in fields(Audit)})


def load_audit(path: Path) -> Audit:
    """Reads an audit point.

    Raises:
        DamagedError: It is not as it was saved.
        RunError: There is none.
    """
    remedy = "Remove it, its audit is lost, and go on with `--resume`."
    arrays = _load(path, remedy)
    try:
        weights, table = _vector(arrays, "weights", "<f8"), arrays["table"]
        if not ((weights >= 0).all() and (weights > 0).any()):
            raise ValueError("its weights define no proposal")
        if table.shape != weights.shape or table.dtype != np.float32 or (np.isinf(table) | (table < 0)).any():
            raise ValueError("its table holds no norms")
        return Audit(
            step=_whole(arrays, "step"),
            seconds=_number(arrays, "seconds"),
            parameters=_vector(arrays, "parameters", "<f4"),
            weights=weights,
            table=table,
            smoothing=_number(arrays, "smoothing", finite=False),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedError(path, error, remedy) from None


def save_parameters(path: Path, model: nn.Module) -> None:
    """Writes the model's parameters, one array each, by their names in `state_dict()`."""
    _save(path, {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()})


def load_parameters(path: Path, model: nn.Module) -> None:
    """Reads what `save_parameters` wrote into a model of the same shapes.

    Raises:
        DamagedError: The file is not as it was saved.
        RunError: There is none, or it is of another model.
    """
    import torch

    try:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in _load(path).items()})
    except (RuntimeError, TypeError) as error:  # the latter: an array of no numbers
        raise RunError(f"{path} holds the parameters of another model: {error}.") from None


def _save(path: Path, values: dict[str, Any], older: Path | None = None) -> None:
    arrays = {name: np.asarray(value) for name, value in values.items()}
    with writing(path), replacing(path, older=older) as file:
        np.savez(file, allow_pickle=False, **arrays, **{SUM: np.asarray(_sum(arrays))})


def _sum(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in order of name, hexadecimal."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # no copy: parameters take 76 MB
    return digest.hexdigest()


def _load(path: Path, remedy: str = START_AGAIN) -> dict[str, NDArray[Any]]:
    """The arrays of a file that `_save` wrote, to the bit, but for their sum.

    No member is compressed, so none takes more memory than its file.
    """
    try:
        limit = path.stat().st_size
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("it is compressed, which ours never are")
            if sum(member.file_size for member in members) > limit:
                raise ValueError("it announces more than it holds")
            arrays = {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
        if SUM not in arrays:
            raise ValueError("it holds no sum, as those of older versions of issgd don't")
        if str(arrays.pop(SUM)) != _sum(arrays):
            raise ValueError("its sum is not that of what it holds")
        return arrays
    except FileNotFoundError:
        raise RunError(f"No {path}. Put it back, or remove the run's folder and start it again.") from None
    except MemoryError:
        raise RunError(f"{path} does not fit into memory. Close other programs and go on with `--resume`.") from None
    except OSError as error:
        if error.errno in NO_DAMAGE:
            raise RunError(f"{path} cannot be read: {error.strerror}. See to it, and go on with `--resume`.") from None
        raise DamagedError(path, error, remedy) from None
    except Exception as error:  # zipfile's and numpy's readers raise errors of every kind at what they did not write
        raise DamagedError(path, error, remedy) from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{member.filename} is of another version of .npy")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        left = member.file_size - stream.tell()
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != left:
            raise ValueError(f"{member.filename} announces {dtype} of shape {shape}, and holds {left} bytes")
        # A bytearray, since torch wants to be able to write.
        return np.ndarray(shape, dtype, bytearray(stream.read()), order="F" if fortran else "C")
