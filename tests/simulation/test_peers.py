"""Peers and a parameter server on the virtual clock: repeatable to the byte, stopped and resumed anywhere."""

import contextlib
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest

from issgd_cli.claims.evidence import DIVERGED
from issgd_cli.clusters.cluster import ActorError, Interrupted, Snapshot
from issgd_cli.config.config import Config
from issgd_cli.database import Layout, Weights
from issgd_cli.database.memory import MemoryDatabase
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
    "until some work is done": (*PEERS, "master.steps=100000", "master.work=600"),
    "a slow link": (*PEERS, "cluster.clock.bytes_per_second=5e4", "peers.mode=synchronous", "master.steps=20"),
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
@pytest.mark.parametrize(
    "kind",
    [kind if kind in ("asynchronous", "synchronous") else pytest.param(kind, marks=pytest.mark.soak) for kind in KINDS],
)
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bytes(
    simulate: Simulate, configured: Configured, new_folder: NewFolder, kind: str
) -> None:
    config, patient = configured(*KINDS[kind]), StopAfter(10**9)
    whole = content(simulate(config, stop=patient))
    looks = 10**9 - patient.left
    for times in [1, 2, looks - 2, *np.random.default_rng(0).integers(3, looks - 2, 3).tolist()]:
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
    assert set(seconds["pull"]) == {round(0.001 + (parameters + 8 * 95) / 1e6, 9)}  # norms and versions
    assert set(seconds["train"]) == {0.01}
    assert set(seconds["apply"]) == {0.001}
    # A number, a norm, a loss and an error an example; one that is drawn twice is pushed once.
    of_examples = ((seconds["push"] - 0.001) * 1e6 - parameters).round()
    assert set(of_examples) <= {17.0 * count for count in range(1, 9)}
    pushes = (seconds["push"] - 0.001).sum() * 1e6
    samples = len(seconds["sample"]) * Layout(95, 5, 23, 1).bytes()
    assert last(folder, "work/bytes_sent") == round(pushes + samples + len(seconds["pull"]) * (parameters + 8 * 95))


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (["proposal.method=sgd"], 0),
        (["proposal.smoothing=variance-optimal"], 16),  # and those before
        (["proposal.staleness_limit_versions=5"], 8),
        (["proposal.staleness_limit_seconds=5"], 16),  # and when
        (["proposal.staleness_limit_seconds=5", "proposal.smoothing=second-moment"], 24),
    ],
)
def test_of_the_table_is_read_what_the_proposal_needs(
    simulate: Simulate, configured: Configured, monkeypatch: pytest.MonkeyPatch, settings: list[str], size: int
) -> None:
    """Counted where it is read: what the pull is charged for, to the byte, and no less."""
    read: list[int] = []

    def weights(database: MemoryDatabase, fields: Sequence[str] = Weights._fields) -> Weights:
        found = whole(database, fields)
        if fields != Weights._fields:  # the server's own look
            read.append(sum(getattr(found, name).nbytes for name in fields))
        return found

    whole = MemoryDatabase.weights
    monkeypatch.setattr(MemoryDatabase, "weights", weights)
    folder = simulate(configured(*PEERS, "peers.count=1", "peers.refresh_every_steps=2", *settings))
    pulls = traces.read_events(folder.events).query("event == 'pull'")
    parameters = 4 * (16 * 7 + 7 + 7 * 6 + 6 + 6 * 3 + 3)
    charged = ((pulls.end - pulls.start - 0.001) * 1e6 - parameters).round().tolist()
    assert charged == [size * 95 * (place % 2 == 0) for place in range(len(charged))]
    assert set(read) == ({size * 95} if size else set())
    assert len(read) - sum(each > 0 for each in charged) in (0, 1)  # one may be under way at the end


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


@pytest.mark.parametrize(
    ("count", "longest"), [(1, "pull"), (4, "pull"), (4, "train"), (4, "push"), (64, "pull"), (64, "push")]
)
def test_of_so_many_peers_gradients_are_as_old(
    simulate: Simulate, configured: Configured, count: int, longest: str
) -> None:
    """From where a peer's pull begins to its gradient's turn come those of all others, whatever takes longest; or at
    first of those that come round before it."""
    takes = {"pull": ("pull_seconds", 1.0), "train": ("step_seconds", 0.3), "push": ("push_seconds", 1.0)}[longest]
    calm = ("monitor.every_seconds=1000", "master.checkpoint_every_seconds=1000")
    own = (*calm, "monitor.audit_every_steps=640", f"cluster.clock.{takes[0]}={takes[1]}")
    folder = simulate(configured(*PEERS, f"peers.count={count}", "master.steps=640", *own))
    came = {
        name.rpartition("/")[2]: last(folder, name)
        for name in traces.read(folder.trace).quantity.unique()
        if name.startswith("staleness/gradients/count/")
    }
    assert sum(came.values()) == 640
    assert last(folder, "staleness/gradients/max_versions") == pytest.approx(count - 1, abs=1)
    first_round = sum(range(count)) / 640  # 0, 1, 2, ...
    settled = (count - 1) * (640 - count) / 640
    assert last(folder, "staleness/gradients/mean_versions") == pytest.approx(first_round + settled, abs=0.01)
    examples = last(folder, "work/examples_trained")
    assert 640 * 8 <= examples <= (640 + count) * 8  # those under way at the end are lost


