"""The virtual clock: its presets, its scaling, and the constants that a run gives back."""

from collections.abc import Callable

import pytest
import torch

from issgd_cli.actors.actor import Operation
from issgd_cli.config.config import Config
from issgd_cli.config.sections import Clock
from issgd_cli.config.toml import as_toml
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import RunError
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from issgd_cli.simulation.clock import MEASURED, PRESETS, durations, from_run, resolved
from issgd_cli.simulation.estimate import Estimate, estimate, measured

Configured = Callable[..., Config]
Simulate = Callable[..., RunFolder]


def no_measuring() -> Clock:
    raise AssertionError("this machine is not to be timed")


def settled(**keys: object) -> Clock:
    return resolved(Clock.model_validate(keys), 570_000, no_measuring)


def test_a_presets_rate_shrinks_with_the_data_so_that_a_sweep_takes_as_many_steps() -> None:
    whole, part, more = (resolved(Clock(), examples, no_measuring) for examples in (570_000, 28_500, 10**7))
    assert whole == more == PRESETS["k20"]
    assert part.examples_per_second == pytest.approx(7800 / 20)
    assert part.model_copy(update={"examples_per_second": 7800}) == whole
    # Training takes 1 / 0.63 of what scoring takes.
    assert whole.step_seconds == pytest.approx(128 / 7800 / 0.63)


def test_what_is_set_replaces_the_preset_and_is_not_scaled() -> None:
    given = Clock(preset="h200", examples_per_second=50, pull_seconds=0.5, dies={1: 3.0})
    clock = resolved(given, 1000, no_measuring)
    assert (clock.examples_per_second, clock.pull_seconds, clock.dies) == (50, 0.5, {1: 3.0})
    assert clock.step_seconds == PRESETS["h200"].step_seconds
    assert clock.preset == "h200"


def test_this_machine_is_timed_only_for_what_is_left_open() -> None:
    times = Clock.model_validate({"preset": "measured", **dict.fromkeys(MEASURED, 0.25)})
    assert resolved(times, 1000, no_measuring) == times
    partly = resolved(Clock(preset="measured", step_seconds=3), 1000, lambda: times)
    assert (partly.step_seconds, partly.push_seconds, partly.examples_per_second) == (3, 0.25, 0.25)


def test_transfers_take_their_latency_and_their_bytes_scoring_its_examples() -> None:
    of = durations(settled(step_seconds=0.5, examples_per_second=100, latency_seconds=0.1, bytes_per_second=1000))
    for name in ("publish", "refresh", "pull", "push"):
        assert of("master", Operation(name, bytes=200)) == pytest.approx(0.3)
    assert of("worker-0", Operation("score", examples=20)) == pytest.approx(0.2)
    assert of("master", Operation("train", examples=128)) == 0.5
    assert of("master", Operation("wait", seconds=0.07)) == 0.07
    assert of("monitor", Operation("sample", bytes=10**9)) == of("monitor", Operation("audit", examples=10**9)) == 0
    assert of("master", Operation("checkpoint")) == 0


def test_constants_replace_the_model_of_their_operation() -> None:
    names = ("publish", "refresh", "pull", "score", "push", "checkpoint")
    of = durations(settled(**{f"{name}_seconds": number for number, name in enumerate(names)}))
    for number, name in enumerate(names):
        assert of("worker-1", Operation(name, examples=10, bytes=10)) == number  # type: ignore[arg-type]


def test_everything_takes_a_slow_worker_longer_but_waiting() -> None:
    of = durations(settled(slow={1: 3.0}))
    for operation in (Operation("score", examples=20), Operation("pull", bytes=10**6), Operation("push", bytes=100)):
        assert of("worker-1", operation) == pytest.approx(3 * of("worker-0", operation))
    assert of("worker-1", Operation("wait", seconds=0.01)) == 0.01


def test_for_the_oracle_only_training_takes_time() -> None:
    of = durations(settled(), oracle=True)
    for name in ("publish", "refresh", "pull", "score", "push", "checkpoint", "sample"):
        assert of("worker-1", Operation(name, examples=10, bytes=10)) == 0
    assert of("master", Operation("train")) == PRESETS["k20"].step_seconds


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_a_runs_events_give_back_the_clock_that_it_ran_on(
    simulate: Simulate, configured: Configured, statistic: str
) -> None:
    given = Clock(
        preset="measured",
        step_seconds=0.01,
        examples_per_second=500,
        publish_seconds=0.002,
        refresh_seconds=0.003,
        pull_seconds=0.004,
        push_seconds=0.005,
        checkpoint_seconds=0.006,
    )
    config = configured(
        "cluster.kind=simulated", "master.mode=relaxed", "master.steps=300", "monitor.every_seconds=0.1"
    )
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"clock": given})})
    folder = simulate(config)
    folder.config.write_text(as_toml(config))
    found = from_run(folder, statistic)  # type: ignore[arg-type]
    for name in MEASURED:
        assert getattr(found, name) == pytest.approx(getattr(given, name), rel=0.02), name


def test_a_run_that_has_not_done_everything_gives_no_clock(simulate: Simulate, configured: Configured) -> None:
    config = configured("cluster.kind=simulated", "master.mode=relaxed", "worker.count=0")
    folder = simulate(config)
    folder.config.write_text(as_toml(config))
    with pytest.raises(RunError, match="has no pull, push, score among its events"):
        from_run(folder)


def test_a_machine_can_be_timed(configured: Configured, data: Prepared) -> None:
    config = configured("master.mode=relaxed")
    clock = measured(config, Problem(config, data), torch.device("cpu"))
    assert all(0 < getattr(clock, name) < 10**7 for name in MEASURED)


def test_a_simulated_runs_real_length_follows_from_what_the_clock_lets_be_scored(
    configured: Configured, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issgd_cli.simulation.estimate.dataset_of", lambda config: data)
    monkeypatch.setattr("issgd_cli.simulation.estimate._seconds", lambda operation: 0.001)  # whatever else runs here

    def of(*settings: str) -> Estimate:
        return estimate(configured("cluster.kind=simulated", "master.mode=relaxed", *settings))

    limited = of("master.steps=1000000", "master.seconds=26.05", "worker.count=0")
    assert limited.steps == 1000  # of the k20's 26 ms
    alone = of("master.steps=1000", "worker.count=0")
    fast = of("master.steps=1000", "cluster.clock.examples_per_second=1e9")
    assert alone.step_seconds < fast.step_seconds
    assert alone.seconds == pytest.approx(1000 * alone.step_seconds)
