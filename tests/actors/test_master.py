"""The master's loop: what it does when, and that an interrupted exact run goes on as if nothing had been."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli.actors.actor import Actor, Operation, Task
from issgd_cli.actors.learner import Learner
from issgd_cli.actors.master import Master, take_step
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.worker import Worker
from issgd_cli.config.config import Config
from issgd_cli.database import Published
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import WeightError
from issgd_cli.methods.method import Drawn, Gradient, Needs, Seen
from issgd_cli.methods.sgd import SGD
from issgd_cli.problem import Problem
from issgd_cli.runs import cutting, traces
from issgd_cli.runs.checkpoints import load_checkpoint
from issgd_cli.runs.folder import RunFolder
from tests.masters import Hired, poison, refresh, relaxed, score_everything, train

CPU = torch.device("cpu")

Configured = Callable[..., Config]
Begun = Callable[[Config], MemoryDatabase]
NewFolder = Callable[[str], RunFolder]
Play = Callable[..., list[tuple[Actor, Operation]]]


def names_of(operations: Iterable[Operation], *wanted: str) -> list[str]:
    return [operation.name for operation in operations if operation.name in wanted]


def test_a_relaxed_master_trains_while_it_publishes_as_often_as_told(
    hired: Hired, configured: Configured, play: Play
) -> None:
    master = hired(relaxed(configured, "master.steps=10", "master.publish_every_steps=4"))
    done = [operation for _, operation in play(master)]
    assert names_of(done, "publish", "refresh") == ["publish", "refresh"] * 3 + ["publish"]
    # At first it has nothing to draw from; from then on publishing and reading go on beside the steps.
    assert names_of(done[:3], "publish", "refresh", "train") == ["publish", "refresh", "train"]
    where = [number for number, operation in enumerate(done) if operation.name == "refresh"]
    assert [len(names_of(done[:place], "train")) for place in where] == [0, 7, 10]
    assert master.learner.step == 10
    assert [operation.version for operation in done if operation.name == "publish"] == [1, 2, 3, 4]
    assert sum(operation.examples for operation in done) == 10 * 8
    assert {operation.bytes for operation in done if operation.name == "publish"} == {
        4 * master.learner.parameters.numel()
    }
    assert master.database.newest() == Published(4, 10)
    assert master.database.get("finished") == {"step": 10, "version": 4}
    assert master.saving.folder.parameters.exists()
    found = master.database.parameters()
    assert found is not None
    np.testing.assert_array_equal(found[1], master.learner.parameters.numpy())


def test_a_database_that_does_not_answer_holds_up_no_step(hired: Hired, configured: Configured) -> None:
    """What goes on beside the training, a round of publishing and reading or what a checkpoint keeps, is never resumed:
    the master draws from the proposal at hand, publishes no more, and saves none before the last."""
    master = hired(relaxed(configured, "master.steps=12", "master.publish_every_steps=2"))
    score_everything(master.database, 1)
    tasks: list[Task[Any]] = []
    proposals = set()
    for operation in master.run():
        if isinstance(operation, Task):
            tasks.append(operation)
        proposals.add(id(master.method.proposal))
        if isinstance(operation, Operation):
            if operation.name == "wait":
                break
            if operation.name == "checkpoint":
                assert master.learner.step == 12
    assert len(tasks) == 2
    assert master.learner.step == 12
    assert len(proposals) == 2  # the uniform one before the first round, and the first round's


def test_what_goes_wrong_beside_the_training_ends_the_run(hired: Hired, configured: Configured, play: Play) -> None:
    master = hired(relaxed(configured, "master.steps=12", "master.publish_every_steps=2"))

    def poisoned(actor: Actor, operation: Operation) -> bool:
        if operation.name == "train" and master.learner.step == 1:
            poison(master.database)
        return False

    with pytest.raises(WeightError, match="NaN"):
        play(master, until=poisoned)


def test_a_run_ends_by_its_seconds(hired: Hired, configured: Configured, play: Play, clock: list[float]) -> None:
    config = relaxed(configured, "master.seconds=0.05", "master.steps=1000000")
    master = hired(config)
    play(master)
    assert 0 < master.learner.step < 1000
    assert master.database.seconds() >= 0.05


# A step


class TwoGradients(SGD):
    """Of the minibatch's examples, in which each counts for more in one than in the other; their mean is SGD's."""

    norms: torch.Tensor | None = None

    def weigh(self, drawn: Drawn, seen: Seen) -> torch.Tensor:
        tilt = torch.linspace(0.5, 1.5, len(seen.losses))
        return super().weigh(drawn, seen) * torch.stack([tilt, 2 - tilt])

    def combine(self, gradients: Gradient) -> Gradient:
        return [part.mean(0) for part in gradients]

    def learn(self, step: int, drawn: Drawn, seen: Seen, squared_norms: torch.Tensor | None) -> None:
        self.norms = squared_norms


@pytest.mark.parametrize("needs", ["nothing", "norms", "rows"])
def test_a_method_may_descend_by_the_mean_of_two_gradients(
    configured: Configured, data: Prepared, needs: Needs
) -> None:
    problem = Problem(config := configured("proposal.method=sgd"), data)
    examples = problem.examples("train", CPU)
    plain, double = Learner(config, problem, CPU, None), Learner(config, problem, CPU, None)
    sgd, method = (kind(config, len(examples), CPU) for kind in (SGD, TwoGradients))
    method.needs = needs
    for _ in range(3):
        loss, expected = take_step(double, method, examples, 8), take_step(plain, sgd, examples, 8)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(double.parameters, plain.parameters)
    assert double.step == 3
    assert isinstance(method, TwoGradients)
    assert (None if method.norms is None else method.norms.shape) == ((8,) if needs == "norms" else None)


# Interruption


def play_all(
    play: Play, data: Prepared, master: Master, until: Callable[[Actor, Operation], bool] | None = None
) -> None:
    """The whole run of this master, with its monitor and workers, to its end or until all are killed."""
    config, database = master.config, master.database
    workers = [Worker.of(config, Problem(config, data), database, CPU) for _ in range(config.worker.count)]
    monitor = Monitor(config, Problem(config, data), database, master.saving.folder, CPU)
    play(monitor, master, *workers, until=until or (lambda actor, operation: False))
    monitor.trace.close()
    monitor.events.close()


def lasting(folder: RunFolder) -> list[tuple[Any, ...]]:
    """The trace's rows that must be the same to the bit: all but clocks and work; audits after samples."""
    table = traces.read(folder.trace)
    kept = table[~table.quantity.str.contains("seconds|work/")][["step", "quantity", "value"]]
    rows = [tuple(row) for row in kept.itertuples(index=False)]
    return sorted(rows, key=lambda row: str(row[1]).startswith("audit/"))


