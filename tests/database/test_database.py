"""What actors may rely on in a database, held against the one in memory and against a real server alike."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from numpy.typing import NDArray

from issgd_cli.database import SPLITS, Chunk, ChunkScores, Database, Layout, Published, Records, Split
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.database.records import FIELDS, Event
from issgd_cli.database.redis import RedisDatabase, connection
from issgd_cli.database.redis.parameters import KEPT_VERSIONS, PIECE
from issgd_cli.database.server import Server
from issgd_cli.errors import AwayError, DatabaseError, GoneError
from tests.servers import administered

LAYOUT = Layout(train=23, valid=5, test=10, chunk_size=10)  # 3, 1 and 1 chunks
LONG = 60.0  # a lease that does not end within a test
LIMITS = {  # of what records may hold
    **{"errors": (0, 2), "versions": (50, 99), "previous_versions": (1, 50), "gradient_versions": (1, 50)}
}

Open = Callable[[str], Database]
names = itertools.count()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    with administered(tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running


@pytest.fixture
def server(servers: tuple[Server, str]) -> Server:
    return servers[0]


@pytest.fixture
def client(servers: tuple[Server, str]) -> Iterator["redis.Redis"]:
    """A way around the database, to look at keys and to spoil them."""
    with redis.Redis.from_url(servers[1]) as raw:
        yield raw


@pytest.fixture(params=["memory", "redis"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a database on the same server under a run's name."""
    databases: list[Database] = []

    def of(run: str) -> Database:
        if request.param == "memory":
            databases.append(MemoryDatabase(time.monotonic))
        else:
            databases.append(RedisDatabase(request.getfixturevalue("server").url, run))
        return databases[-1]

    yield of
    for database in databases:
        database.close()


def nothing_scored(layout: Layout = LAYOUT) -> dict[Split, Records]:
    return {split: layout.empty(split) for split in SPLITS}


@pytest.fixture
def run() -> str:
    """A run's name that no other test has."""
    return f"experiment/a-issgd-{next(names):08d}/seed-000"


@pytest.fixture
def database(opened: Open, run: str) -> Database:
    """In which a run has just begun."""
    database = opened(run)
    database.begin(LAYOUT, 0.0, nothing_scored())
    return database


def scores(chunk: Chunk, value: float, gradient_norm2: float | None = None) -> ChunkScores:
    """Scores that can be told from those of other chunks and versions."""
    span = LAYOUT.span(chunk.split, chunk.number)
    rows = np.arange(span.start, span.stop, dtype=np.float32)
    norms, losses = ((factor * value + rows).astype(np.float32) for factor in (1, 2))
    return ChunkScores(norms, losses, (rows % 2).astype(np.uint8), gradient_norm2)


def score_all(database: Database, version: int) -> None:
    for split in SPLITS:
        for number in range(LAYOUT.chunks(split)):
            database.push(Chunk(split, number), version, scores(Chunk(split, number), 100.0 * version))


# The run's start


def test_a_run_begins_with_the_records_it_is_given(opened: Open, run: str) -> None:
    random = np.random.default_rng(0)
    given = {
        split: Records(
            **{
                name: random.integers(*LIMITS.get(name, (0, 99)), LAYOUT.shape(split, name)).astype(field.dtype)
                for name, field in FIELDS.items()
            }
        )
        for split in SPLITS
    }
    database = opened(run)
    database.begin(LAYOUT, 0.0, given)
    for split, records in database.records().items():
        for field in dataclasses.fields(Records):
            ours, theirs = getattr(records, field.name), getattr(given[split], field.name)
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype


def test_the_clock_starts_from_the_seconds_it_is_given_and_runs(opened: Open, run: str) -> None:
    database = opened(run)
    database.begin(LAYOUT, 5000.0, nothing_scored())
    first = database.seconds()
    assert 5000 <= first < 5060
    time.sleep(0.02)
    assert 0.015 <= database.seconds() - first < 60  # the server's clock is another than the one that we sleep by


