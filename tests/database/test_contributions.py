"""Gradients on their way, and scores of single examples: in memory, on a real server, and by a peer's rights there."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis
from numpy.typing import NDArray

from issgd_cli.database import SPLITS, Database, Layout, Published
from issgd_cli.database.contributions import TYPES, Contribution, ExampleScores, numbers_of
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.redis.parameters import PIECE
from issgd_cli.database.server import Server
from issgd_cli.errors import DatabaseError, GoneError, RecordError
from tests.servers import administered

LAYOUT = Layout(train=6, valid=2, test=2, chunk_size=1)
SIZE = 5
names = itertools.count()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    with administered(tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Database, Database]]:
    """The parameter server's and a peer's, in which version 3 has just been published."""
    if request.param == "memory":
        one: Any = MemoryDatabase(time.monotonic)
        other: Any = one
    else:
        server, _ = request.getfixturevalue("servers")
        run = f"experiment/peers-{next(names)}/seed-000"
        one, other = RedisDatabase(server.url, run), RedisDatabase(server.worker_url, run)
    one.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})
    one.publish(Published(3, 2), np.zeros(SIZE, np.float32))
    yield one, other
    one.close()
    other.close()


def gradient(peer: int, number: int, version: int = 3, value: float = 1.0, size: int = SIZE) -> Contribution:
    return Contribution(peer, number, version, 0.5, np.full(size, value, "<f4"))


def scores(*indices: int, value: float = 1.0) -> ExampleScores:
    ones = np.full(len(indices), value, np.float32)
    return ExampleScores(np.array(indices), ones, 2 * ones, np.ones(len(indices), np.uint8))


def received(database: Database, size: int = SIZE) -> list[tuple[int, int]]:
    """Peers and numbers of all that waits, taken one by one."""
    found = []
    while (one := database.contribution(size)) is not None:
        database.take(one)
        found.append((one.peer, one.number))
    return found


def test_gradients_come_in_the_order_in_which_they_were_handed_over(both: tuple[Database, Database]) -> None:
    server, peers = both
    assert server.contribution(SIZE) is None
    for peer in (7, 2, 11):
        assert peers.is_taken(peer)
        assert peers.contribute(gradient(peer, 1, value=peer))
        assert not peers.is_taken(peer)
    first = server.contribution(SIZE)
    assert first is not None
    assert (first.peer, first.number, first.version, first.loss) == (7, 1, 3, 0.5)
    assert first.gradient.tolist() == [7.0] * SIZE
    assert received(server) == [(7, 1), (2, 1), (11, 1)]
    assert peers.is_taken(7)


def test_one_each_waits_and_a_repeated_one_counts_once(both: tuple[Database, Database]) -> None:
    server, peers = both
    assert peers.contributed(0) == 0
    assert peers.contribute(gradient(0, 4))
    assert peers.contribute(gradient(0, 4))
    assert not peers.contribute(gradient(0, 5, value=9.0))
    assert peers.contributed(0) == 4
    first = server.contribution(SIZE)
    assert first is not None
    assert first.gradient.tolist() == [1.0] * SIZE  # what waits is what was handed over
    assert received(server) == [(0, 4)]
    assert peers.contribute(gradient(0, 4))  # told again after it was taken, its answer having been lost
    assert received(server) == []
    assert peers.contribute(gradient(0, 5))
    assert received(server) == [(0, 5)]


def test_no_two_peers_have_one_number(both: tuple[Database, Database]) -> None:
    _, peers = both
    assert [peers.enlist(5, token) for token in ("a", "b", "a", "c")] == [5, 6, 5, 7]
    assert peers.enlist(6, "d") == 8
    assert peers.enlist(100, "d") == 100


def test_of_what_was_taken_nothing_stays(servers: tuple[Server, str]) -> None:
    """No piece: of gradients that were read, refused, or told of as nothing can be."""
    run = f"experiment/peers-{next(names)}/seed-000"
    database, peer = (RedisDatabase(url, run) for url in (servers[0].url, servers[0].worker_url))
    database.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})
    database.publish(Published(3, 2), np.zeros(SIZE, np.float32))
    with redis.Redis.from_url(servers[1]) as raw:

        def pieces() -> list[bytes]:
            return sorted(raw.keys(f"issgd:{run}:g:*"))

        for number, size in enumerate((SIZE, 1, 3 * PIECE // 4), 1):
            for other in (1, 2):
                peer.contribute(gradient(other, number, size=size))
            assert len(pieces()) == (6 if size > SIZE else 2)
            assert all(0 < raw.ttl(key) <= 24 * 3600 for key in pieces())  # its peer may die before it tells of it
            assert received(database) == [(1, number), (2, number)]
            assert pieces() == []
        peer.contribute(gradient(1, 9, size=3 * PIECE // 4))
        peer.contribute(gradient(2, 9))
        raw.hset(f"issgd:{run}:contributions", "1", "not JSON")
        assert received(database) == [(2, 9)]
        assert pieces() == []
    database.close()
    peer.close()


def test_taking_one_leaves_the_pieces_of_the_next(servers: tuple[Server, str]) -> None:
    run = f"experiment/peers-{next(names)}/seed-000"
    database = RedisDatabase(servers[0].url, run)
    database.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})
    database.publish(Published(3, 2), np.zeros(SIZE, np.float32))
    database.contribute(gradient(0, 1))
    first = database.contribution(SIZE)
    assert first is not None
    database.take(first)
    database.contribute(gradient(0, 2, value=2.0))
    database.take(first)  # repeated, its answer having been lost
    database.contribute(gradient(0, 2, value=9.0))  # likewise: nothing is written over what may be being read
    second = database.contribution(SIZE)
    assert second is not None
    assert second.gradient.tolist() == [2.0] * SIZE
    database.close()


def test_what_is_taken_twice_leaves_the_next_one_alone(both: tuple[Database, Database]) -> None:
    server, peers = both
    peers.contribute(gradient(0, 1))
    first = server.contribution(SIZE)
    assert first is not None
    server.take(first)
    peers.contribute(gradient(0, 2))
    server.take(first)
    assert received(server) == [(0, 2)]


@pytest.mark.parametrize("version", [-1, 0, 4])
def test_a_gradient_of_a_version_that_never_was_is_refused(both: tuple[Database, Database], version: int) -> None:
    server, peers = both
    with pytest.raises(RecordError, match="never was"):
        peers.contribute(gradient(0, 1, version))
    assert server.contribution(SIZE) is None


def test_of_a_gradient_of_wrong_length_no_more_is_read_than_shows_that(both: tuple[Database, Database]) -> None:
    server, peers = both
    peers.contribute(gradient(0, 1, size=SIZE - 1))
    peers.contribute(gradient(1, 1, size=10 * PIECE // 4))
    for _ in range(2):
        one = server.contribution(SIZE)
        assert one is not None
        assert len(one.gradient) != SIZE
        server.take(one)


def test_long_gradients_come_whole_in_either_type(both: tuple[Database, Database]) -> None:
    server, peers = both
    numbers = np.random.default_rng(0).standard_normal(PIECE // 4 + 3).astype("<f4")
    halves = (numbers.view("<u4") >> 16).astype("<u2")
    for number, sent in enumerate((numbers, halves), 1):
        peers.contribute(Contribution(3, number, 3, float("nan"), sent))
        one = server.contribution(len(numbers))
        assert one is not None
        np.testing.assert_array_equal(one.gradient, sent)
        np.testing.assert_allclose(numbers_of(one.gradient), numbers, rtol=0 if number == 1 else 2**-7)
        server.take(one)


def test_scores_of_examples_are_newer_or_nothing(both: tuple[Database, Database]) -> None:
    server, peers = both
    assert peers.push_examples(2, scores(4, 1, value=2.0)) == 2
    assert peers.push_examples(2, scores(1, value=9.0)) == 0
    assert peers.push_examples(4, scores(1, value=9.0)) == 0  # of a version that is still to come
    assert peers.push_examples(3, scores(0, 1, value=3.0)) == 2
    records = server.records()["train"]
    assert records.norms.tolist() == [3, 3, 0, 0, 2, 0]
    assert records.losses.tolist() == [6, 6, 0, 0, 4, 0]
    assert records.previous_norms.tolist() == [0, 2, 0, 0, 0, 0]
    assert records.versions.tolist() == [3, 3, 0, 0, 2, 0]
    assert records.previous_versions.tolist() == [0, 2, 0, 0, 0, 0]
    assert records.errors.tolist() == [1, 1, 0, 0, 1, 0]
    assert (records.seconds > 0).tolist() == [True, True, False, False, True, False]


@pytest.mark.parametrize(
    "flawed",
    [
        scores(1, 1),
        scores(6),
        scores(-1),
        scores(1, value=np.nan),
        scores(1, value=-1.0),
        scores(1)._replace(losses=np.ones(2, np.float32)),
        scores(1)._replace(errors=np.array([2], np.uint8)),
    ],
)
def test_scores_that_cannot_be_are_refused(both: tuple[Database, Database], flawed: ExampleScores) -> None:
    server, peers = both
    with pytest.raises(RecordError):
        peers.push_examples(3, flawed)
    assert not server.records()["train"].versions.any()


def test_where_records_are_of_chunks_no_example_can_be_pushed() -> None:
    database, layout = MemoryDatabase(time.monotonic), Layout(6, 2, 2, chunk_size=2)
    database.begin(layout, 0.0, {split: layout.empty(split) for split in SPLITS})
    with pytest.raises(DatabaseError, match=r"worker\.chunk_size = 1"):
        database.push_examples(1, scores(1))


def test_a_peer_of_an_earlier_life_of_the_run_hands_over_nothing(servers: tuple[Server, str]) -> None:
    run = f"experiment/peers-{next(names)}/seed-000"
    owner, peer = RedisDatabase(servers[0].url, run), RedisDatabase(servers[0].worker_url, run)
    for _ in range(2):
        owner.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})
        owner.publish(Published(3, 2), np.zeros(SIZE, np.float32))
        peer.seconds()  # knows the first life
    with pytest.raises(GoneError):
        peer.contribute(gradient(0, 1))
    with pytest.raises(GoneError):
        peer.push_examples(3, scores(1))
    assert owner.contribution(SIZE) is None
    assert not owner.records()["train"].versions.any()


@pytest.mark.parametrize(
    ("peer", "told"),
    [
        ("0", "not JSON"),
        ("0", json.dumps([1, 3, 1, 0.5, "float32"])),
        ("0", json.dumps([1, 3, 1, 0.5, "float64", 20])),
        ("0", json.dumps([1, 3, 1, "loss", "float32", 20])),
        ("0", json.dumps([1, -3, 1, 0.5, "float32", 20])),
        ("0", json.dumps([1, 3, 1, 0.5, "float32", 2**60])),
        ("no number", json.dumps([1, 3, 1, 0.5, "float32", 20])),
        ("1" * 300, json.dumps([1, 3, 1, 0.5, "float32", 20])),
    ],
)
def test_what_tells_of_no_gradient_is_removed_and_the_others_come(
    servers: tuple[Server, str], peer: str, told: str
) -> None:
    run = f"experiment/peers-{next(names)}/seed-000"
    database = RedisDatabase(servers[0].url, run)
    database.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})
    database.publish(Published(3, 2), np.zeros(SIZE, np.float32))
    database.contribute(gradient(9, 1))
    with redis.Redis.from_url(servers[1]) as raw:
        raw.hset(f"issgd:{run}:contributions", peer, told)
        assert received(database) == [(9, 1)]
        assert raw.hlen(f"issgd:{run}:contributions") == 0


def test_a_peer_that_has_slept_through_the_end_of_a_life_writes_over_no_gradient(servers: tuple[Server, str]) -> None:
    """Frozen when it had looked whether it may hand over, and woken in the next life, whose gradient waits."""
    run = f"experiment/peers-{next(names)}/seed-000"
    owner, old = (RedisDatabase(url, run) for url in (servers[0].url, servers[0].worker_url))
    for life in range(2):
        owner.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})
        owner.publish(Published(3, 2), np.zeros(SIZE, np.float32))
        if not life:
            assert old.contribute(gradient(1, 1))
            assert old.is_taken(2)
    new = RedisDatabase(servers[0].worker_url, run)
    assert new.contribute(gradient(2, 1))
    old.is_taken = lambda peer: True  # type: ignore[method-assign]
    old.contributed = lambda peer: 0  # type: ignore[method-assign]
    with pytest.raises(GoneError):
        old.contribute(gradient(2, 1)._replace(gradient=np.full(SIZE, 7, np.float32)))
    (found,) = [owner.contribution(SIZE)]
    assert found is not None
    np.testing.assert_array_equal(found.gradient, gradient(2, 1).gradient)


def test_pieces_that_are_gone_make_a_gradient_of_wrong_length(servers: tuple[Server, str]) -> None:
    run = f"experiment/peers-{next(names)}/seed-000"
    database = RedisDatabase(servers[0].url, run)
    database.begin(LAYOUT, 0.0, {split: LAYOUT.empty(split) for split in SPLITS})
    database.publish(Published(3, 2), np.zeros(SIZE, np.float32))
    database.contribute(gradient(0, 1))
    with redis.Redis.from_url(servers[1]) as raw:
        (piece,) = raw.keys(f"issgd:{run}:g:*")
        raw.delete(piece)
    one = database.contribution(SIZE)
    assert one is not None
    assert len(one.gradient) == 0


def test_fields_that_are_not_asked_for_are_zeros(both: tuple[Database, Database]) -> None:
    server, peers = both
    for version in (2, 3):
        peers.push_examples(version, scores(4, 1, value=2.0))
    whole, part = server.weights(), peers.weights(("norms", "versions"))
    for name, array in whole._asdict().items():
        assert array.any()
        np.testing.assert_array_equal(getattr(part, name), array if name in ("norms", "versions") else 0 * array)


@pytest.mark.parametrize("kind", TYPES)
def test_every_number_is_what_it_was(kind: str) -> None:
    sent: NDArray[Any] = np.array([0, 1, -2.5, np.inf, -0.0, 2**-126], "<f4")
    if kind == "bfloat16":
        sent = (sent.view("<u4") >> 16).astype("<u2")
    np.testing.assert_array_equal(numbers_of(sent), np.array([0, 1, -2.5, np.inf, -0.0, 2**-126], np.float32))
