"""Peers and a parameter server on the virtual clock: repeatable to the byte, stopped and resumed anywhere."""

import contextlib
import threading
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from issgd_cli.clusters.cluster import ActorError, Interrupted, Snapshot
from issgd_cli.config.config import Config
from issgd_cli.database import Layout
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.runs import traces
from issgd_cli.runs.folder import RunFolder
from issgd_cli.simulation.estimate import estimate

Configured = Callable[..., Config]
NewFolder = Callable[[str], RunFolder]
Simulate = Callable[..., RunFolder]

PEERS = (
    "cluster.kind=simulated",
    "cluster.roles=peers",
    "cluster.clock.step_seconds=0.01",
    "cluster.clock.latency_seconds=0.001",
    "cluster.clock.bytes_per_second=1e6",
    "cluster.clock.checkpoint_seconds=0.003",
    "cluster.clock.apply_seconds=0.001",
    "monitor.every_seconds=0.13",
    "monitor.audit_every_steps=7",
    "master.mode=relaxed",
    "master.publish_every_steps=1",
    "master.checkpoint_every_seconds=0.1",
    "master.steps=60",
    "worker.count=0",
    "worker.chunk_size=1",
    "peers.count=3",
)
SYNCHRONOUS = (*PEERS, "peers.mode=synchronous", "master.steps=20")

KINDS = {
    "asynchronous": PEERS,
    "synchronous": SYNCHRONOUS,
    "uniform": (*PEERS, "proposal.method=sgd"),
    "a limit that drops": (*PEERS, "peers.staleness_limit_versions=2", "cluster.clock.slow={1 = 4}"),
    "a limit that damps": (*PEERS, "peers.staleness_limit_versions=1", "peers.limit_mode=damp"),
    "bfloat16": (*PEERS, "peers.gradients=bfloat16", "peers.refresh_every_steps=4"),
    "until a time": (*PEERS, "master.steps=100000", "master.seconds=0.4"),
    "seldom published": (*PEERS, "master.publish_every_steps=5", "proposal.smoothing=variance-optimal"),
    "a dead peer and a slow one": (*PEERS, "cluster.clock.dies={0 = 0.17}", "cluster.clock.slow={2 = 3}"),
    "a slow server": (*PEERS, "cluster.clock.apply_seconds=0.02", "peers.count=9"),
}


def content(folder: RunFolder) -> dict[str, bytes]:
    return {name: (folder.path / name).read_bytes() for name in ("trace.csv", "events.csv", "parameters.npz")}


def values_of(folder: RunFolder, quantity: str) -> pd.DataFrame:
    trace = traces.read(folder.trace)
    return trace[trace.quantity == quantity]


def last(folder: RunFolder, quantity: str) -> float:
    return float(values_of(folder, quantity).value.iloc[-1])