def test_a_new_begin_forgets_all_of_the_run(database: Database) -> None:
    database.publish(Published(1, 0), np.ones(4, np.float32))
    score_all(database, 1)
    database.put("finished", {"step": 1})
    database.report("master", {"step": 1})
    database.push_events("batch", [Event("master", 0, 1, "train", 1)])
    assert database.claim(2, "train", LONG) is not None
    database.begin(LAYOUT, 0.0, nothing_scored())
    assert database.newest() is None
    assert database.parameters() is None
    assert database.get("finished") is None
    assert database.statuses() == {}
    assert database.events() == {}
    assert database.behind(1) == 5
    assert database.claim(1, "train", LONG) == Chunk("train", 0)


@pytest.mark.parametrize(
    ("one", "two"), [("a", "ab"), ("a*", "abc"), ("a?", "ab"), ("a[b]", "ab"), ("x/1", "x/10"), ("a\\*", "a\\bc")]
)
def test_two_runs_on_one_server_do_not_touch_each_other(opened: Open, run: str, one: str, two: str) -> None:
    first, second = opened(run + one), opened(run + two)
    for number, database in enumerate((first, second)):
        database.begin(LAYOUT, 1000.0 * number, nothing_scored())
        database.publish(Published(number + 1, 0), np.full(3, number, np.float32))
        database.put("acknowledged", {"version": number})
    score_all(second, 2)
    first.begin(LAYOUT, 0.0, nothing_scored())  # wipes its own keys only
    assert first.get("acknowledged") is None
    assert second.get("acknowledged") == {"version": 1}
    assert second.newest() == Published(2, 0)
    assert second.behind(2) == 0
    assert second.seconds() >= 1000
    assert first.behind(1) == 5


def test_another_connection_sees_the_run(server: Server, run: str) -> None:
    mine, theirs = RedisDatabase(server.url, run), RedisDatabase(server.url, run)
    mine.begin(LAYOUT, 50.0, nothing_scored())
    assert theirs.layout() == LAYOUT
    assert theirs.seconds() == pytest.approx(mine.seconds(), abs=1)
    mine.close()
    theirs.close()


def test_a_run_that_was_never_begun_is_named(server: Server, run: str) -> None:
    database = RedisDatabase(server.url, run)
    for ask in (
        database.seconds,
        database.layout,
        database.records,
        lambda: database.claim(1, "train", 1.0),
    ):
        with pytest.raises(DatabaseError):
            ask()
    with pytest.raises(DatabaseError, match=f"no run {run}"):
        database.seconds()
    database.close()


# Pushing scores


def test_a_push_stores_the_chunks_scores_and_stamps_them(database: Database) -> None:
    chunk = Chunk("train", 2)
    before = database.seconds()
    assert database.push(chunk, 7, scores(chunk, 100.0, gradient_norm2=0.25))
    records = database.records()["train"]
    np.testing.assert_array_equal(records.norms, [*[0.0] * 20, 120, 121, 122])
    np.testing.assert_array_equal(records.losses, [*[0.0] * 20, 220, 221, 222])
    np.testing.assert_array_equal(records.errors, [*[0] * 20, 0, 1, 0])
    np.testing.assert_array_equal(records.versions, [0, 0, 7])
    np.testing.assert_array_equal(records.previous_versions, [0, 0, 0])
    np.testing.assert_array_equal(records.gradient_norms2, [0, 0, 0.25])
    np.testing.assert_array_equal(records.gradient_versions, [0, 0, 7])
    assert before - 0.01 <= records.seconds[2] <= database.seconds() + 0.01
    np.testing.assert_array_equal(records.seconds[:2], 0)
    others = database.records()
    assert not others["valid"].norms.any()
    assert not others["test"].norms.any()


def test_a_push_moves_the_current_norms_to_the_previous_ones(database: Database) -> None:
    chunk = Chunk("train", 1)
    for version in (1, 4, 9):
        assert database.push(chunk, version, scores(chunk, 100.0 * version))
    records = database.records()["train"]
    np.testing.assert_array_equal(records.norms[10:20], 900 + np.arange(10, 20))
    np.testing.assert_array_equal(records.previous_norms[10:20], 400 + np.arange(10, 20))
    assert (records.versions[1], records.previous_versions[1]) == (9, 4)
    assert not records.previous_norms[:10].any()
    assert not records.previous_norms[20:].any()