def test_the_age_is_how_many_were_applied_since_the_pull_began(simulate: Simulate, configured: Configured) -> None:
    """Counted in the events, whatever is slow."""
    for settings in ((), ("cluster.clock.slow={1 = 4}",), ("cluster.clock.bytes_per_second=1e5",)):
        folder = simulate(configured(*PEERS, "proposal.method=sgd", "monitor.every_seconds=1000", *settings))
        events = traces.read_events(folder.events)
        applied = events[events.event == "apply"].end.to_numpy()
        ages = []
        for _, own in events[events.actor.str.startswith("peer")].groupby("actor"):
            pulls, pushes = (own[own.event == name] for name in ("pull", "push"))
            for began, pushed in zip(pulls.start, pushes.end, strict=False):
                mine = np.searchsorted(applied, pushed + 1e-9)  # its own is that one, or one that stood in line before
                ages.append(mine - np.searchsorted(applied, began + 1e-9))
        assert last(folder, "staleness/gradients/mean_versions") == pytest.approx(np.mean(ages), abs=0.15)


def test_transfers_of_peers_stand_in_line_for_the_servers_link(simulate: Simulate, configured: Configured) -> None:
    """Each way for itself, the latency not among it."""
    size = 4 * (16 * 7 + 7 + 7 * 6 + 6 + 6 * 3 + 3)
    settings = ("proposal.method=sgd", f"cluster.clock.bytes_per_second={size / 0.05}", "monitor.every_seconds=1000")
    folder = simulate(configured(*PEERS, *settings, "master.steps=30"))
    events = traces.read_events(folder.events)
    first = events[events.event == "pull"].groupby("actor").first()
    assert first.start.tolist() == [0.0] * 3
    np.testing.assert_allclose(first.end, [0.051, 0.101, 0.151])
    for way in ("pull", "push"):
        ends = np.sort(events[events.event == way].end.to_numpy())
        assert np.diff(ends).min() > 0.05 - 1e-9
    assert np.diff(ends)[3:] == pytest.approx(0.05, abs=0.02)  # always in use: 20 gradients a second, however many ask
    constant = simulate(configured(*PEERS, "cluster.clock.pull_seconds=0.05", "monitor.every_seconds=1000"))
    pulls = traces.read_events(constant.events).query("event == 'pull'")
    np.testing.assert_allclose(pulls.end - pulls.start, 0.05)  # a constant is what a transfer takes, whoever else asks


def test_some_work_is_done_at_the_same_step_whatever_is_saved_and_sampled(
    simulate: Simulate, configured: Configured
) -> None:
    ends = set()
    for settings in (
        ("master.checkpoint_every_seconds=0.02",),
        ("master.checkpoint_every_seconds=0.3",),
        ("master.checkpoint_every_seconds=1000", "monitor.every_seconds=0.05"),
        ("master.checkpoint_every_seconds=1000", "monitor.every_seconds=1000"),
    ):
        free = "cluster.clock.checkpoint_seconds=0"
        folder = simulate(configured(*KINDS["until some work is done"], free, *settings))
        ends.add(int(values_of(folder, "audit/trace/in_use").step.iloc[-1]))
        assert last(folder, "work/in_examples") == pytest.approx(600, abs=3 * 2 * 8)
    assert len(ends) == 1


@pytest.mark.parametrize("roles", ["peers", "workers"])
def test_the_last_step_is_audited_once_also_where_it_was_due(
    simulate: Simulate, configured: Configured, roles: str
) -> None:
    """Whether a step is the last is known after its audit was due, where a time ends the run."""
    base = [setting for setting in PEERS if roles == "peers" or not setting.startswith(("peers", "cluster.roles"))]
    base += ["worker.count=2"] if roles == "workers" else []
    limits = ("master.steps=100000", "monitor.audit_every_steps=1", "master.checkpoint_every_seconds=1000")
    for seconds in (0.15, 0.21):
        folder = simulate(configured(*base, *limits, f"master.seconds={seconds}"))
        audits = values_of(folder, "audit/trace/in_use")
        assert audits.step.tolist() == list(range(audits.step.iloc[-1] + 1))
        assert audits.seconds.iloc[-1] == pytest.approx(seconds, abs=0.02)
        assert list(folder.audits.iterdir()) == []


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


@pytest.mark.parametrize("mode", ["asynchronous", "synchronous"])
@pytest.mark.parametrize("rate", ["1e8", "1e30"])
def test_what_diverges_ends_the_run_and_is_told_by_the_server(
    simulate: Simulate, configured: Configured, mode: str, rate: str
) -> None:
    with pytest.raises(ActorError, match=DIVERGED) as raised:
        simulate(configured(*PEERS, f"peers.mode={mode}", f"optimizer.learning_rate={rate}"))
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
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(["cluster.clock.apply_seconds=0.0001"], marks=pytest.mark.long),
        ["cluster.clock.apply_seconds=0.02"],
        ["cluster.clock.bytes_per_second=4e4"],
        ["cluster.clock.bytes_per_second=4e4", "peers.gradients=bfloat16", "proposal.method=sgd"],
    ],
)
def test_the_estimate_knows_how_far_peers_come(
    simulate: Simulate,
    configured: Configured,
    data: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    settings: list[str],
) -> None:
    limits = ("master.steps=100000", "master.seconds=2.5", *settings)
    config = configured(*PEERS, f"peers.mode={mode}", *limits)
    monkeypatch.setattr("issgd_cli.simulation.estimate.dataset_of", lambda config: data)
    steps = traces.read(simulate(config).trace).step.max()
    assert estimate(config).steps == pytest.approx(steps, rel=0.1)
    work = configured(*KINDS["until some work is done"], f"peers.mode={mode}")
    assert estimate(work).steps == pytest.approx(600 / 8 / (3 if mode == "synchronous" else 1), rel=0.2)
