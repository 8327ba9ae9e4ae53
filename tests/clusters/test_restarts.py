"""How often who has died is started again, and after which pause."""

import signal
import time

import pytest

from issgd_cli.clusters.restarts import LONG_LIFE_SECONDS, LONGEST_BACKOFF_SECONDS, Restarts, end_of, hint, was_killed


def test_pauses_double_up_to_a_limit_and_end() -> None:
    kept = Restarts(most=9)
    pauses = [kept.pause("worker-0", forgiven=False) for _ in range(9)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert pauses[-1] == LONGEST_BACKOFF_SECONDS
    assert kept.pause("worker-0", forgiven=False) is None
    assert kept.pause("worker-1", forgiven=False) == 0.5  # each for itself
    assert kept.counts == {"worker-0": 9, "worker-1": 1}


def test_who_is_forgiven_begins_anew() -> None:
    kept = Restarts(most=2, counts={"master": 5})  # of the launcher before
    for _ in range(4):
        assert kept.pause("master", forgiven=True) == 0.5
        assert kept.pause("master", forgiven=False) == 1
    assert kept.pause("master", forgiven=False) is None
    assert kept.counts == {"master": 13}


def test_nobody_is_started_again_where_none_may_be() -> None:
    assert Restarts(most=0).pause("master", forgiven=True) is None


def test_a_life_of_a_minute_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    kept = Restarts(most=1)
    kept.began("monitor")
    now[0] += LONG_LIFE_SECONDS - 1
    assert not kept.lived_long("monitor")
    now[0] += 1
    assert kept.lived_long("monitor")


def test_how_a_process_ended_is_told() -> None:
    assert end_of(-9) == "was killed by signal 9"
    assert end_of(1) == "ended with status 1"
    assert [was_killed(status) for status in (-9, 143, 1, 75, 0)] == [True, True, False, False, False]
    assert "memory" in hint(-signal.SIGKILL)
    assert "data file" in hint(-signal.SIGBUS)
    assert hint(-signal.SIGTERM) == hint(1) == ""
