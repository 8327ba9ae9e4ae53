"""One process without workers or a server: a whole run, stopped and gone on with, and what it refuses."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from issgd_cli.clusters import alone
from issgd_cli.clusters.cluster import ActorError, Interrupted, Snapshot
from issgd_cli.config.config import Config
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import ConfigError
from issgd_cli.methods.pruning import Pruning
from issgd_cli.problem import Problem
from issgd_cli.registries import METHODS
from issgd_cli.runs import traces
from issgd_cli.runs.checkpoints import load_checkpoint
from issgd_cli.runs.folder import RunFolder

Configured = Callable[..., Config]
NewFolder = Callable[[str], RunFolder]

METHODS_ALONE = [name for name, part in METHODS.parts.items() if not part.by_scores]
BASE = (
    "cluster.kind=alone",
    "worker.count=0",
    "cluster.threads=1",
    "master.mode=relaxed",
    "master.steps=40",
    "master.minibatch_size=20",  # epochs of 4.75 steps
    "master.publish_every_steps=6",
    "monitor.audit_every_steps=8",
    "monitor.every_seconds=0.01",
    "pruning.reduction=0.05",
    "dlis.threshold=0.5",
)


def run(
    config: Config,
    data: Prepared,
    folder: RunFolder,
    stop: threading.Event | None = None,
    watch: Callable[[Snapshot], None] = lambda snapshot: None,
) -> None:
    folder.update_manifest(state="running")
    alone.run(config, folder, Problem(config, data), watch, stop or threading.Event())


class StopAt(threading.Event):
    """Says stop when it has been asked so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def audited(folder: RunFolder) -> dict[tuple[int, str], float]:
    trace = traces.read(folder.trace)
    kept = trace[trace.quantity.str.startswith("audit/") & ~trace.quantity.str.contains("stale")]
    return dict(zip(zip(kept.step, kept.quantity, strict=True), kept.value, strict=True))


@pytest.mark.parametrize("method", METHODS_ALONE)
def test_a_run_ends_with_its_audits_and_goes_on_to_the_same_bits_when_it_was_stopped(
    configured: Configured, data: Prepared, new_folder: NewFolder, method: str
) -> None:
    held_up = ("looking.cost=4", "optimizer.learning_rate=0.0005") if method == "looking" else ()  # it tries a look
    config = configured(*BASE, f"proposal.method={method}", *held_up)
    whole, shown = new_folder("whole"), list[Snapshot]()
    run(config, data, whole, watch=shown.append)
    trace = traces.read(whole.trace)
    assert sorted({step for step, _ in audited(whole)}) == [0, 8, 16, 24, 32, 40]
    assert audited(whole)[40, "audit/loss/test"] > 0
    assert not trace.quantity.isin(["loss/train", "trace/ideal"]).any()  # nobody has scored any
    work = trace[trace.quantity == "work/examples_trained"].value
    assert work.is_monotonic_increasing
    least, most = {"infobatch": (0.7, 1.0), "looking": (0.7, 1.3)}.get(method, (1.0, 1.0))  # as they see fit
    assert least * 800 <= work.iloc[-1] <= most * 800
    assert ("work/examples_looked_at" in set(trace.quantity)) == (method in ("dlis", "looking"))
    keeps = "omis keeps 3 gradients of"  # told from the beginning
    assert [line.startswith(keeps) for line in shown[0].notices] == ([True] if method == "omis" else [])
    assert shown[-1].processes == {"master": "finished", "monitor": "finished"}
    events = traces.read_events(whole.events)
    assert {"publish", "refresh", "train", "checkpoint", "audit"} <= set(events.event)
    assert (events.end >= events.start).all()

    broken, stops = new_folder("broken"), 0
    for times in (9, 23, 31, 10**9):
        try:
            run(config, data, broken, StopAt(times))
        except Interrupted:
            stops += 1
            assert 0 < load_checkpoint(broken.checkpoint).step <= 40
    assert stops >= 2
    ours, theirs = np.load(broken.parameters), np.load(whole.parameters)
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert audited(broken) == audited(whole)


def test_audits_tell_of_pruned_epochs_however_seldom_anything_is_published(
    configured: Configured, data: Prepared, new_folder: NewFolder
) -> None:
    folder, sizes = new_folder("pruned"), [data.sizes["train"]]
    config = configured(*BASE, "proposal.method=pruning", "master.publish_every_steps=40", "pruning.reduction=0.1")
    with pytest.MonkeyPatch.context() as patch:
        prune = Pruning.prune

        def watched(self: Pruning, step: int) -> None:
            prune(self, step)
            sizes.append(self.drawable)
            ends.append(step + 1)

        ends = [0]
        patch.setattr(Pruning, "prune", watched)
        run(config, data, folder)
    assert len(ends) > 6
    told = {step: value for (step, name), value in audited(folder).items() if name == "audit/epochs"}
    for step, value in told.items():
        before = sum(end <= step for end in ends) - 1  # epochs that are over
        assert value == pytest.approx(before + (step - ends[before]) * 20 / sizes[before])
    assert told[40] > 40 * 20 / sizes[0] + 1  # they get shorter


def test_a_run_may_end_by_its_seconds(configured: Configured, data: Prepared, new_folder: NewFolder) -> None:
    config = configured(*BASE, "proposal.method=online", "master.steps=100000000", "master.seconds=0.3")
    folder = new_folder("run")
    run(config, data, folder)
    trace = traces.read(folder.trace)
    assert 0.2 < trace[trace.quantity == "audit/loss/test"].seconds.max() < 30


def test_what_goes_wrong_is_told_as_the_masters(configured: Configured, data: Prepared, new_folder: NewFolder) -> None:
    config = configured(*BASE, "proposal.method=online", "optimizer.learning_rate=1e30")
    with pytest.raises(ActorError, match="not finite") as told:
        run(config, data, new_folder("run"))
    assert told.value.actor == "master"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("proposal.method=issgd", r"draws by what workers score.*'sgd', 'reshuffled'"),
        ("worker.count=1", "worker.count"),
        ("master.mode=exact", "exact mode"),
        ("database.url=redis://localhost", "database.url"),
    ],
)
def test_what_needs_workers_or_a_server_is_refused(configured: Configured, setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        configured(*BASE, "proposal.method=online", setting)


@pytest.mark.parametrize("method", METHODS_ALONE)
def test_runs_that_end_by_their_work_end_at_the_same(
    configured: Configured, data: Prepared, new_folder: NewFolder, method: str
) -> None:
    """To a step, whatever the method does for one; and a run that was stopped at the same step as one that was not."""
    limits = "master.steps=1000", "master.work=600"
    config = configured(*BASE, f"proposal.method={method}", *limits)
    whole, halved = new_folder("whole"), new_folder("halved")
    run(config, data, whole)
    trace = traces.read(whole.trace)
    works = trace[trace.quantity == "audit/work/in_examples"].sort_values("step").value.to_numpy()
    assert works[0] == 0
    assert 600 <= works[-1] < 600 + 20 * 2  # no step is twice as much as one of SGD
    assert trace[trace.quantity == "work/in_examples"].value.max() == pytest.approx(works[-1])
    with pytest.raises(Interrupted):
        run(config, data, halved, StopAt(50))
    run(config, data, halved)
    assert audited(halved) == audited(whole)
