"""The simulated cluster: repeatable to the byte, stopped and resumed anywhere, true to its clock."""

import contextlib
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from issgd_cli.actors.actor import Actor, Operation
from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.worker import Scorer, Worker
from issgd_cli.clusters.cluster import ActorError, Interrupted, Snapshot
from issgd_cli.config.config import Config
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import DamagedError, RunError
from issgd_cli.figures import figure_1
from issgd_cli.problem import Problem
from issgd_cli.runs import traces
from issgd_cli.runs.checkpoints import load_checkpoint, save_checkpoint
from issgd_cli.runs.folder import RunFolder
from issgd_cli.simulation.virtual import VirtualTime

CPU = torch.device("cpu")

Configured = Callable[..., Config]
Begun = Callable[[Config], MemoryDatabase]
NewFolder = Callable[[str], RunFolder]
Play = Callable[..., list[tuple[Actor, Operation]]]
Simulate = Callable[..., RunFolder]

# Steps of 10 ms, chunks of 10 examples in 20 ms: 3 workers score all of the 14 chunks while the master does 10 steps.
CLOCK = (
    "cluster.kind=simulated",
    "cluster.clock.step_seconds=0.01",
    "cluster.clock.examples_per_second=500",
    "cluster.clock.latency_seconds=0.001",
    "cluster.clock.bytes_per_second=1e6",
    "cluster.clock.checkpoint_seconds=0.003",
    "monitor.every_seconds=0.13",
    "master.checkpoint_every_seconds=0.2",
    "worker.count=3",
    "monitor.audit_every_steps=7",
)
RELAXED = (*CLOCK, "master.mode=relaxed", "master.steps=60", "worker.pull_every_chunks=4")
EXACT = (*CLOCK, "master.mode=exact", "master.steps=20")
TIMED = (*RELAXED, "master.steps=100000", "master.seconds=0.7", "proposal.smoothing=variance-optimal")
BY_WORK = (*RELAXED, "master.steps=100000", "master.work=900")
ONE_CHECKPOINT = "master.checkpoint_every_seconds=1000"


def content(folder: RunFolder) -> dict[str, bytes]:
    return {name: (folder.path / name).read_bytes() for name in ("trace.csv", "events.csv", "parameters.npz")}


def values_of(folder: RunFolder, quantity: str) -> pd.DataFrame:
    trace = traces.read(folder.trace)
    return trace[trace.quantity == quantity]


# The same to the byte


@pytest.mark.parametrize("settings", [RELAXED, EXACT])
def test_the_same_configuration_gives_the_same_files_to_the_byte(
    simulate: Simulate, configured: Configured, settings: tuple[str, ...]
) -> None:
    config = configured(*settings)
    one = simulate(config)
    assert content(simulate(config)) == content(one)
    assert content(simulate(configured(*settings, "seed=1"))) != content(one)
    assert traces.read(one.trace).step.max() == config.master.steps
    assert list(one.audits.iterdir()) == []


