"""Seconds to a target, from made-up traces."""

import math
from dataclasses import replace

import pytest

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.scoreboard import BASELINE, board, in_seconds
from issgd_cli.claims.targets import TARGETS
from tests.contests import diverged, falling, run_of

LOSS = TARGETS[0]


def timed(method: str, seed: int, slower: float, kind: str = "alone", cpu: str = "") -> Run:
    """As fast as reshuffled SGD by work; so many times as slow as a run of a hundredth of a second an example."""
    run = run_of(method, seed, falling()(seed), manifest={"state": "finished", "machine": {"cpu": cpu}})
    cluster = run.config.cluster.model_copy(update={"kind": kind})
    trace = run.trace.assign(seconds=slower * run.trace["seconds"])
    return replace(run, config=run.config.model_copy(update={"cluster": cluster}), trace=trace)


def test_they_are_of_the_same_way_to_the_target_as_the_baselines_of_the_same_seed() -> None:
    runs = [timed(BASELINE, seed, 1.0 + seed) for seed in range(3)] + [timed("looking", seed, 3.0) for seed in range(3)]
    found = board({"one": Runs("", tuple(runs), 6)})
    assert found.seconds["one"]["looking"].values == pytest.approx([3.0, 1.5, 1.0])
    assert found.seconds["one"][BASELINE].values == pytest.approx([1.0, 1.0, 1.0])
    assert found.plain()["seconds"]["one"]["looking"]["ratio"] == pytest.approx(1.5)


def test_half_the_work_at_twice_the_time_is_no_gain() -> None:
    fast = run_of("looking", 0, falling(2.0)(0))
    slow = replace(fast, trace=fast.trace.assign(seconds=2 * fast.trace["seconds"]))
    alone = timed("looking", 0, 1.0).config
    runs = Runs("", (timed(BASELINE, 0, 1.0), replace(slow, config=alone)), 2)
    assert in_seconds(runs, "looking", LOSS).values == pytest.approx([1.0], rel=0.01)


def test_other_clusters_seconds_are_none_of_a_device() -> None:
    runs = timed(BASELINE, 0, 1.0), timed("issgd", 0, 1.0, kind="simulated")
    assert len(in_seconds(Runs("", runs, 2), "issgd", LOSS)) == 0
    of_another = diverged("issgd", 0).config.cluster.kind
    assert of_another != "alone"
    assert len(in_seconds(Runs("", (runs[0], diverged("issgd", 0)), 2), "issgd", LOSS)) == 0


def test_two_machines_seconds_are_not_compared() -> None:
    runs = [timed(BASELINE, seed, 1.0, cpu="slow") for seed in (0, 1)]
    runs += [timed("dlis", 0, 2.0, cpu="slow"), timed("dlis", 1, 2.0, cpu="fast")]
    found = in_seconds(Runs("", tuple(runs), 4), "dlis", LOSS)
    assert (found.seeds, found.values.tolist()) == ((0,), pytest.approx([2.0]))


def test_one_that_diverged_is_never_there() -> None:
    config = timed("dlis", 0, 1.0).config
    runs = timed(BASELINE, 0, 1.0), replace(diverged("dlis", 0), config=config)
    assert in_seconds(Runs("", runs, 2), "dlis", LOSS).values.tolist() == [math.inf]