def test_the_first_push_leaves_no_previous_norms(database: Database) -> None:
    database.push(Chunk("train", 0), 3, scores(Chunk("train", 0), 1.0))
    records = database.records()["train"]
    assert records.previous_versions[0] == 0
    assert not records.previous_norms.any()


def test_a_repeated_push_changes_nothing(database: Database) -> None:
    chunk = Chunk("train", 0)
    database.push(chunk, 1, scores(chunk, 100.0))
    assert database.push(chunk, 2, scores(chunk, 200.0, 0.5))
    before = database.records()["train"]
    assert not database.push(chunk, 2, scores(chunk, 999.0, 0.9))
    after = database.records()["train"]
    for field in dataclasses.fields(Records):
        np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name))


def test_a_push_of_an_older_version_is_refused(database: Database) -> None:
    chunk = Chunk("valid", 0)
    assert database.push(chunk, 5, scores(chunk, 500.0))
    assert not database.push(chunk, 4, scores(chunk, 400.0))
    records = database.records()["valid"]
    assert (records.versions[0], records.previous_versions[0]) == (5, 0)
    np.testing.assert_array_equal(records.norms, 500 + np.arange(5))


def test_a_push_without_a_gradient_keeps_the_one_before(database: Database) -> None:
    chunk = Chunk("train", 0)
    database.push(chunk, 1, scores(chunk, 100.0, 0.25))
    database.push(chunk, 2, scores(chunk, 200.0))
    records = database.records()["train"]
    assert (records.gradient_norms2[0], records.gradient_versions[0]) == (0.25, 1)


@pytest.mark.parametrize("length", [0, 1, 9, 11])
@pytest.mark.parametrize("field", ["norms", "losses", "errors"])
def test_scores_of_another_length_than_the_chunks_are_refused_and_nothing_is_changed(
    database: Database, field: str, length: int
) -> None:
    chunk = Chunk("train", 0)
    arrays: dict[str, Any] = {field: np.ones(length, np.uint8 if field == "errors" else np.float32)}
    wrong = scores(chunk, 1.0)._replace(**arrays)
    with pytest.raises(DatabaseError, match="not 10 values each"):
        database.push(chunk, 1, wrong)
    assert database.behind(1) == 5
    assert not database.records()["train"].norms.any()


def test_floats_are_stored_to_the_bit(database: Database) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 10, dtype=np.uint64).astype(np.uint32)
    values = np.abs(bits.view(np.float32))
    norms = np.where(np.isfinite(values), values, np.float32(1e-45))
    chunk = Chunk("train", 0)
    database.push(chunk, 1, ChunkScores(norms, norms, np.ones(10, np.uint8), 1 / 3))
    records = database.records()["train"]
    np.testing.assert_array_equal(records.norms[:10].view(np.uint32), norms.view(np.uint32))
    assert records.gradient_norms2[0] == 1 / 3


# Claims


def test_every_chunk_is_given_out_once_at_a_version(database: Database) -> None:
    given = [database.claim(1, "train", LONG) for _ in range(5)]
    assert sorted(chunk for chunk in given if chunk is not None) == sorted(
        Chunk(split, number) for split in SPLITS for number in range(LAYOUT.chunks(split))
    )
    assert given[:3] == [Chunk("train", 0), Chunk("train", 1), Chunk("train", 2)]
    assert database.claim(1, "train", LONG) is None


def test_the_wanted_split_comes_first_and_the_others_when_it_has_nothing_left(database: Database) -> None:
    assert database.claim(1, "test", LONG) == Chunk("test", 0)
    assert database.claim(1, "valid", LONG) == Chunk("valid", 0)
    assert database.claim(1, "valid", LONG) == Chunk("train", 0)


def test_a_scored_chunk_is_not_given_out_again_at_its_version_but_at_the_next(database: Database) -> None:
    score_all(database, 1)
    assert database.claim(1, "train", LONG) is None
    assert database.claim(2, "train", LONG) is not None


def test_a_newer_version_does_not_wait_for_the_claims_of_an_older_one(database: Database) -> None:
    first = [database.claim(1, "train", LONG) for _ in range(5)]
    second = [database.claim(2, "train", LONG) for _ in range(5)]
    assert sorted(chunk for chunk in first if chunk) == sorted(chunk for chunk in second if chunk)
    assert database.claim(2, "train", LONG) is None