class StopAfter(threading.Event):
    """Says stop when it has been asked so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.slow
@pytest.mark.parametrize("settings", [RELAXED, EXACT, pytest.param(TIMED, marks=pytest.mark.long)])
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bytes(
    simulate: Simulate, configured: Configured, new_folder: NewFolder, settings: tuple[str, ...]
) -> None:
    """Between any two operations: before the first checkpoint, at one, among audits, after the last step."""
    config, patient = configured(*settings), StopAfter(10**9)
    whole = content(simulate(config, stop=patient))
    looks = 10**9 - patient.left
    assert looks > 300
    for times in [1, 2, looks - 2, *np.random.default_rng(0).integers(3, looks - 2, 5).tolist()]:
        folder = new_folder(f"stopped-after-{times}")
        folder.update_manifest(state="running")
        with pytest.raises(Interrupted):
            simulate(config, folder, StopAfter(times))
        assert content(simulate(config, folder)) == whole, f"stopped after {times} of {looks}"


# Each has moments of its own: norms laid over the table, workers that are dead or wait, rounds and chunks under way.
KINDS = {
    "relaxed": RELAXED,
    "exact": EXACT,
    "until a time": TIMED,
    "until some work is done": BY_WORK,
    "own norms": (*RELAXED, "master.reuse_own_norms=true", "proposal.limit_mode=fill"),
    "a limit": (*RELAXED, "proposal.staleness_limit_seconds=0.1", "proposal.minimum_usable_fraction=0.3"),
    "a slow worker and a dead one": (*RELAXED, "cluster.clock.slow={1 = 4}", "cluster.clock.dies={0 = 0.17}"),
    "idle workers": (*RELAXED, "worker.count=20", "master.publish_every_steps=7"),
    "exact, idle workers": (*EXACT, "worker.count=20", "proposal.smoothing=variance-optimal"),
    "slow exchange": (*RELAXED, "cluster.clock.publish_seconds=0.08", "cluster.clock.refresh_seconds=0.05"),
    "uniform draws": (*RELAXED, "proposal.method=sgd", "worker.count=1", "cluster.clock.examples_per_second=150"),
    "shuffled": (*RELAXED, "proposal.source=shuffled"),
    "oracle": (*EXACT, "proposal.source=oracle", "master.publish_every_steps=1"),
    "reshuffled": (*RELAXED, "proposal.method=reshuffled", "worker.count=1"),
    "online": (*RELAXED, "proposal.method=online", "worker.count=1", "cluster.clock.publish_seconds=0.08"),
    "blocks": (*RELAXED, "proposal.draws=systematic", "cluster.clock.publish_seconds=0.08"),
    "exact, blocks": (*EXACT, "proposal.draws=systematic", "proposal.block=0.4"),
    "expected norms": (*RELAXED, "proposal.smoothing=second-moment", "cluster.clock.publish_seconds=0.08"),
    "online, blocks": (*RELAXED, "proposal.method=online", "proposal.draws=systematic", "worker.count=1"),
    "second moment": (
        *RELAXED,
        "proposal.method=second-moment",
        "second-moment.rate_power=1",
        "proposal.block=0.4",
        "worker.count=1",
    ),
    "pruning": (*RELAXED, "proposal.method=pruning", "pruning.reduction=0.1", "worker.count=1"),
    "infobatch": (*RELAXED, "proposal.method=infobatch", "worker.count=1"),
    "mis": (*RELAXED, "proposal.method=mis", "worker.count=1"),
    # Each of its audits simulates minibatches.
    "omis": (*RELAXED, "proposal.method=omis", "worker.count=1", "monitor.audit_every_steps=20"),
    # Epochs of three steps, losses that fall slowly: it looks from the twelfth step on.
    "looking": (
        *RELAXED,
        "proposal.method=looking",
        "looking.cost=3",
        "optimizer.learning_rate=0.0005",
        "master.minibatch_size=32",
        "worker.count=1",
    ),
    "dlis": (*RELAXED, "proposal.method=dlis", "dlis.threshold=0.5", "worker.count=1"),
    "Adam, a cosine": (
        *RELAXED,
        "optimizer.kind=adam",
        "optimizer.schedule.kind=cosine",
        "optimizer.schedule.warmup_steps=5",
        "optimizer.weight_decay=0.01",
    ),
    "slow pushes": (*RELAXED, "cluster.clock.push_seconds=0.03", "cluster.clock.pull_seconds=0.04"),
}


def test_systematic_draws_are_audited_as_such(simulate: Simulate, configured: Configured) -> None:
    for draws, points in (("independent", 0), ("systematic", 9)):  # one every seven of sixty steps
        folder = simulate(configured(*RELAXED, f"proposal.draws={draws}"))
        found = values_of(folder, "audit/trace/in_use_systematic")
        assert len(found) == (points and len(values_of(folder, "audit/trace/in_use"))) >= points


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.long) if kind == "omis" else kind for kind in KINDS]
)
def test_a_trace_does_not_depend_on_when_checkpoints_are_made(
    simulate: Simulate, configured: Configured, kind: str
) -> None:
    config = configured(*KINDS[kind], "cluster.clock.checkpoint_seconds=0", ONE_CHECKPOINT)
    calm = simulate(config)
    assert kind != "looking" or len(values_of(calm, "work/examples_looked_at")) > 1
    for seconds in (0.02, 0.3):
        often = config.model_copy(
            update={"master": config.master.model_copy(update={"checkpoint_every_seconds": seconds})}
        )
        folder = simulate(often)
        assert folder.trace.read_bytes() == calm.trace.read_bytes(), f"with a checkpoint every {seconds} s"
        assert folder.parameters.read_bytes() == calm.parameters.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("relaxed", "exact", "until a time")])
def test_a_run_of_any_kind_that_is_stopped_goes_on_to_the_same_bytes(
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


def test_a_sweep_goes_on_over_checkpoints(simulate: Simulate, configured: Configured) -> None:
    """However slow the worker, and however often there is a checkpoint, all chunks are scored in turn."""
    slow = ("proposal.method=sgd", "worker.count=1", "cluster.clock.examples_per_second=150", "master.steps=400")
    folder = simulate(configured(*RELAXED, *slow, "master.checkpoint_every_seconds=0.1"))
    kept = values_of(folder, "proposal/kept_fraction")
    assert kept.value.iloc[-1] == 1.0
    assert (traces.read_events(folder.events).event == "checkpoint").sum() > 10


def test_a_checkpoint_without_a_moment_is_gone_on_from(simulate: Simulate, configured: Configured) -> None:
    """Of an issgd before 0.2: its actors begin anew, and its cursors at 0."""
    config = configured(*RELAXED)
    folder = simulate(config)
    old = replace(load_checkpoint(folder.checkpoint.with_name("previous.npz")), moment={})
    assert old.step < 60
    save_checkpoint(folder.checkpoint, old)
    simulate(config, folder)
    trace = traces.read(folder.trace)
    assert trace.step.max() == 60
    assert not trace.duplicated(["step", "seconds", "quantity"]).any()
    assert sorted(trace[trace.quantity == "audit/trace/in_use"].step) == [0, *range(7, 60, 7), 60]


def test_a_moment_without_previous_norms_is_gone_on_from(simulate: Simulate, configured: Configured) -> None:
    """Of an older version of issgd, which held the table in use instead: eq. 9 is unknown until the next look."""
    config = configured(*RELAXED, "worker.count=9", "monitor.audit_every_steps=1", "master.publish_every_steps=8")
    folder = simulate(config)
    whole = traces.read(folder.trace)
    last = load_checkpoint(folder.checkpoint.with_name("previous.npz"))
    moment = dict(last.moment)
    moment["master/in_use/norms"] = moment.pop("master/in_use/previous")
    save_checkpoint(folder.checkpoint, replace(last, moment=moment))
    simulate(config, folder)
    again = traces.read(folder.trace)
    lost = ~whole.set_index(["step", "quantity"]).index.isin(again.set_index(["step", "quantity"]).index)
    assert set(whole[lost].quantity) == {f"audit/trace/stale{name}" for name in ("", "+0", "+1", "+10")}
    assert last.step < whole[lost].step.min()
    assert whole[lost].step.max() < 60
    pd.testing.assert_frame_equal(whole[~lost].reset_index(drop=True), again)


@pytest.mark.parametrize("spoilt", ["time/names", "database/cursors", "workers/0/split", "master/in_use/weights"])
def test_a_moment_of_another_run_is_refused(simulate: Simulate, configured: Configured, spoilt: str) -> None:
    config = configured(*RELAXED)
    folder = simulate(config)
    good = load_checkpoint(folder.checkpoint.with_name("previous.npz"))
    assert spoilt in good.moment
    save_checkpoint(folder.checkpoint, replace(good, moment={**good.moment, spoilt: np.array(["nonsense"])}))
    with pytest.raises(DamagedError, match=r"checkpoint\.npz is damaged \(its moment"):
        simulate(config, folder)


def test_a_run_that_is_stopped_again_and_again_goes_on_to_the_same_bytes(
    simulate: Simulate, configured: Configured, new_folder: NewFolder
) -> None:
    config, folder = configured(*RELAXED), new_folder("stopped")
    folder.update_manifest(state="running")
    for _ in range(1000):
        try:
            simulate(config, folder, StopAfter(400))
        except Interrupted:
            continue
        break
    assert content(folder) == content(simulate(config))


def lasting(folder: RunFolder) -> list[tuple[Any, ...]]:
    """The trace's rows but clocks and work; audits, which the local cluster leaves to the end, after samples."""
    table = traces.read(folder.trace)
    kept = table[~table.quantity.str.contains("seconds|work/")][["step", "quantity", "value"]]
    rows = [tuple(row) for row in kept.itertuples(index=False)]
    return sorted(rows, key=lambda row: str(row[1]).startswith("audit/"))


