"""What a user is told of a run, once each."""

from typing import Any, cast

import pytest

from issgd_cli.clusters.notices import AWAY_SECONDS, MOST_NOTICES, Notices
from issgd_cli.clusters.service import Service
from issgd_cli.database.server import Server
from issgd_cli.errors import AwayError, DatabaseError, GoneError
from tests.clusters.conftest import OwnedMemory


@pytest.fixture
def notices(service: Service) -> Notices:
    return Notices(service)


def test_what_actors_and_database_tell_is_told_once(notices: Notices, database: OwnedMemory) -> None:
    database.report("worker-0", {"notices": ["a chunk was refused"]})
    database.grumbles = ["status of x is damaged"]
    for _ in range(3):
        notices.look()
    assert notices.snapshot.notices == ["status of x is damaged", "worker-0: a chunk was refused"]
    assert notices.snapshot.statuses == {"worker-0": {"notices": ["a chunk was refused"]}}


def test_nobody_can_flood_the_screen(notices: Notices, database: OwnedMemory) -> None:
    database.report("worker-0", {"notices": [str(number) for number in range(2 * MOST_NOTICES)]})
    notices.look()
    assert len(notices.snapshot.notices) == MOST_NOTICES
    notices.tell("master was killed by signal 9; going back to the last checkpoint")  # is told nevertheless
    assert notices.snapshot.notices[-1].startswith("master was killed")


def test_a_short_silence_is_none_and_a_longer_one_is_told_with_its_end(
    notices: Notices, database: OwnedMemory, now: list[float]
) -> None:
    silence = AwayError("it does not answer")
    for error, seconds in ((silence, AWAY_SECONDS - 1), (None, 1), (silence, AWAY_SECONDS), (silence, 1.0)):
        database.error = error
        notices.look()
        now[0] += seconds
    assert notices.snapshot.notices == [
        "the database does not answer; waiting for it, and training as far as that goes"
    ]
    assert notices.snapshot.away == AWAY_SECONDS
    database.error = None
    notices.look()
    assert notices.snapshot.notices[1:] == ["the database answers again, after 3 s"]
    assert notices.snapshot.away == 0.0


def test_a_clock_that_was_set_back_is_told(notices: Notices, database: OwnedMemory) -> None:
    database.moved = -3600.0
    notices.look()
    assert notices.snapshot.notices == ["the database's clock was set back by 3600 s; the run's own goes on"]
    assert notices.snapshot.seconds == 3600.0


def test_what_is_wrong_with_the_database_is_told_once_and_that_the_run_is_gone_by_its_actors(
    notices: Notices, database: OwnedMemory
) -> None:
    for error in (DatabaseError("it refuses us"), GoneError("no such run"), DatabaseError("it refuses us")):
        database.error = error
        notices.look()
    assert notices.snapshot.notices == ["it refuses us"]


def test_a_server_that_has_died_is_not_asked(
    notices: Notices, database: OwnedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dead:
        def poll(self) -> int:
            return -9

    server = cast(Server, type("Server", (), {"process": Dead()})())
    monkeypatch.setattr(notices.service, "server", server)
    asked: list[Any] = []
    monkeypatch.setattr(database, "synchronise", lambda: asked.append(1))
    notices.look()
    assert asked == []
