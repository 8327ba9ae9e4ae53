"""What master, workers, peers and monitor may ask of the database between them, as in the paper's figure 1."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from issgd_cli.database.contributions import Contribution, ExampleScores
from issgd_cli.database.records import Chunk, ChunkScores, Event, Layout, Published, Records, Split, Weights

# Small documents that have one writer each.
Topic = Literal[
    "description",  # the launcher's: configuration, model and dataset fingerprints; what an actor needs to join
    "proposal",  # the master's: the sampling distribution in use, for the trace
    "acknowledged",  # the monitor's: the version it has sampled
    "work",  # the monitor's: what all actors have done so far, for the checkpoint
    "finished",  # the master's: training is over; workers leave, the monitor audits
    "stop",  # the launcher's: everybody leaves now
]
Document = dict[str, Any]


class Lifetime(Protocol):
    """A life of the run: from a begin to the next, or to the run's end."""

    def begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        """Starts a life of the run: forgets all that is stored under its name, and sets its clock and its records.

        Clients that know an earlier life can write no records into this one: they get a GoneError.

        Args:
            layout: Of the dataset.
            seconds: What the clock starts from: 0, or a checkpoint's.
            records: What each split starts from: a checkpoint's, or `layout.empty(split)`.
        """

    def layout(self) -> Layout:
        """Of the run's dataset."""

    def seconds(self) -> float:
        """Time since the run's start by the server's clock: the only clock that actors read. It never goes back."""

    def close(self) -> None:
        """Ends the connection."""


class Messages(Protocol):
    """What the actors tell each other: documents of one writer each, statuses, events."""

    def put(self, topic: Topic, document: Document) -> None:
        """Replaces a document."""

    def get(self, topic: Topic) -> Document | None:
        """A document, None where there is none."""

    def report(self, actor: str, status: Document) -> None:
        """Replaces an actor's status."""

    def statuses(self) -> dict[str, Document]:
        """The newest status of every actor."""

    def push_events(self, batch: str, events: Sequence[Event]) -> None:
        """Hands events to the monitor; `batch` names them for ever, so that a repeated push counts once."""

    def events(self) -> dict[str, list[Event]]:
        """The batches that wait."""

    def forget_events(self, batches: Sequence[str]) -> None:
        """Drops batches that are written."""

    def complaints(self) -> list[str]:
        """What statuses() and events() have found damaged and left aside so far, a line for each."""


class Parameters(Protocol):
    """What the master publishes."""

    def publish(self, published: Published, parameters: NDArray[np.float32]) -> None:
        """Makes a new set of parameters the newest; never seen in part. Old ones are dropped after a while."""

    def newest(self) -> Published | None:
        """The newest parameters' version, None before the first."""

    def parameters(self) -> tuple[Published, NDArray[np.float32]] | None:
        """The newest parameters, one flat vector, whole."""


class Table(Protocol):
    """What the workers score, and the master and the monitor read."""

    def claim(self, version: int, split: Split, lease_seconds: float) -> Chunk | None:
        """The next chunk whose record is older than `version`, of `split` if it has one, else of another.

        Nobody else is given it for `lease_seconds`; then, if it is still unscored, it is offered again. Where
        nothing is left to score at the newest version, the records at that version are stamped as of now: they are
        as fresh as they can be.
        """

    def push(self, chunk: Chunk, version: int, scores: ChunkScores) -> bool:
        """Stores a chunk's scores, the current norms becoming the previous ones.

        False, and no change, if what is stored is not older than `version`, or if the newest parameters are: a worker
        may be left over from before a restart.

        Raises:
            RecordError: The scores cannot be true; nothing is changed.
        """

    def push_examples(self, version: int, scores: ExampleScores) -> int:
        """Stores what a peer knows of single examples, where records are of these; example by example as `push` does.

        Returns:
            How many were stored.

        Raises:
            RecordError: The scores cannot be true; nothing is changed.
            DatabaseError: Records are of chunks.
        """

    def weights(self, fields: Sequence[str] = Weights._fields) -> Weights:
        """The training split's table for the master, or a peer, at one instant.

        Args:
            fields: Which of its arrays are read; the others are zeros.
        """

    def records(self) -> dict[Split, Records]:
        """All records of all splits, at one instant."""

    def behind(self, version: int) -> int:
        """How many chunks of all splits are at an older version."""


class Contributions(Protocol):
    """What peers hand to the parameter server, one each at a time: who is ahead of the server waits for it."""

    def enlist(self, wanted: int, token: str) -> int:
        """A number for a peer that nobody has given one, from a wanted one on; nobody else is given it.

        Args:
            wanted: Which it would have.
            token: The peer's own; the same token is given the same number again.

        Raises:
            DatabaseError: Too many are taken.
        """

    def contribute(self, contribution: Contribution) -> bool:
        """Hands a gradient over. A repeated one counts once.

        False, and no change, if one of this peer still waits.

        Raises:
            RecordError: It is of a version that never was.
        """

    def contributed(self, peer: int) -> int:
        """The number of the last gradient that this peer has handed over in this life of the run; 0: of none."""

    def is_taken(self, peer: int) -> bool:
        """Whether none of this peer waits."""

    def contribution(self, size: int) -> Contribution | None:
        """The one that has waited longest, None where there is none.

        Args:
            size: How many numbers a gradient should have; of a longer one no more is read than shows that.
        """

    def take(self, contribution: Contribution) -> None:
        """Removes one that was read; another one of that peer stays."""


class Database(Lifetime, Messages, Parameters, Table, Contributions, Protocol):
    """One run's part of a database. Every command may be repeated without harm."""