def test_a_slow_worker_does_not_take_a_chunk_that_another_scores_at_a_newer_version(database: Database) -> None:
    for _ in range(5):
        database.claim(2, "train", LONG)
    assert database.claim(1, "train", LONG) is None


def test_the_cursor_goes_round_so_that_no_chunk_waits_for_ever(database: Database) -> None:
    taken = [database.claim(version, "train", LONG) for version in range(1, 8)]
    assert [chunk.number for chunk in taken if chunk] == [0, 1, 2, 0, 1, 2, 0]


def test_a_chunk_left_unfinished_is_offered_again_when_its_lease_is_over(database: Database) -> None:
    for lease in (0.05, 0.5, 5.0):  # on a busy machine a short one may be over before all are claimed
        started = time.monotonic()
        database.begin(LAYOUT, 0.0, nothing_scored())
        for _ in range(5):
            database.claim(1, "train", lease)
        left = database.claim(1, "train", lease)
        if time.monotonic() - started < 0.8 * lease:
            break
    assert left is None
    database.push(Chunk("train", 1), 1, scores(Chunk("train", 1), 1.0))
    time.sleep(1.6 * lease)
    again = [database.claim(1, "train", LONG) for _ in range(5)]
    assert {chunk for chunk in again if chunk} == {
        Chunk("train", 0),
        Chunk("train", 2),
        Chunk("valid", 0),
        Chunk("test", 0),
    }


def test_where_nothing_is_left_at_the_newest_version_its_records_are_stamped_as_of_now(database: Database) -> None:
    database.publish(Published(3, 10), np.ones(2, np.float32))
    score_all(database, 3)
    before = database.weights().seconds
    time.sleep(0.03)
    assert database.claim(3, "train", LONG) is None
    after = database.weights().seconds
    assert (after - before >= 0.025).all()
    assert (after <= database.seconds() + 0.05).all()  # our clock is behind the server by a message's way


def test_records_of_an_older_version_are_not_stamped_anew(database: Database) -> None:
    database.publish(Published(3, 10), np.ones(2, np.float32))
    score_all(database, 2)
    database.push(Chunk("train", 1), 3, scores(Chunk("train", 1), 1.0))
    before = database.weights().seconds
    time.sleep(0.03)
    assert database.claim(2, "train", LONG) is None  # asked at an older version than the newest
    np.testing.assert_array_equal(database.weights().seconds, before)
    for _ in range(4):
        assert database.claim(3, "train", LONG) is not None
    assert database.claim(3, "train", LONG) is None  # the rest is being scored
    after = database.weights().seconds
    assert after[1] > before[1]
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])


# What master and monitor read


def test_the_master_reads_norms_of_two_versions_and_when_they_were_scored(database: Database) -> None:
    for version in (1, 2):
        chunk = Chunk("train", 0)
        database.push(chunk, version, scores(chunk, 100.0 * version))
    weights = database.weights()
    np.testing.assert_array_equal(weights.norms[:10], 200 + np.arange(10))
    np.testing.assert_array_equal(weights.versions, [2, 0, 0])
    np.testing.assert_array_equal(weights.previous_versions, [1, 0, 0])
    assert weights.norms.shape == (23,)
    assert weights.seconds.shape == (3,)
    np.testing.assert_array_equal(weights.previous_norms[:10], 100 + np.arange(10))


def test_what_is_read_does_not_change_afterwards(database: Database) -> None:
    weights, records = database.weights(), database.records()
    score_all(database, 1)
    assert not weights.norms.any()
    assert not weights.versions.any()
    assert not records["train"].norms.any()


def test_behind_counts_the_chunks_of_all_splits_at_older_versions(database: Database) -> None:
    assert database.behind(0) == 0
    assert database.behind(1) == 5
    database.push(Chunk("test", 0), 3, scores(Chunk("test", 0), 1.0))
    database.push(Chunk("train", 2), 2, scores(Chunk("train", 2), 1.0))
    assert [database.behind(version) for version in (1, 2, 3, 4)] == [3, 3, 4, 5]


# Documents, statuses, events


