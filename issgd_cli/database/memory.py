"""The database within one process: for tests, for the simulated cluster, and to read how it works."""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from issgd_cli.database.contributions import Contribution, ExampleScores, refuse_flawed_examples
from issgd_cli.database.protocol import Document, Topic
from issgd_cli.database.records import (
    SPLITS,
    Chunk,
    ChunkScores,
    Event,
    Layout,
    Published,
    Records,
    Split,
    Weights,
    refuse_flawed,
    refuse_nonfinite,
)
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import RecordError


class MemoryLifetime:
    """See Lifetime.

    Attributes:
        changes: How often a document, the parameters or a record has become another; whoever waits for one of them
            needs to look again only when this has grown.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """A database without a run.

        Args:
            clock: Seconds of any origin, real or virtual.
        """
        self._clock = clock
        self.changes = 0

    def begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        self._layout = layout
        self._start = self._clock() - seconds

    def layout(self) -> Layout:
        return self._layout

    def seconds(self) -> float:
        return self._clock() - self._start

    def close(self) -> None:
        pass


class MemoryMessages(MemoryLifetime):
    """See Messages."""

    def begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        super().begin(layout, seconds, records)
        self._documents: dict[Topic, Document] = {}
        self._statuses: dict[str, Document] = {}
        self._events: dict[str, list[Event]] = {}

    def put(self, topic: Topic, document: Document) -> None:
        self.changes += self._documents.get(topic) != document
        self._documents[topic] = document

    def get(self, topic: Topic) -> Document | None:
        return self._documents.get(topic)

    def report(self, actor: str, status: Document) -> None:
        self._statuses[actor] = status

    def statuses(self) -> dict[str, Document]:
        return dict(self._statuses)

    def push_events(self, batch: str, events: Sequence[Event]) -> None:
        self._events[batch] = list(events)

    def events(self) -> dict[str, list[Event]]:
        return dict(self._events)

    def forget_events(self, batches: Sequence[str]) -> None:
        for batch in batches:
            self._events.pop(batch, None)

    def complaints(self) -> list[str]:
        return []


class MemoryParameters(MemoryLifetime):
    """See Parameters."""

    def begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        super().begin(layout, seconds, records)
        self._parameters: tuple[Published, NDArray[np.float32]] | None = None

    def publish(self, published: Published, parameters: NDArray[np.float32]) -> None:
        refuse_nonfinite(parameters, published.version)
        self._parameters = published, parameters.copy()
        self.changes += 1

    def newest(self) -> Published | None:
        return None if self._parameters is None else self._parameters[0]

    def parameters(self) -> tuple[Published, NDArray[np.float32]] | None:
        return self._parameters


class _Claims(NamedTuple):
    """Which chunks of a split are being scored, shape (chunks,): at which version, and until when nobody else may."""

    versions: NDArray[np.int64]
    until: Float64s


class MemoryTable(MemoryParameters):
    """See Table."""

    def begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        super().begin(layout, seconds, records)
        self._records = copy.deepcopy(records)
        self._cursors = dict.fromkeys(SPLITS, 0)
        self._claims = {
            split: _Claims(np.zeros(layout.chunks(split), np.int64), np.zeros(layout.chunks(split))) for split in SPLITS
        }

    def claim(self, version: int, split: Split, lease_seconds: float) -> Chunk | None:
        now = self.seconds()
        for candidate in (split, *(other for other in SPLITS if other != split)):
            claims, behind = self._claims[candidate], self._records[candidate].versions < version
            free = np.flatnonzero(behind & ((claims.versions < version) | (claims.until < now)))
            if len(free):
                # The first at the cursor or after it, else the first of all.
                number = int(free[np.searchsorted(free, self._cursors[candidate]) % len(free)])
                claims.versions[number], claims.until[number] = version, now + lease_seconds
                self._cursors[candidate] = (number + 1) % self._layout.chunks(candidate)
                return Chunk(candidate, number)
        newest = self.newest()
        if newest is not None and newest.version == version:
            for records in self._records.values():
                records.seconds[records.versions == version] = now
        return None

    def push(self, chunk: Chunk, version: int, scores: ChunkScores) -> bool:
        records, number = self._records[chunk.split], chunk.number
        span = self._layout.span(chunk.split, number)
        refuse_flawed(chunk, span.stop - span.start, scores)
        newest = self.newest()
        if records.versions[number] >= version or (newest is not None and version > newest.version):
            return False
        if records.versions[number] > 0:
            records.previous_norms[span] = records.norms[span]
            records.previous_versions[number] = records.versions[number]
        records.norms[span], records.losses[span], records.errors[span] = scores[:3]
        records.versions[number] = version
        records.seconds[number] = self.seconds()
        self.changes += 1
        if scores.gradient_norm2 is not None:
            records.gradient_norms2[number] = scores.gradient_norm2
            records.gradient_versions[number] = version
        return True

    def push_examples(self, version: int, scores: ExampleScores) -> int:
        refuse_flawed_examples(self._layout, scores)
        records, newest = self._records["train"], self.newest()
        if newest is not None and version > newest.version:
            return 0
        older = records.versions[scores.indices] < version
        places = scores.indices[older]
        twice = places[records.versions[places] > 0]
        records.previous_norms[twice], records.previous_versions[twice] = records.norms[twice], records.versions[twice]
        records.norms[places], records.losses[places] = scores.norms[older], scores.losses[older]
        records.errors[places] = scores.errors[older]
        records.versions[places], records.seconds[places] = version, self.seconds()
        self.changes += 1
        return len(places)

    def weights(self, fields: Sequence[str] = Weights._fields) -> Weights:
        train = self._records["train"]
        return Weights(
            **{
                name: getattr(train, name).copy() if name in fields else np.zeros_like(getattr(train, name))
                for name in Weights._fields
            }
        )

    def records(self) -> dict[Split, Records]:
        return copy.deepcopy(self._records)

    def behind(self, version: int) -> int:
        return sum(int((records.versions < version).sum()) for records in self._records.values())


class MemoryContributions(MemoryParameters):
    """See Contributions."""

    def begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        super().begin(layout, seconds, records)
        self._waiting: dict[int, Contribution] = {}  # by peer, in the order in which they came
        self._counts: dict[int, int] = {}
        self._tokens: dict[int, str] = {}

    def enlist(self, wanted: int, token: str) -> int:
        number = next(number for number in itertools.count(wanted) if self._tokens.get(number, token) == token)
        self._tokens[number] = token
        return number

    def contribute(self, contribution: Contribution) -> bool:
        newest, peer = self.newest(), contribution.peer
        if newest is None or not 1 <= contribution.version <= newest.version:
            raise RecordError(f"A gradient of peer {peer} is of version {contribution.version}, which never was.")
        if peer in self._waiting:
            return self._waiting[peer].number == contribution.number
        if self._counts.get(peer, 0) < contribution.number:
            self._waiting[peer], self._counts[peer] = contribution, contribution.number
            self.changes += 1
        return True

    def contributed(self, peer: int) -> int:
        return self._counts.get(peer, 0)

    def is_taken(self, peer: int) -> bool:
        return peer not in self._waiting

    def contribution(self, size: int) -> Contribution | None:
        return next(iter(self._waiting.values()), None)

    def take(self, contribution: Contribution) -> None:
        if self._waiting.get(contribution.peer) is contribution:
            del self._waiting[contribution.peer]
            self.changes += 1


class MemoryDatabase(MemoryMessages, MemoryTable, MemoryContributions):
    """See Database."""

    def state(self) -> dict[str, Any]:
        """What it holds besides records, and what `begin` would forget: whose turn it is, and the newest parameters."""
        state: dict[str, Any] = {"cursors": [self._cursors[split] for split in SPLITS], "claims": {}}
        for split, claims in self._claims.items():
            state["claims"][split] = claims._asdict()
        if self._parameters is not None:
            state["published"], state["parameters"] = self._parameters
        if acknowledged := self.get("acknowledged"):
            state["acknowledged"] = acknowledged["version"]
        state["counts"] = {str(peer): count for peer, count in self._counts.items()}
        state["waiting"] = {str(place): one._asdict() for place, one in enumerate(self._waiting.values())}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state()`, after `begin` with the records of the same moment."""
        self._cursors = {split: int(place) for split, place in zip(SPLITS, state["cursors"], strict=True)}
        self._claims = {split: _Claims(**state["claims"][split]) for split in SPLITS}
        if "parameters" in state:
            self._parameters = Published(*map(int, state["published"])), state["parameters"]
        if "acknowledged" in state:
            self._documents["acknowledged"] = {"version": int(state["acknowledged"])}
        self._counts = {int(peer): int(count) for peer, count in state.get("counts", {}).items()}
        waiting = sorted(state.get("waiting", {}).items(), key=lambda entry: int(entry[0]))
        self._waiting = {int(one["peer"]): _restored(one) for _, one in waiting}


def _restored(state: Mapping[str, Any]) -> Contribution:
    peer, number, version = (int(state[name]) for name in ("peer", "number", "version"))
    return Contribution(peer, number, version, float(state["loss"]), state["gradient"])