@pytest.mark.parametrize("settings", [[], ["proposal.smoothing=variance-optimal"], ["monitor.every_steps=6"]])
def test_exact_mode_gives_the_bits_that_actors_give_who_take_turns(
    simulate: Simulate,
    data: Prepared,
    configured: Configured,
    begun: Begun,
    new_folder: NewFolder,
    play: Play,
    settings: list[str],
) -> None:
    """On no clock at all, and without any checkpoint to start anew from."""
    folder = new_folder("turns")
    config = configured(*EXACT, ONE_CHECKPOINT, *settings)
    database = begun(config)
    monitor, master = (
        Monitor(config, Problem(config, data), database, folder, CPU),
        Master.of(config, Problem(config, data), database, folder, CPU),
    )
    play(monitor, master, *(Worker.of(config, Problem(config, data), database, CPU) for _ in range(2)))
    monitor.trace.close()
    monitor.events.close()
    assert len(lasting(folder)) > 100
    assert lasting(simulate(configured(*EXACT, *settings))) == lasting(folder)


# True to its clock


def test_operations_take_what_the_clock_says(simulate: Simulate, configured: Configured) -> None:
    folder = simulate(configured(*RELAXED, "worker.count=1", "worker.shares=[1, 1, 1]", ONE_CHECKPOINT))
    events = traces.read_events(folder.events)
    seconds = {
        str(name): set((group.end - group.start).round(9)) for name, group in events.groupby("event") if name != "wait"
    }
    parameters = 4 * (16 * 7 + 7 + 7 * 6 + 6 + 6 * 3 + 3)
    assert seconds["publish"] == seconds["pull"] == {round(0.001 + parameters / 1e6, 9)}
    assert seconds["refresh"] == {round(0.001 + 4 * 95 / 1e6, 9)}
    assert seconds["score"] == {0.02, 0.01, 0.006}  # the last chunks of train and valid have 5 examples, test's 3
    assert seconds["push"] == {round(0.001 + 9 * size / 1e6, 9) for size in (10, 5, 3)}
    assert seconds["checkpoint"] == {0.003}
    assert seconds["sample"] == {0.0}
    trained = events[events.event == "train"]
    np.testing.assert_allclose((trained.end - trained.start).sum(), 60 * 0.01)
    until = events[events.event == "checkpoint"].start.min()
    for actor, kinds in (("master", {"train"}), ("worker-0", {"pull", "score", "push", "wait"})):
        own = events[(events.actor == actor) & events.event.isin(kinds) & (events.end <= until)].sort_values("start")
        np.testing.assert_allclose(own.start.to_numpy()[1:], own.end.to_numpy()[:-1], atol=1e-9)  # no time is lost