def test_documents_are_replaced_and_topics_kept_apart(database: Database) -> None:
    assert database.get("proposal") is None
    database.put("proposal", {"step": 1, "seconds": 0.5, "values": {"a": float("inf"), "b": 1 / 3}})
    database.put("proposal", {"step": 2, "seconds": 0.5, "values": {"a": float("inf"), "b": 1 / 3}})
    database.put("finished", {"step": 9, "version": 3})
    assert database.get("proposal") == {"step": 2, "seconds": 0.5, "values": {"a": float("inf"), "b": 1 / 3}}
    assert database.get("finished") == {"step": 9, "version": 3}
    assert database.get("stop") is None


def test_the_newest_status_of_each_actor_is_kept(database: Database) -> None:
    common = {"process": 7, "seconds": 0.5, "bytes": 4, "examples": {"train": 8}, "doing": "wait"}
    database.report("worker-0", {**common, "version": 1})
    database.report("master", {**common, "step": 1})
    database.report("worker-0", {**common, "version": 2})
    assert database.statuses() == {"master": {**common, "step": 1}, "worker-0": {**common, "version": 2}}


def test_a_repeated_batch_of_events_counts_once_and_written_ones_are_forgotten(database: Database) -> None:
    one, two = Event("master", 0.1, 1 / 3, "train", 1), Event("worker-0", 0.5, 0.75, "score", 2)
    database.push_events("master:1", [one, two])
    database.push_events("master:1", [one, two])
    database.push_events("worker-0:1", [two])
    waiting = database.events()
    assert waiting == {"master:1": [one, two], "worker-0:1": [two]}
    assert all(isinstance(event, Event) for events in waiting.values() for event in events)
    database.forget_events(["master:1", "never-there"])
    assert database.events() == {"worker-0:1": [two]}
    database.forget_events([])
    database.forget_events(["worker-0:1"])
    assert database.events() == {}


# Parameters


def vector(version: int, length: int = 5) -> NDArray[np.float32]:
    return np.full(length, version, np.float32)


def test_before_the_first_publication_there_are_no_parameters(database: Database) -> None:
    assert database.newest() is None
    assert database.parameters() is None


def test_the_newest_parameters_are_read_whole_with_version_and_step(database: Database) -> None:
    for version in range(1, 7):
        database.publish(Published(version, 32 * version), vector(version))
        assert database.newest() == Published(version, 32 * version)
        found = database.parameters()
        assert found is not None
        assert found[0] == Published(version, 32 * version)
        np.testing.assert_array_equal(found[1], vector(version))
        assert found[1].dtype == np.float32


def test_publishing_again_under_the_same_version_is_harmless(database: Database) -> None:
    database.publish(Published(4, 10), vector(4))
    database.publish(Published(4, 10), vector(4))
    found = database.parameters()
    assert found is not None
    assert found[0] == Published(4, 10)


def test_what_is_published_does_not_change_with_the_masters_parameters(database: Database) -> None:
    parameters = vector(1)
    database.publish(Published(1, 0), parameters)
    parameters[:] = 99
    found = database.parameters()
    assert found is not None
    np.testing.assert_array_equal(found[1], vector(1))


def test_a_vector_of_several_pieces_survives(database: Database) -> None:
    length = PIECE // 4 * 2 + 17
    parameters = np.random.default_rng(0).random(length, np.float32)
    database.publish(Published(1, 0), parameters)
    found = database.parameters()
    assert found is not None
    np.testing.assert_array_equal(found[1], parameters)


