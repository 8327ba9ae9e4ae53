"""Seconds of a unit of work, from made-up traces."""

import math
from dataclasses import replace

import pytest

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.pace import relative, seconds_of_work
from issgd_cli.claims.scoreboard import BASELINE, board
from tests.contests import diverged, falling, run_of


def timed(method: str, seed: int, slower: float, kind: str = "alone") -> Run:
    """So many times as slow as a run of a hundredth of a second an example."""
    run = run_of(method, seed, falling()(seed))
    cluster = run.config.cluster.model_copy(update={"kind": kind})
    trace = run.trace.assign(seconds=slower * run.trace["seconds"])
    return replace(run, config=run.config.model_copy(update={"cluster": cluster}), trace=trace)


def test_it_is_that_of_the_whole_run_beside_the_baselines_of_the_same_seed() -> None:
    assert seconds_of_work(timed("looking", 0, 1.5)) == pytest.approx(0.015)
    runs = [timed(BASELINE, seed, 1.0 + seed) for seed in range(3)] + [timed("looking", seed, 3.0) for seed in range(3)]
    found = relative(Runs("", tuple(runs), 6), BASELINE)
    assert found["looking"].values == pytest.approx([3.0, 1.5, 1.0])
    assert found[BASELINE].values == pytest.approx([1.0, 1.0, 1.0])
    told = board({"one": Runs("", tuple(runs), 6)}).plain()["seconds a unit of work"]["one"]["looking"]
    assert told["ratio"] == pytest.approx(1.5)


def test_other_clusters_seconds_are_none_of_a_device() -> None:
    assert seconds_of_work(timed("issgd", 0, 1.0, kind="simulated")) is None
    runs = timed(BASELINE, 0, 1.0), timed("issgd", 0, 1.0, kind="simulated")
    assert len(relative(Runs("", runs, 2), BASELINE)["issgd"]) == 0


def test_one_that_diverged_did_no_such_work() -> None:
    runs = timed(BASELINE, 0, 1.0), diverged("dlis", 0)
    assert relative(Runs("", runs, 2), BASELINE)["dlis"].values.tolist() == [math.inf]


def test_two_machines_seconds_are_not_compared() -> None:
    slow, fast = ({"state": "finished", "machine": {"cpu": cpu}} for cpu in ("slow", "fast"))
    runs = [replace(timed(BASELINE, seed, 1.0), manifest=slow) for seed in (0, 1)]
    runs += [replace(timed("dlis", 0, 2.0), manifest=slow), replace(timed("dlis", 1, 2.0), manifest=fast)]
    found = relative(Runs("", tuple(runs), 4), BASELINE)["dlis"]
    assert (found.seeds, list(found.values)) == ((0,), [2.0])