def test_the_work_of_all_actors_is_counted_exactly_over_all_checkpoints(
    simulate: Simulate, configured: Configured
) -> None:
    folder = simulate(configured(*RELAXED))
    assert (traces.read_events(folder.events).event == "checkpoint").sum() == 3
    assert values_of(folder, "work/examples_trained").value.max() == 60 * 8
    scores = traces.read_events(folder.events).query("event == 'score'")
    last = values_of(folder, "work/examples_scored").iloc[-1]
    done = scores[scores.end <= last.seconds]
    assert last.value == round(float((done.end - done.start).sum() * 500))
    assert load_checkpoint(folder.checkpoint).work["work/examples_trained"] == 60 * 8


def test_a_limit_in_virtual_seconds_ends_the_run(simulate: Simulate, configured: Configured) -> None:
    folder = simulate(configured(*TIMED))
    steps = traces.read(folder.trace).step.max()
    assert 60 <= steps <= 72
    ended = traces.read_events(folder.events).query("event == 'checkpoint'").end.max()
    assert 0.7 <= ended < 0.75


K20 = (
    "cluster.kind=simulated",
    "model.hidden=[4]",
    "master.mode=relaxed",
    "master.seconds=60",
    "master.publish_every_steps=32",
    "worker.count=3",
    "worker.chunk_size=10",  # 2048 * 2,850 / 570,000
)