def test_only_a_few_versions_are_kept_on_the_server(server: Server, client: "redis.Redis", run: str) -> None:
    database = RedisDatabase(server.url, run)
    database.begin(LAYOUT, 0.0, nothing_scored())
    for version in range(1, 12):
        database.publish(Published(version, 0), vector(version, PIECE // 4 + 1))
    pieces = [key.decode().split(":p:")[1] for key in client.scan_iter(match=f"issgd:{run}:p:*")]
    kept = {int(piece.split(":")[0]) for piece in pieces if piece != "cur"}
    assert kept == {9, 10, 11}  # enough for a reader to finish while the master goes on
    assert len(pieces) == 2 * KEPT_VERSIONS + 1
    database.close()


WRITER = """
import itertools, sys, time
import numpy as np
from issgd_cli.database import Published
from issgd_cli.database.redis import RedisDatabase
database = RedisDatabase(sys.argv[1], sys.argv[2])
for version in itertools.count(1):
    database.publish(Published(version, 10 * version), np.full(int(sys.argv[3]), version, np.float32))
    time.sleep(0.005)
"""


def reads(database: Database, length: int, seconds: float) -> list[int]:
    """Versions that were read, each checked to be whole: for some seconds, and until there are ten, or a minute."""
    versions: list[int] = []
    started = time.monotonic()
    while (took := time.monotonic() - started) < seconds or (len(set(versions[-1000:])) < 10 and took < 60):
        found = database.parameters()
        if found is None:
            continue
        published, parameters = found
        assert parameters.shape == (length,)
        assert (parameters == published.version).all(), f"torn: {np.unique(parameters)} under {published}"
        assert published.step == 10 * published.version
        versions.append(published.version)
    return versions


@pytest.mark.slow
def test_no_read_is_torn_while_another_process_publishes_large_vectors(server: Server, run: str) -> None:
    length = PIECE // 4 * 3 + 11  # four pieces
    database = RedisDatabase(server.url, run)
    database.begin(LAYOUT, 0.0, nothing_scored())
    writer = subprocess.Popen([sys.executable, "-c", WRITER, server.url, run, str(length)])
    try:
        while database.newest() is None:
            assert writer.poll() is None
            time.sleep(0.01)
        versions = reads(database, length, 3.0)
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
        database.close()
    assert versions == sorted(versions)
    assert len(set(versions)) > 5
    assert versions[-1] - versions[0] > KEPT_VERSIONS  # old ones were dropped meanwhile


def test_no_read_is_torn_in_memory_while_another_thread_publishes() -> None:
    database = MemoryDatabase(time.monotonic)
    database.begin(LAYOUT, 0.0, nothing_scored())
    over = threading.Event()

    def write() -> None:
        for version in itertools.count(1):
            if over.is_set():
                return
            database.publish(Published(version, 10 * version), vector(version, 100_000))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        versions = reads(database, 100_000, 0.5)
    finally:
        over.set()
        thread.join()
    assert len(set(versions)) > 5


# When things go wrong on the server


def test_commands_ride_over_dropped_connections(server: Server, client: "redis.Redis", run: str) -> None:
    database = RedisDatabase(server.url, run)
    database.begin(LAYOUT, 0.0, nothing_scored())
    database.publish(Published(1, 0), vector(1))
    commands: list[Callable[[], object]] = [
        database.seconds,
        database.records,
        database.parameters,
        lambda: database.weights(),
        lambda: database.claim(1, "train", LONG),
        lambda: database.push(Chunk("train", 0), 1, scores(Chunk("train", 0), 1.0)),
        lambda: database.publish(Published(2, 5), vector(2)),
        lambda: database.put("stop", {}),
    ]
    for command in commands:
        client.client_kill_filter(_type="normal", skipme=True)
        command()
    assert database.behind(1) == 4
    assert database.newest() == Published(2, 5)
    database.close()


def test_scripts_are_loaded_again_by_a_server_that_forgot_them(server: Server, client: "redis.Redis", run: str) -> None:
    database = RedisDatabase(server.url, run)
    database.begin(LAYOUT, 0.0, nothing_scored())
    database.claim(1, "train", LONG)
    client.script_flush()
    assert database.claim(1, "train", LONG) == Chunk("train", 1)
    assert database.push(Chunk("train", 1), 1, scores(Chunk("train", 1), 1.0))
    database.close()


@pytest.mark.parametrize("field", ["norms", "versions", "seconds", "errors"])
@pytest.mark.parametrize("content", [None, b"", b"xx", b"\0" * 1000])
def test_arrays_of_a_wrong_length_on_the_server_are_refused(
    server: Server, client: "redis.Redis", run: str, field: str, content: bytes | None
) -> None:
    database = RedisDatabase(server.url, run)
    database.begin(LAYOUT, 0.0, nothing_scored())
    key = f"issgd:{run}:train:{field}"
    if content is None:
        client.delete(key)
    else:
        client.set(key, content)
    with pytest.raises(DatabaseError, match=rf"train:{field}"):
        database.records()
    database.close()


def test_an_emptied_server_is_told_from_a_run_without_work(server: Server, client: "redis.Redis", run: str) -> None:
    database = RedisDatabase(server.url, run)
    database.begin(LAYOUT, 0.0, nothing_scored())
    for key in client.scan_iter(match=f"issgd:{run}:*"):
        client.delete(key)
    with pytest.raises(DatabaseError, match="gone from the database"):
        database.claim(1, "train", LONG)
    with pytest.raises(DatabaseError, match="gone from the database"):
        database.push(Chunk("train", 0), 1, scores(Chunk("train", 0), 1.0))
    with pytest.raises(GoneError, match=r"The database holds no run .*train:norms"):
        database.weights()
    with pytest.raises(GoneError, match=r"The database holds no run .*start"):
        database.synchronise()
    database.close()


def begun(server: Server, run: str, seconds: float = 0.0) -> RedisDatabase:
    database = RedisDatabase(server.url, run)
    database.begin(LAYOUT, seconds, nothing_scored())
    return database


def test_who_knows_an_earlier_life_of_the_run_writes_nothing_into_this_one(server: Server, run: str) -> None:
    owner, worker = begun(server, run), RedisDatabase(server.worker_url, run)
    owner.publish(Published(7, 0), vector(7))
    assert worker.claim(7, "train", LONG) == Chunk("train", 0)
    again = begun(server, run)  # where no version is published yet, so that 7 could be any
    for _ in range(2):
        with pytest.raises(GoneError, match="set back to a checkpoint"):
            worker.push(Chunk("train", 0), 7, scores(Chunk("train", 0), 1.0))
        with pytest.raises(GoneError, match="set back to a checkpoint"):
            worker.claim(7, "train", LONG)
        with pytest.raises(GoneError, match="set back to a checkpoint"):
            worker.synchronise()
        again.publish(Published(7, 0), vector(7))
    assert not again.records()["train"].versions.any()
    newcomer = RedisDatabase(server.worker_url, run)
    assert newcomer.claim(7, "train", LONG) == Chunk("train", 0)
    assert newcomer.push(Chunk("train", 0), 7, scores(Chunk("train", 0), 1.0))
    for database in (owner, worker, again, newcomer):
        database.close()


def test_the_clock_goes_on_while_the_server_does_not(server: Server, run: str) -> None:
    database = begun(server, run, seconds=50.0)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        first = database.seconds()
        time.sleep(0.05)
        assert 50.05 <= first + 0.05 <= database.seconds() < 110
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert abs(database.synchronise()) < 1  # and the server's went on too
    database.close()


def test_a_clock_that_jumps_back_is_noticed_mended_and_never_seen(
    server: Server, client: "redis.Redis", run: str
) -> None:
    owner, worker = begun(server, run, seconds=50.0), RedisDatabase(server.worker_url, run)
    before = worker.seconds()
    start = json.loads(client.get(f"issgd:{run}:start") or b"")
    # An hour back: the server's time cannot be changed here, so the run's start is.
    client.set(f"issgd:{run}:start", json.dumps({**start, "seconds": start["seconds"] + 3600}))
    moved = owner.synchronise()
    assert moved == pytest.approx(-3600, abs=1)
    worker.synchronise()
    between = worker.seconds()
    assert before < between < before + 60
    owner.advance(-moved)
    assert worker.synchronise() == pytest.approx(0, abs=1)
    assert between <= worker.seconds()  # it may stand for a moment, and never goes back
    assert before < worker.seconds() < before + 60
    worker.claim(1, "train", LONG)
    worker.push(Chunk("train", 0), 1, scores(Chunk("train", 0), 1.0))
    assert before < owner.records()["train"].seconds[0] < before + 60
    for database in (owner, worker):
        database.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["frozen", "refused"])
def test_a_server_that_is_away_is_waited_for_and_not_for_ever(
    tmp_path: Path, run: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 2)
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(connection, "IMPATIENT_SECONDS", 0.5)
    with administered(tmp_path / "server.log") as (server, _):
        database, impatient = begun(server, run), RedisDatabase(server.url, run, patient=False)

        def away() -> None:
            if how == "frozen":
                os.kill(server.process.pid, signal.SIGSTOP)
            else:
                server.process.kill()
                server.process.wait()

        def back() -> None:
            if how == "frozen":
                os.kill(server.process.pid, signal.SIGCONT)
            else:
                server.restart()

        for command in (lambda: database.get("stop"), lambda: database.weights()):
            away()
            started = time.monotonic()
            with pytest.raises(AwayError, match="does not answer"):
                impatient.get("stop")
            with pytest.raises(AwayError, match="does not answer"):
                command()
            assert 2 <= time.monotonic() - started < 30
            back()
        away()
        monkeypatch.setattr(connection, "PATIENCE_SECONDS", 60)
        waiting = threading.Timer(1, back)
        waiting.start()
        assert database.get("stop") is None
        waiting.join()
        database.close()
        impatient.close()


def test_a_slow_answer_does_not_move_the_clock(server: Server, run: str) -> None:
    database = begun(server, run)
    database.seconds()
    os.kill(server.process.pid, signal.SIGSTOP)
    awake = threading.Timer(1.5, os.kill, (server.process.pid, signal.SIGCONT))
    awake.start()
    assert abs(database.synchronise()) < 1
    awake.join()
    database.close()


def test_a_document_that_is_no_object_is_refused(server: Server, client: "redis.Redis", run: str) -> None:
    database = RedisDatabase(server.url, run)
    client.set(f"issgd:{run}:proposal", b"[1, 2]")
    with pytest.raises(DatabaseError, match="JSON object"):
        database.get("proposal")
    database.close()


def test_all_keys_of_a_run_carry_its_name(server: Server, client: "redis.Redis", run: str) -> None:
    before = set(client.scan_iter())
    database = RedisDatabase(server.url, run)
    database.begin(LAYOUT, 0.0, nothing_scored())
    database.publish(Published(1, 0), vector(1))
    database.claim(1, "train", LONG)
    database.put("description", {})
    database.report("master", {})
    database.push_events("b", [Event("master", 0, 1, "train", 1)])
    new = set(client.scan_iter()) - before
    assert len(new) > 30
    assert all(key.startswith(f"issgd:{run}:".encode()) for key in new)
    database.close()


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", ""])
def test_a_url_that_is_none_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(DatabaseError, match="redis://host:6379"):
        RedisDatabase(url, "run")


def test_ping_says_which_server_answers_and_that_none_does(server: Server) -> None:
    database = RedisDatabase(server.url, "run")
    assert database.ping().split()[0] in ("redis", "valkey")
    database.close()
    nobody = RedisDatabase(server.url + ".absent", "run")
    started = time.monotonic()
    with pytest.raises(DatabaseError, match="does not answer"):
        nobody.ping()
    assert time.monotonic() - started < 10  # tried once, not for half a minute
    nobody.close()


# Workers that push at the same time

PUSHER = textwrap.dedent(
    """
    import sys
    import numpy as np
    from issgd_cli.database import Chunk, ChunkScores
    from issgd_cli.database.redis import RedisDatabase
    database = RedisDatabase(sys.argv[1], sys.argv[2])
    accepted = 0
    for version in range(1, 301):
        values = np.full(10, version, np.float32)
        accepted += database.push(Chunk("train", 0), version, ChunkScores(values, values, np.zeros(10, np.uint8), None))
    print(accepted)
    """
)


def test_of_two_workers_that_push_the_same_chunk_at_each_version_one_is_accepted(server: Server, run: str) -> None:
    database = RedisDatabase(server.url, run)
    database.begin(LAYOUT, 0.0, nothing_scored())
    command = [sys.executable, "-c", PUSHER, server.url, run]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    accepted = [int(worker.communicate(timeout=300)[0]) for worker in workers]
    assert sum(accepted) <= 300
    records = database.records()["train"]
    assert (records.versions[0], set(records.norms[:10].tolist())) == (300, {300.0})
    # eq. 9 needs previous norms of a strictly older version, never two of one.
    assert 0 < records.previous_versions[0] < 300
    assert set(records.previous_norms[:10].tolist()) == {float(records.previous_versions[0])}
    database.close()
