"""The harness: who is called how often, in which order, and what medians and ratios it makes of the seconds."""

import gc
from functools import partial

import numpy as np
import pytest
import torch

from tests.benchmarks.timing import Quartiles, Timings, interleaved


def test_quartiles_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).exponential(1, 40)
    found = Quartiles.of(values)
    assert found.median == pytest.approx(np.median(values))
    assert (found.lower, found.upper) == pytest.approx((np.percentile(values, 25), np.percentile(values, 75)))
    assert Quartiles(1, 2, 3).times(10) == (10, 20, 30)
    assert Quartiles.exactly(4.0) == (4, 4, 4)


def test_ratios_are_paired_round_by_round() -> None:
    """Both grow slower together: the ratio of medians would not see that one always takes twice as long."""
    drift = np.array([1.0, 5.0, 2.0, 9.0, 3.0])
    timings = Timings({"one": 2 * drift, "other": drift})
    assert timings.ratios("one", "other") == (2, 2, 2)
    assert timings.seconds("one").median == 6
    assert timings.fastest("one", "other") == "other"


def test_sums_are_weighted_round_by_round() -> None:
    timings = Timings({"step": np.array([1.0, 2.0, 3.0]), "refresh": np.array([32.0, 64.0, 32.0])})
    whole = timings.summed(both={"step": 1, "refresh": 1 / 32})
    np.testing.assert_allclose(whole.rounds["both"], [2, 4, 4])
    assert set(whole.rounds) == {"step", "refresh", "both"}


def test_candidates_take_turns_in_changing_order(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], list[str]()
    durations = {"slow": 3.0, "fast": 1.0, "middle": 2.0}
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def candidate(name: str) -> None:
        assert torch.get_num_threads() == 1
        assert not gc.isenabled()
        calls.append(name)
        clock[0] += durations[name]

    timings = interleaved({name: partial(candidate, name) for name in durations}, repeats=20, warm_up=3)
    rounds = [calls[first : first + 3] for first in range(0, len(calls), 3)]
    assert len(rounds) == 23
    assert all(sorted(round_) == sorted(durations) for round_ in rounds)
    assert len({tuple(round_) for round_ in rounds}) > 3
    assert all(len(seconds) == 20 for seconds in timings.rounds.values())
    assert timings.seconds("slow").median == 3
    assert timings.ratios("middle", "fast").median == 2
    assert gc.isenabled()


def test_the_clock_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, queue, launches = [0.0], [0.0], [0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def launch() -> None:
        queue[0] += 5.0
        launches[0] += 1

    def synchronize() -> None:
        clock[0] += queue[0]
        queue[0] = 0.0

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    several = interleaved({"kernel": launch}, 4, 0, "cuda:1", calls=3)
    np.testing.assert_array_equal(several.rounds["kernel"], 5.0)  # of one call
    assert launches == [12]
    np.testing.assert_array_equal(interleaved({"kernel": launch}, 4, 0).rounds["kernel"], 0.0)  # a CPU's is done