@pytest.mark.long
def test_three_k20s_sweep_in_27_seconds_and_a_limit_of_4_seconds_keeps_15_percent(
    simulate: Simulate, configured: Configured, in_proportion: Prepared
) -> None:
    """Appendix B.1 of the paper, whose 4 s, 15% and 570,000 weights the preset is made from."""
    limited = ("proposal.staleness_limit_seconds=4", "proposal.minimum_usable_fraction=0")
    for settings, quantity, expected in (
        (limited, "proposal/kept_fraction", 0.15),
        ((), "staleness/max_seconds", 27.0),
    ):
        config = configured(*K20, "master.steps=1000000", *settings)
        rows = values_of(simulate(config, on=in_proportion), quantity)
        assert rows[rows.seconds > 30].value.mean() == pytest.approx(expected, rel=0.05)


def test_a_slow_worker_scores_that_much_less(simulate: Simulate, configured: Configured) -> None:
    folder = simulate(configured(*TIMED, "cluster.clock.slow={1 = 4}", "master.seconds=2", ONE_CHECKPOINT))
    scores = traces.read_events(folder.events).query("event == 'score'")
    counts = Counter(scores.actor)
    assert counts["worker-0"] / counts["worker-1"] == pytest.approx(4, rel=0.15)
    seconds = (scores.end - scores.start).groupby(scores.actor).max()
    assert seconds["worker-1"] == pytest.approx(4 * seconds["worker-0"])


@pytest.mark.parametrize("settings", [TIMED, EXACT])
def test_what_a_dead_worker_left_is_scored_by_the_others(
    simulate: Simulate, configured: Configured, settings: tuple[str, ...]
) -> None:
    config = configured(*settings, "cluster.clock.dies={0 = 0.05, 2 = 0.17}")
    folder = simulate(config)
    events = traces.read_events(folder.events)
    last = events.groupby("actor").end.max()
    assert last["worker-0"] < 0.05
    assert last["worker-2"] < 0.17
    assert last["worker-1"] > 0.3
    if config.master.mode == "exact":
        assert lasting(folder) == lasting(simulate(configured(*settings)))


def test_a_barrier_that_only_the_dead_could_lift_ends_the_run(simulate: Simulate, configured: Configured) -> None:
    """The last one alive is so slow that it never comes to score."""
    config = configured(*EXACT, "worker.count=2", "cluster.clock.dies={0 = 0.05, 1 = 0.05}", "master.mode=relaxed")
    hanging = config.model_copy(update={"master": config.master.model_copy(update={"mode": "exact"})})
    with pytest.raises(RunError, match=r"All actors that are alive wait .*cluster\.clock\.dies"):
        simulate(hanging)
    simulate(config)  # a relaxed master goes on by itself


def test_an_actors_error_ends_the_run_and_names_the_actor(simulate: Simulate, configured: Configured) -> None:
    with pytest.raises(ActorError, match="not finite") as raised:
        simulate(configured(*RELAXED, "optimizer.learning_rate=1e30"))
    assert raised.value.actor == "master"


# Where weights come from


def test_the_oracles_weights_are_those_of_each_step_and_cost_no_time(
    simulate: Simulate, configured: Configured
) -> None:
    oracle = ("proposal.source=oracle", "proposal.smoothing=0", "master.publish_every_steps=1", "master.steps=12")
    folder = simulate(
        configured(*EXACT, *oracle, "monitor.audit_every_steps=3", "master.checkpoint_every_seconds=0.05")
    )
    for name in ("mean_seconds", "max_seconds", "mean_versions"):
        ages = values_of(folder, f"staleness/{name}")
        assert len(ages) == 12
        assert set(ages.value) == {0.0}
    # Audits show the weights of the last draw: one step old at the audited parameters, except at step 0.
    at_0 = traces.read(folder.trace).query("step == 0").set_index("quantity").value
    assert at_0["audit/trace/in_use"] == pytest.approx(at_0["audit/trace/ideal"], rel=1e-5)
    losses = values_of(folder, "loss/train")
    assert losses.step.tolist() == list(range(13))
    np.testing.assert_allclose(losses.seconds, 0.01 * np.arange(13), atol=1e-9)


def test_shuffled_weights_are_another_distribution_of_the_same_values(
    simulate: Simulate, configured: Configured
) -> None:
    plain, shuffled = (
        simulate(configured(*EXACT, "master.steps=3", f"proposal.source={source}", "proposal.smoothing=0"))
        for source in ("workers", "shuffled")
    )
    rows = [
        folder_trace.query("step == 0").set_index("quantity").value
        for folder_trace in (traces.read(plain.trace), traces.read(shuffled.trace))
    ]
    assert rows[0]["proposal/entropy"] == pytest.approx(rows[1]["proposal/entropy"], rel=1e-12)
    assert rows[0]["audit/trace/in_use"] < rows[0]["audit/trace/uniform"] < rows[1]["audit/trace/in_use"]


