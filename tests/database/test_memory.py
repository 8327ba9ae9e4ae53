"""What only the database in memory has: claims that are looked up at once, and a count of what has changed."""

from collections.abc import Callable

import numpy as np
import pytest

from issgd_cli.database import SPLITS, Chunk, ChunkScores, Layout, Published, Split
from issgd_cli.database.memory import MemoryDatabase

LAYOUT = Layout(95, 25, 33, 10)


def ones(size: int) -> ChunkScores:
    values = np.ones(size, np.float32)
    return ChunkScores(values, values, values.astype(np.uint8), None)


class OneByOne:
    """How claims are meant: chunk after chunk, from the cursor on."""

    def __init__(self) -> None:
        self.cursors = dict.fromkeys(SPLITS, 0)
        self.claims = {split: [(0, 0.0)] * LAYOUT.chunks(split) for split in SPLITS}
        self.stored = {split: [0] * LAYOUT.chunks(split) for split in SPLITS}

    def claim(self, now: float, version: int, split: Split, lease_seconds: float) -> Chunk | None:
        for candidate in (split, *(other for other in SPLITS if other != split)):
            chunks = LAYOUT.chunks(candidate)
            for step in range(chunks):
                number = (self.cursors[candidate] + step) % chunks
                claimed, until = self.claims[candidate][number]
                if self.stored[candidate][number] < version and (claimed < version or until < now):
                    self.claims[candidate][number] = version, now + lease_seconds
                    self.cursors[candidate] = (number + 1) % chunks
                    return Chunk(candidate, number)
        return None


@pytest.mark.parametrize("seed", range(5))
def test_claims_are_those_of_a_look_at_one_chunk_after_the_other(seed: int) -> None:
    """With workers at several versions, some of which never push."""
    random, now, version = np.random.default_rng(seed), [0.0], 1
    database, plain = MemoryDatabase(lambda: now[0]), OneByOne()
    database.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})
    given = 0
    for _ in range(600):
        now[0] += random.random()
        if random.random() < 0.05:
            version += 1
            database.publish(Published(version, version), np.zeros(1, np.float32))
        at = max(1, version - int(random.integers(0, 3)))
        split, lease = SPLITS[random.integers(3)], float(random.choice([1.0, 30.0]))
        chunk = database.claim(at, split, lease)
        assert chunk == plain.claim(now[0], at, split, lease)
        given += chunk is not None
        if chunk is not None and random.random() < 0.8:
            span = LAYOUT.span(chunk.split, chunk.number)
            if database.push(chunk, at, ones(span.stop - span.start)):
                plain.stored[chunk.split][chunk.number] = at
    assert 100 < given < 600


def test_changes_are_counted_once_each_and_repetitions_are_none() -> None:
    database = MemoryDatabase(lambda: 0.0)
    database.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})
    steps: list[tuple[Callable[[], object], bool]] = [
        (lambda: database.put("acknowledged", {"version": 1}), True),
        (lambda: database.put("acknowledged", {"version": 1}), False),
        (lambda: database.put("acknowledged", {"version": 2}), True),
        (lambda: database.publish(Published(1, 0), np.zeros(1, np.float32)), True),
        (lambda: database.claim(1, "train", 1.0), False),
        (lambda: database.push(Chunk("train", 0), 1, ones(10)), True),
        (lambda: database.push(Chunk("train", 0), 1, ones(10)), False),
        (lambda: database.report("master", {"step": 1}), False),
        (lambda: database.weights(), False),
    ]
    for number, (step, counts) in enumerate(steps):
        before = database.changes
        step()
        assert database.changes - before == counts, number
