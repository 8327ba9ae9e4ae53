"""What the database holds of every example and chunk, and how it is laid out."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from issgd_cli.equations import Float64s

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

Float32s = NDArray[np.float32]
Int32s = NDArray[np.int32]


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

    def spread(self, split: Split, of_chunks: NDArray[np.generic]) -> NDArray[np.generic]:
        """One value a chunk -> one value an example, shape (N,)."""
        return np.repeat(of_chunks, self.sizes(split))

    def shape(self, split: Split, field: str) -> int:
        """Length of a field's array."""
        return self.examples(split) if FIELDS[field].per == "example" else self.chunks(split)

    def bytes(self) -> int:
        """Of all records of all splits."""
        return sum(self.shape(split, name) * int(field.dtype[-1]) for split in SPLITS for name, field in FIELDS.items())

    def empty(self, split: Split) -> "Records":
        """Records of a split in which nothing is scored."""
        return Records(**{name: np.zeros(self.shape(split, name), field.dtype) for name, field in FIELDS.items()})


@dataclass(frozen=True)
class Records:
    """The newest records of one split, at mixed parameter versions.

    Attributes:
        norms: ||g(x_n)||, float32, shape (N,).
        previous_norms: Likewise at the chunk's previous, strictly older version, shape (N,).
        losses, errors: Shape (N,); an error is 1 where the prediction was wrong.
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
    """What the master reads: norms, shape (N,), previous norms or None, and each chunk's version and seconds."""

    norms: Float32s
    previous_norms: Float32s | None
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
