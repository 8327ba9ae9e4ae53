"""The soak in short: seven faults upon an exact run, and two upon a relaxed one. `make chaos` does it at length."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from issgd_cli import datasets
from tests.chaos.__main__ import chaos, table
from tests.chaos.faults import FAULTS
from tests.chaos.soak import Outcome, Struck, difference, plan

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")

SHORT = {
    "exact": [
        *("master killed", "monitor killed", "server killed", "launcher killed"),
        *("newest checkpoint damaged, master killed", "no disk for the trace", "training images changed"),
    ],
    "relaxed": ["server killed", "no disk for checkpoints"],
}


@pytest.mark.parametrize("mode", SHORT)
def test_a_run_survives_its_faults_and_loses_nothing(tmp_path: Path, mode: str) -> None:
    datasets.prepare("house-numbers", tmp_path / "data", size=2400)
    random = np.random.default_rng(1)
    outcome = chaos(tmp_path, tmp_path / "data", mode, plan(SHORT[mode], len(SHORT[mode]), random), random)
    assert outcome.struck
    if mode == "relaxed":  # nothing holds its master back: on a fast machine it may be done before its last fault
        outcome = replace(outcome, planned=len(outcome.struck))
    assert outcome.is_whole, "\n".join([*table([outcome]), *map(str, outcome.struck)])


def test_the_kinds_that_are_named_here_exist() -> None:
    assert {kind for kinds in SHORT.values() for kind in kinds} < FAULTS.keys()


def test_every_kind_is_planned_as_often_as_the_others() -> None:
    planned = plan(["a", "b", "c"], 8, np.random.default_rng(0))
    assert len(planned) == 8
    assert {planned.count(kind) for kind in "abc"} == {2, 3}


def test_rows_that_are_lost_or_twice_are_counted() -> None:
    whole = pd.DataFrame({"step": [0, 0, 1], "value": [1.0, 2.0, 2.0]})
    assert difference(whole, whole) == 0
    assert difference(whole, whole[1:]) == 1
    assert difference(pd.concat([whole, whole[:1]]), whole) == 1


@pytest.mark.parametrize("flaw", [{"lost": 1}, {"extra": 1}, {"doubled_events": 1}, {"state": "failed"}])
def test_an_outcome_with_any_flaw_is_not_whole(flaw: dict[str, object]) -> None:
    whole = {
        "mode": "exact",
        "planned": 0,
        "struck": [],
        "rows": 9,
        "lost": 0,
        "extra": 0,
        "doubled_events": 0,
        "state": "finished",
    }
    assert Outcome(**whole).is_whole  # type: ignore[arg-type]
    assert not Outcome(**{**whole, **flaw}).is_whole  # type: ignore[arg-type]
    assert not Outcome(**{**whole, "planned": 1}).is_whole  # type: ignore[arg-type]
    for survived, is_whole in (("status 1", False), ("resumed", True)):
        struck = [Struck("worker killed", 1, 1.0, survived)]
        assert Outcome(**{**whole, "planned": 1, "struck": struck}).is_whole == is_whole  # type: ignore[arg-type]