# Many workers


@pytest.mark.slow
@pytest.mark.soak
def test_a_thousand_workers_are_few_events(
    simulate: Simulate, configured: Configured, in_proportion: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The idle ones do not poll, one at a time but for news; and all share one model."""
    turns, scorers = Counter[str](), Counter[str]()
    turn, new = VirtualTime.turn, Scorer.__init__

    def counted(time: VirtualTime, *arguments: Any) -> Operation | None:
        operation = turn(time, *arguments)
        turns[operation.name if operation else "none"] += 1
        return operation

    def built(scorer: Scorer, *arguments: Any) -> None:
        scorers["built"] += 1
        new(scorer, *arguments)

    monkeypatch.setattr(VirtualTime, "turn", counted)
    monkeypatch.setattr(Scorer, "__init__", built)
    config = configured(*K20, "master.seconds=1000", "master.steps=320", "worker.count=1024", ONE_CHECKPOINT)
    simulate(config, on=in_proportion)
    publications, chunks = 11, 285 + 15 + 13
    assert turns["train"] == 320
    assert turns["publish"] == publications
    assert turns["score"] <= publications * chunks
    assert turns["pull"] <= 1024 * publications
    assert turns["wait"] <= 3 * 1024 * publications
    assert scorers["built"] == 1


# What can be seen of it


def test_the_screen_sees_all_actors_and_a_pace(
    simulate: Simulate, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issgd_cli.simulation.cluster.WATCH_SECONDS", 0.0)
    seen: list[Snapshot] = []
    folder = simulate(configured(*TIMED, "cluster.clock.dies={2 = 0.2}"), watch=seen.append)
    assert len(seen) > 100
    middle, last = seen[len(seen) // 2], seen[-1]
    assert set(middle.processes) == {"monitor", "master", "worker-0", "worker-1", "worker-2"}
    assert middle.processes["worker-2"] == "dead"
    assert 0 < middle.seconds < last.seconds
    assert middle.pace > 0
    assert middle.statuses["master"]["examples"]["train"] > 0
    assert last.processes["master"] == last.processes["monitor"] == "finished"
    assert "loss/train" in last.statuses["monitor"]["latest"]
    assert all(one.seconds <= two.seconds for one, two in itertools.pairwise(seen))
    assert figure_1.load(folder, "relaxed") is not None


def test_the_clock_is_settled_at_the_start_and_kept(simulate: Simulate, configured: Configured) -> None:
    config = configured(*RELAXED, "cluster.clock.preset=measured")
    folder = simulate(config)
    noted = json.loads(folder.manifest.read_text())["clock"]
    assert noted["step_seconds"] == 0.01
    assert noted["publish_seconds"] > 0  # measured
    before = content(folder)
    folder.checkpoint.unlink()
    simulate(config, folder)  # from the beginning, by the clock that is noted
    assert content(folder) == before


# Work


def test_a_run_ends_by_its_own_work_and_its_workers(simulate: Simulate, configured: Configured) -> None:
    folder = simulate(configured(*BY_WORK))
    layers = (16, 7), (7, 6), (6, 3)
    norms = sum(2 * (d + p) for d, p in layers) / sum(2 * d * p for d, p in layers)
    trained, scored, work = (
        values_of(folder, f"work/{kind}").value.max() for kind in ("examples_trained", "examples_scored", "in_examples")
    )
    # A block is 3 steps of 8 examples, and meanwhile 3 workers score some 50 in passes there and back.
    assert 900 <= work < 900 + 24 + 60
    by_scores = (work - trained) / ((2 + norms) / 3)
    assert 0.8 * scored < by_scores < scored  # 20 of 22 chunks are of training examples


def test_a_worker_that_only_measures_is_not_paid_for(simulate: Simulate, configured: Configured) -> None:
    folder = simulate(configured(*BY_WORK, "proposal.method=sgd", "worker.count=1"))
    assert values_of(folder, "work/examples_scored").value.max() > 0
    assert values_of(folder, "work/in_examples").value.max() == 904  # whole steps of 8
    assert values_of(folder, "audit/work/in_examples").value.max() == 904