@pytest.mark.parametrize(
    ("stopped_at", "settings"),
    [
        (6, []),
        (3, []),
        (9, ["proposal.smoothing=variance-optimal"]),
        (6, ["proposal.smoothing=entropy:0.95", "proposal.staleness_limit_versions=1"]),
        (9, ["proposal.method=sgd"]),
        (6, ["proposal.method=reshuffled"]),
        # Their tables' numbers are the master's own: here within epochs of 4.75 steps.
        (6, ["proposal.method=online", "master.minibatch_size=20"]),
        (9, ["proposal.method=adaptive", "master.minibatch_size=20"]),
        (9, ["proposal.method=pruning", "pruning.reduction=0.2", "master.minibatch_size=20"]),
        (6, ["proposal.method=infobatch", "master.minibatch_size=20"]),
        (6, ["proposal.method=mis", "master.minibatch_size=20"]),
        (6, ["proposal.method=omis", "master.minibatch_size=20"]),
        (9, ["proposal.method=omis", "master.minibatch_size=20", "omis.correction=unbiased", "omis.beta=0"]),
        (6, ["proposal.method=dlis", "dlis.threshold=0.5"]),
        (6, ["proposal.method=low"]),
        (9, ["optimizer.kind=adam", "optimizer.schedule.kind=cosine", "optimizer.weight_decay=0.01"]),
        (6, ["optimizer.kind=adamw", "optimizer.schedule.kind=steps", "optimizer.schedule.milestones=[5, 8]"]),
        (9, ["monitor.every_steps=6"]),
    ],
)
def test_a_killed_exact_run_goes_on_from_its_checkpoint_to_the_same_bits(
    data: Prepared,
    configured: Configured,
    begun: Begun,
    new_folder: NewFolder,
    play: Play,
    stopped_at: int,
    settings: list[str],
) -> None:
    config = configured(
        "master.steps=14", "master.checkpoint_every_seconds=1e-6", "monitor.audit_every_steps=4", *settings
    )
    whole, broken = new_folder("whole"), new_folder("broken")
    play_all(play, data, Master.of(config, Problem(config, data), begun(config), whole, CPU))

    master = Master.of(config, Problem(config, data), begun(config), broken, CPU)

    def killed(actor: Actor, operation: Operation) -> bool:
        return actor is master and operation.name == "train" and master.learner.step == stopped_at + 1

    play_all(play, data, master, killed)
    # All processes are gone: another database, begun with what the checkpoint holds.
    checkpoint = load_checkpoint(broken.checkpoint)
    assert checkpoint.step == stopped_at
    cutting.drop_from(broken.trace, checkpoint.step)
    database = begun(config)
    database.begin(database.layout(), checkpoint.seconds, checkpoint.records)
    database.put("proposal", checkpoint.proposal)
    master = Master.of(config, Problem(config, data), database, broken, CPU, checkpoint)
    assert master.learner.step == stopped_at
    play_all(play, data, master)

    ours, theirs = np.load(broken.parameters), np.load(whole.parameters)
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert lasting(broken) == lasting(whole)


def test_an_interrupted_relaxed_master_saves_where_it_is_and_an_exact_one_does_not(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder
) -> None:
    for mode, saved in (("relaxed", True), ("exact", False)):
        config = configured(f"master.mode={mode}")
        folder = new_folder(mode)
        master = Master.of(config, Problem(config, data), begun(config), folder, CPU)
        refresh(master)
        train(master)
        master.stop()
        assert folder.checkpoint.exists() == saved
        if saved:
            checkpoint = load_checkpoint(folder.checkpoint)
            assert checkpoint.step == 1
            np.testing.assert_array_equal(checkpoint.parameters, master.learner.parameters.numpy())
            momentum = master.learner.optimizer.vectors["momentum"].numpy()
            np.testing.assert_array_equal(checkpoint.optimizer["momentum"], momentum)