class StopAfter(threading.Event):
    """Says stop when it has been asked so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("kind", ["asynchronous", "synchronous"])
def test_the_same_configuration_gives_the_same_files_to_the_byte(
    simulate: Simulate, configured: Configured, kind: str
) -> None:
    config = configured(*KINDS[kind])
    one = simulate(config)
    assert content(simulate(config)) == content(one)
    assert content(simulate(configured(*KINDS[kind], "seed=1"))) != content(one)
    audits = values_of(one, "audit/trace/in_use")
    assert audits.step.iloc[-1] == config.master.steps
    assert audits.step.tolist()[:-1] == list(range(0, config.master.steps or 0, 7))
    assert list(one.audits.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_stopped_goes_on_to_the_same_bytes(
    simulate: Simulate, configured: Configured, new_folder: NewFolder, kind: str
) -> None:
    config = configured(*KINDS[kind], "master.checkpoint_every_seconds=0.05")
    patient, folder = StopAfter(10**9), new_folder("stopped")
    whole = content(simulate(config, stop=patient))
    looks = 10**9 - patient.left
    folder.update_manifest(state="running")
    for times in (looks // 2, looks // 3):  # the last of them before its end
        with contextlib.suppress(Interrupted):
            simulate(config, folder, StopAfter(times))
            pytest.fail("it was not stopped")
    simulate(config, folder)
    assert content(folder) == whole


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bytes(
    simulate: Simulate, configured: Configured, new_folder: NewFolder, kind: str
) -> None:
    config, patient = configured(*KINDS[kind]), StopAfter(10**9)
    whole = content(simulate(config, stop=patient))
    looks = 10**9 - patient.left
    for times in [1, 2, looks - 2, *np.random.default_rng(0).integers(3, looks - 2, 6).tolist()]:
        folder = new_folder(f"stopped-after-{times}")
        folder.update_manifest(state="running")
        with pytest.raises(Interrupted):
            simulate(config, folder, StopAfter(times))
        assert content(simulate(config, folder)) == whole, f"stopped after {times} of {looks}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_does_not_depend_on_when_checkpoints_are_made(
    simulate: Simulate, configured: Configured, kind: str
) -> None:
    never = configured(*KINDS[kind], "cluster.clock.checkpoint_seconds=0", "master.checkpoint_every_seconds=1000")
    calm = simulate(never)
    for seconds in (0.02, 0.3):
        often = configured(
            *KINDS[kind], "cluster.clock.checkpoint_seconds=0", f"master.checkpoint_every_seconds={seconds}"
        )
        folder = simulate(often)
        assert folder.trace.read_bytes() == calm.trace.read_bytes(), f"with a checkpoint every {seconds} s"
        assert folder.parameters.read_bytes() == calm.parameters.read_bytes()


def test_operations_take_what_the_clock_says_and_bytes_are_what_travels(
    simulate: Simulate, configured: Configured
) -> None:
    folder = simulate(configured(*PEERS, "peers.count=1"))
    events = traces.read_events(folder.events)
    seconds = {str(name): (group.end - group.start).round(9) for name, group in events.groupby("event")}
    parameters = 4 * (16 * 7 + 7 + 7 * 6 + 6 + 6 * 3 + 3)
    assert set(seconds["pull"]) == {round(0.001 + (parameters + 4 * 95) / 1e6, 9)}
    assert set(seconds["train"]) == {0.01}
    assert set(seconds["apply"]) == {0.001}
    # A number, a norm, a loss and an error an example; one that is drawn twice is pushed once.
    of_examples = ((seconds["push"] - 0.001) * 1e6 - parameters).round()
    assert set(of_examples) <= {17.0 * count for count in range(1, 9)}
    pushes = (seconds["push"] - 0.001).sum() * 1e6
    samples = len(seconds["sample"]) * Layout(95, 5, 23, 1).bytes()
    assert last(folder, "work/bytes_sent") == round(pushes + samples + len(seconds["pull"]) * (parameters + 4 * 95))


def test_uniform_peers_push_gradients_alone(simulate: Simulate, configured: Configured) -> None:
    folder = simulate(configured(*PEERS, "proposal.method=sgd"))
    events = traces.read_events(folder.events)
    parameters = 4 * (16 * 7 + 7 + 7 * 6 + 6 + 6 * 3 + 3)
    assert set((events.end - events.start)[events.event == "push"].round(9)) == {round(0.001 + parameters / 1e6, 9)}
    assert last(folder, "proposal/kept_fraction") == 0.0


def test_bfloat16_halves_what_gradients_take(simulate: Simulate, configured: Configured) -> None:
    folder = simulate(configured(*PEERS, "proposal.method=sgd", "peers.gradients=bfloat16"))
    pushes = traces.read_events(folder.events).query("event == 'push'")
    parameters = 16 * 7 + 7 + 7 * 6 + 6 + 6 * 3 + 3
    assert set((pushes.end - pushes.start).round(9)) == {round(0.001 + 2 * parameters / 1e6, 9)}


@pytest.mark.parametrize("count", [1, 4, 64])
def test_of_so_many_peers_gradients_are_as_old(simulate: Simulate, configured: Configured, count: int) -> None:
    """Between a peer's pull and its gradient's turn come those of all others, or of those that had not come before."""
    folder = simulate(configured(*PEERS, f"peers.count={count}", "master.steps=640", "monitor.audit_every_steps=640"))
    came = {
        name.rpartition("/")[2]: last(folder, name)
        for name in traces.read(folder.trace).quantity.unique()
        if name.startswith("staleness/gradients/count/")
    }
    assert sum(came.values()) == 640
    assert last(folder, "staleness/gradients/max_versions") == pytest.approx(count - 1, abs=1)
    assert (count - 1) / 2 <= last(folder, "staleness/gradients/mean_versions") <= count
    examples = last(folder, "work/examples_trained")
    assert 640 * 8 <= examples <= (640 + count) * 8  # those under way at the end are lost


def test_peers_share_what_they_know_of_single_examples(simulate: Simulate, configured: Configured) -> None:
    folder = simulate(configured(*PEERS, "master.steps=200"))
    kept = values_of(folder, "proposal/kept_fraction").value
    assert 0 < kept.iloc[0] < 0.9
    assert kept.iloc[-1] > 0.9  # the rest is drawn with the mean weight: nothing is left out
    assert last(folder, "audit/trace/in_use") < last(folder, "audit/trace/uniform")
    assert "audit/trace/uniform_in_use" not in set(traces.read(folder.trace).quantity)
    assert last(folder, "loss/train") > 0


def test_a_limit_drops_or_damps_what_is_older(simulate: Simulate, configured: Configured) -> None:
    for mode in ("drop", "damp"):
        folder = simulate(configured(*KINDS["a limit that drops"], f"peers.limit_mode={mode}"))
        dropped, damped = (last(folder, f"staleness/gradients/{what}") for what in ("dropped", "damped"))
        assert (dropped > 0, damped > 0) == ((True, False) if mode == "drop" else (False, True))
        assert last(folder, "staleness/gradients/max_versions") > 2


def test_synchronous_peers_have_no_old_gradient_and_are_sgd_with_their_minibatches_in_one(
    simulate: Simulate, configured: Configured
) -> None:
    folder = simulate(configured(*SYNCHRONOUS, "proposal.method=sgd"))
    assert last(folder, "staleness/gradients/max_versions") == 0.0
    assert last(folder, "staleness/gradients/count/0") == 60.0
    assert 20 * 3 * 8 <= last(folder, "work/examples_trained") <= 21 * 3 * 8  # and one that came too late


def test_a_dead_peer_loses_its_gradient_and_nothing_else(simulate: Simulate, configured: Configured) -> None:
    folder = simulate(configured(*PEERS, "cluster.clock.dies={0 = 0.05, 2 = 0.17}"))
    ends = traces.read_events(folder.events).groupby("actor").end.max()
    assert ends["peer-0"] < 0.05
    assert ends["peer-2"] < 0.17
    assert ends["peer-1"] > 0.4
    assert values_of(folder, "audit/trace/in_use").step.iloc[-1] == 60


def test_a_slow_peer_gives_less_and_older_gradients(simulate: Simulate, configured: Configured) -> None:
    folder = simulate(configured(*PEERS, "cluster.clock.slow={1 = 4}", "master.steps=200"))
    pushes = traces.read_events(folder.events).query("event == 'push'").actor.value_counts()
    assert pushes["peer-0"] / pushes["peer-1"] == pytest.approx(4, rel=0.2)
    assert last(folder, "staleness/gradients/max_versions") > 6


def test_what_diverges_ends_the_run_and_is_told_by_the_server(simulate: Simulate, configured: Configured) -> None:
    with pytest.raises(ActorError, match=r"not finite|refused one after the other") as raised:
        simulate(configured(*PEERS, "optimizer.learning_rate=1e30"))
    assert raised.value.actor == "server"


def test_the_screen_sees_server_and_peers(
    simulate: Simulate, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issgd_cli.simulation.cluster.WATCH_SECONDS", 0.0)
    seen: list[Snapshot] = []
    simulate(configured(*PEERS, "cluster.clock.dies={2 = 0.2}"), watch=seen.append)
    assert set(seen[-1].processes) == {"monitor", "server", "peer-0", "peer-1", "peer-2"}
    assert seen[-1].processes["peer-2"] == "dead"
    assert seen[-1].statuses["server"]["step"] == 60


@pytest.mark.parametrize("mode", ["asynchronous", "synchronous"])
@pytest.mark.parametrize("apply_seconds", [0.0001, 0.02])
def test_the_estimate_knows_how_far_peers_come(
    simulate: Simulate,
    configured: Configured,
    data: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    apply_seconds: float,
) -> None:
    limits = ("master.steps=100000", "master.seconds=1.5", f"cluster.clock.apply_seconds={apply_seconds}")
    config = configured(*PEERS, f"peers.mode={mode}", *limits)
    monkeypatch.setattr("issgd_cli.simulation.estimate.dataset_of", lambda config: data)
    steps = traces.read(simulate(config).trace).step.max()
    assert estimate(config).steps == pytest.approx(steps, rel=0.1)
