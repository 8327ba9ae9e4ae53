"""What the database holds of every example and chunk, and how it is laid out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import DatabaseError, RecordError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
LARGEST_VERSION = 2**31 - 1  # they are kept as int32
NO_ERROR = 255  # in place of 0 or 1, of an example that can be neither right nor wrong: regression

Float32s = NDArray[np.float32]
Int32s = NDArray[np.int32]


class Event(NamedTuple):
    """One actor's operation."""

    actor: str  # master, worker-0, monitor
    start: float  # seconds since the run's start
    end: float
    event: str  # the name of an actors.actor.Operation
    version: int  # of the parameters it concerned


class Field(NamedTuple):
    """One array of records: its type, and whether it has an entry an example or a chunk."""

    dtype: str
    per: Literal["example", "chunk"]


# Little-endian, so that machines of any kind can share a database. Version 0 means never scored.
FIELDS = {
    "norms": Field("<f4", "example"),
    "previous_norms": Field("<f4", "example"),
    "losses": Field("<f4", "example"),
    "errors": Field("u1", "example"),
    "versions": Field("<i4", "chunk"),
    "previous_versions": Field("<i4", "chunk"),
    "seconds": Field("<f8", "chunk"),
    "gradient_norms2": Field("<f8", "chunk"),
    "gradient_versions": Field("<i4", "chunk"),
}


@dataclass(frozen=True)
class Layout:
    """How many examples each split has, and how they fall into chunks.

    A chunk is a fixed, contiguous run of `chunk_size` examples (the last one may be shorter). Examples are stored in
    a seeded random order, so that a chunk is a fair sample.
    """

    train: int
    valid: int
    test: int
    chunk_size: int

    def examples(self, split: Split) -> int:
        """N of the split."""
        return int(getattr(self, split))

    def chunks(self, split: Split) -> int:
        """How many chunks the split has."""
        return -(-self.examples(split) // self.chunk_size)

    def span(self, split: Split, chunk: int) -> slice:
        """The chunk's examples."""
        start = chunk * self.chunk_size
        return slice(start, min(start + self.chunk_size, self.examples(split)))

    def sizes(self, split: Split) -> NDArray[np.int64]:
        """Examples in each chunk, shape (chunks,)."""
        return np.diff(np.append(np.arange(0, self.examples(split), self.chunk_size), self.examples(split)))

    def spread(self, split: Split, of_chunks: NDArray[Any]) -> NDArray[Any]:
        """One value a chunk -> one value an example, shape (N,)."""
        return np.repeat(of_chunks, self.sizes(split))

    def shape(self, split: Split, field: str) -> int:
        """Length of a field's array."""
        return self.examples(split) if FIELDS[field].per == "example" else self.chunks(split)

    def bytes(self) -> int:
        """Of all records of all splits."""
        return sum(self.bytes_of(split, FIELDS) for split in SPLITS)

    def bytes_of(self, split: Split, fields: Iterable[str]) -> int:
        """Of some of a split's arrays."""
        return sum(self.shape(split, name) * np.dtype(FIELDS[name].dtype).itemsize for name in fields)

    def empty(self, split: Split) -> "Records":
        """Records of a split in which nothing is scored."""
        return Records(**{name: np.zeros(self.shape(split, name), field.dtype) for name, field in FIELDS.items()})


@dataclass(frozen=True)
class Records:
    """The newest records of one split, at mixed parameter versions.

    Attributes:
        norms: ||g(x_n)||, float32, shape (N,).
        previous_norms: Likewise at the chunk's previous, strictly older version, shape (N,).
        losses, errors: Shape (N,); an error is 1 where the prediction was wrong, else 0, or NO_ERROR.
        versions, previous_versions: Of each chunk's parameters, int32, shape (chunks,); 0: never scored.
        seconds: When each chunk was scored, since the run's start, shape (chunks,).
        gradient_norms2: ||g_B||^2 of each chunk's mean loss, measured now and then, shape (chunks,).
        gradient_versions: At which version, shape (chunks,); 0: never.
    """

    norms: Float32s
    previous_norms: Float32s
    losses: Float32s
    errors: NDArray[np.uint8]
    versions: Int32s
    previous_versions: Int32s
    seconds: Float64s
    gradient_norms2: Float64s
    gradient_versions: Int32s


class ChunkScores(NamedTuple):
    """What a worker pushes for one chunk of B examples; see Records."""

    norms: Float32s
    losses: Float32s
    errors: NDArray[np.uint8]
    gradient_norm2: float | None


class Weights(NamedTuple):
    """What the master reads: norms and previous norms, shape (N,), and each chunk's version and seconds."""

    norms: Float32s
    previous_norms: Float32s
    versions: Int32s
    previous_versions: Int32s
    seconds: Float64s


class Chunk(NamedTuple):
    """A chunk that a worker is given to score."""

    split: Split
    number: int


class Published(NamedTuple):
    """A set of parameters in the database."""

    version: int  # from 1; never names two different parameter sets
    step: int  # the master's steps taken so far


def flaw(arrays: Mapping[str, NDArray[Any]], newest: int = LARGEST_VERSION) -> str | None:
    """What cannot be true of records, or None. Costs a pass or two over each array, well below a read's own time.

    Args:
        arrays: Some fields of one split's records, by their names in FIELDS.
        newest: The newest version that was published.
    """
    for name, array in arrays.items():
        if len(array) == 0:
            continue
        # A NaN anywhere makes both NaN, and every comparison with it false.
        least, most = array.min(), array.max()
        if name in ("losses", "seconds"):
            if not (np.isfinite(least) and np.isfinite(most)):
                return f"{name} hold a value that is not finite"
        elif name == "errors":
            if most > 1 and len(wrong := array[(array > 1) & (array != NO_ERROR)]):
                return f"errors hold {wrong[0]}, where 0 and 1 belong, or {NO_ERROR} where there are none"
        elif name.endswith("versions"):
            if least < 0 or most > newest:
                return f"{name} hold {least if least < 0 else most}, where 0 to {newest} belong"
        elif not (least >= 0 and np.isfinite(most)):
            return f"{name} hold a value that is negative or not finite"
    for name in ("previous_versions", "gradient_versions"):
        if name in arrays and "versions" in arrays:
            allowed = arrays["versions"] - (name == "previous_versions")  # eq. 9 needs strictly older ones
            if (arrays[name] > np.maximum(allowed, 0)).any():
                return f"{name} are newer than they can be"
    return None


def refuse_nonfinite(parameters: Float32s, version: int) -> None:
    """Two passes over a vector of parameters, neither of which needs memory.

    Raises:
        DatabaseError: They are not all finite: no worker could score anything with them.
    """
    if len(parameters) and not (np.isfinite(parameters.min()) and np.isfinite(parameters.max())):
        raise DatabaseError(
            f"The parameters of version {version} are not all finite: the training has diverged. Lower "
            "`optimizer.learning_rate`."
        )


def refuse_flawed(chunk: Chunk, size: int, scores: ChunkScores) -> None:
    """Keeps out of the table what would poison it.

    Raises:
        RecordError: The scores are not one an example, not finite, or negative.
    """
    arrays: dict[str, NDArray[Any]] = {"norms": scores.norms, "losses": scores.losses, "errors": scores.errors}
    if any(array.shape != (size,) for array in arrays.values()):
        raise RecordError(f"The scores of {chunk} are not {size} values each.")
    if scores.gradient_norm2 is not None:
        arrays["gradient_norms2"] = np.array([scores.gradient_norm2])
    if found := flaw(arrays):
        raise RecordError(f"The scores of chunk {chunk.number} of {chunk.split} are refused: their {found}.")
