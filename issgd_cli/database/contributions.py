"""What a peer hands to the parameter server: a gradient, as it travels; and what it says of single examples."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from issgd_cli.database.records import Float32s, Layout, flaw
from issgd_cli.errors import DatabaseError, RecordError

# How its numbers travel: float32, or the upper halves of float32s, as which bfloat16 is held.
TYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "bfloat16": np.dtype("<u2")}


class Contribution(NamedTuple):
    """One peer's gradient of one minibatch.

    Attributes:
        peer: Which; from 0.
        number: Among its own gradients, each later one's higher.
        version: Of the parameters that it is of.
        loss: The minibatch's weighted loss.
        gradient: Of one of TYPES, shape (T,).
        ticket: In what order the database took them in; its own to give.
    """

    peer: int
    number: int
    version: int
    loss: float
    gradient: NDArray[Any]
    ticket: int = 0


class ExampleScores(NamedTuple):
    """What is pushed of B single examples, each once; see Records."""

    indices: NDArray[np.int64]
    norms: Float32s
    losses: Float32s
    errors: NDArray[np.uint8]


def numbers_of(gradient: NDArray[Any]) -> Float32s:
    """A gradient as float32, from what travelled, shape (T,)."""
    if gradient.dtype == TYPES["bfloat16"]:
        return (gradient.astype("<u4") << 16).view("<f4")
    return gradient


def refuse_flawed_examples(layout: Layout, scores: ExampleScores) -> None:
    """Keeps out of the table what would poison it.

    Raises:
        RecordError: The scores are not one an example, each named once, or not finite, or negative.
        DatabaseError: The run's records are of chunks.
    """
    if layout.chunk_size != 1:
        raise DatabaseError("Scores of single examples are for a table of single examples: worker.chunk_size = 1.")
    indices = scores.indices
    if any(array.shape != indices.shape for array in (scores.norms, scores.losses, scores.errors)):
        raise RecordError(f"The scores of {len(indices)} examples are not as many.")
    named = len(np.unique(indices)) == len(indices)
    if len(indices) and not (named and indices.min() >= 0 and indices.max() < layout.train):
        raise RecordError(f"The scores are not of {len(indices)} training examples, each named once.")
    if found := flaw({"norms": scores.norms, "losses": scores.losses, "errors": scores.errors}):
        raise RecordError(f"The scores of a minibatch are refused: their {found}.")
