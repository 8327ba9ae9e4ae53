"""The database within one process: for tests, for the simulated cluster, and to read how it works."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from issgd_cli.database.protocol import Document, Topic
from issgd_cli.database.records import SPLITS, Chunk, ChunkScores, Layout, Published, Records, Split, Weights
from issgd_cli.errors import DatabaseError
from issgd_cli.traces import Event


class MemoryDatabase:
    """See Database."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """A database without a run.

        Args:
            clock: Seconds of any origin, real or virtual.
        """
        self._clock = clock

    def begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        self._layout = layout
        self._start = self._clock() - seconds
        self._records = copy.deepcopy(records)
        self._documents: dict[Topic, Document] = {}
        self._statuses: dict[str, Document] = {}
        self._events: dict[str, list[Event]] = {}
        self._parameters: tuple[Published, NDArray[np.float32]] | None = None
        self._cursors = dict.fromkeys(SPLITS, 0)
        self._claims = {split: [(0, 0.0)] * layout.chunks(split) for split in SPLITS}  # (version, until when)

    def seconds(self) -> float:
        return self._clock() - self._start

    def layout(self) -> Layout:
        return self._layout

    def put(self, topic: Topic, document: Document) -> None:
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

    def publish(self, published: Published, parameters: NDArray[np.float32]) -> None:
        self._parameters = published, parameters.copy()

    def newest(self) -> Published | None:
        return None if self._parameters is None else self._parameters[0]

    def parameters(self) -> tuple[Published, NDArray[np.float32]] | None:
        return self._parameters

    def claim(self, version: int, split: Split, lease_seconds: float) -> Chunk | None:
        now = self.seconds()
        for candidate in (split, *(other for other in SPLITS if other != split)):
            chunks = self._layout.chunks(candidate)
            for step in range(chunks):
                number = (self._cursors[candidate] + step) % chunks
                claimed_version, until = self._claims[candidate][number]
                if self._records[candidate].versions[number] < version and (claimed_version < version or until < now):
                    self._claims[candidate][number] = version, now + lease_seconds
                    self._cursors[candidate] = (number + 1) % chunks
                    return Chunk(candidate, number)
        newest = self.newest()
        if newest is not None and newest.version == version:
            for records in self._records.values():
                records.seconds[records.versions == version] = now
        return None

    def push(self, chunk: Chunk, version: int, scores: ChunkScores) -> bool:
        records, number = self._records[chunk.split], chunk.number
        span = self._layout.span(chunk.split, number)
        if any(array.shape != (span.stop - span.start,) for array in scores[:3]):
            raise DatabaseError(f"The scores of {chunk} are not {span.stop - span.start} values each.")
        if records.versions[number] >= version:
            return False
        if records.versions[number] > 0:
            records.previous_norms[span] = records.norms[span]
            records.previous_versions[number] = records.versions[number]
        records.norms[span], records.losses[span], records.errors[span] = scores[:3]
        records.versions[number] = version
        records.seconds[number] = self.seconds()
        if scores.gradient_norm2 is not None:
            records.gradient_norms2[number] = scores.gradient_norm2
            records.gradient_versions[number] = version
        return True

    def weights(self, previous: bool) -> Weights:
        train = copy.deepcopy(self._records["train"])
        return Weights(
            train.norms,
            train.previous_norms if previous else None,
            train.versions,
            train.previous_versions,
            train.seconds,
        )

    def records(self) -> dict[Split, Records]:
        return copy.deepcopy(self._records)

    def behind(self, version: int) -> int:
        return sum(int((records.versions < version).sum()) for records in self._records.values())

    def close(self) -> None:
        pass
