"""The master: what it draws from, how it steps, and that an interrupted exact run goes on as if nothing had been."""

import copy
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from issgd_cli.actors.actor import Actor, Operation, Task
from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.worker import Worker
from issgd_cli.config.config import Config
from issgd_cli.database import Chunk, ChunkScores, Database, Published
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets import prepared
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.equations.alain2015 import effective_sample_size, entropy
from issgd_cli.errors import DataError, RunError, WeightError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.methods.issgd import ISSGD
from issgd_cli.methods.method import Refreshed
from issgd_cli.methods.proposal import FLOOR
from issgd_cli.methods.smoothing import entropy_constant, variance_optimal_constant
from issgd_cli.methods.table import OwnNorms
from issgd_cli.problem import Problem
from issgd_cli.randomness import generator
from issgd_cli.runs import cutting, traces
from issgd_cli.runs.audits import load_audit
from issgd_cli.runs.checkpoints import load_checkpoint
from issgd_cli.runs.folder import RunFolder
from tests.masters import refresh, train

CPU = torch.device("cpu")

Configured = Callable[..., Config]
Begun = Callable[[Config], MemoryDatabase]
NewFolder = Callable[[str], RunFolder]
Play = Callable[..., list[tuple[Actor, Operation]]]


@pytest.fixture
def hired(data: Prepared, begun: Begun, new_folder: NewFolder) -> Callable[[Config], Master]:
    """A master at step 0 with a database and a folder of its own."""

    def of(config: Config) -> Master:
        return Master.of(config, Problem(config, data), begun(config), new_folder("run"), CPU)

    return of


def score_chunk(database: Database, number: int, version: int, norms: Any) -> None:
    """Stands in for a worker: this chunk's norms at a version."""
    span = database.layout().span("train", number)
    values = np.broadcast_to(np.asarray(norms, np.float32), (span.stop - span.start,)).copy()
    errors = np.zeros(len(values), np.uint8)
    database.push(Chunk("train", number), version, ChunkScores(values, values, errors, None))


def score_everything(database: Database, version: int, seed: int = 0) -> None:
    random = np.random.default_rng([seed, version])
    for number in range(database.layout().chunks("train")):
        size = database.layout().sizes("train")[number]
        score_chunk(database, number, version, random.exponential(1.0, size))


def in_use(master: Master) -> Refreshed:
    assert master.method.in_use is not None
    return master.method.in_use


def own_norms(master: Master) -> OwnNorms:
    assert isinstance(master.method, ISSGD)
    assert master.method.own is not None
    return master.method.own


def relaxed(configured: Configured, *settings: str) -> Config:
    return configured("master.mode=relaxed", *settings)


def report(master: Master) -> dict[str, float]:
    return dict((master.database.get("proposal") or {})["values"])


# Steps


@pytest.mark.parametrize("settings", [[], ["optimizer.nesterov=false"], ["optimizer.momentum=0"]])
def test_steps_are_torchs_own_to_the_bit(
    hired: Callable[[Config], Master], configured: Configured, settings: list[str]
) -> None:
    master = hired(relaxed(configured, *settings))
    score_everything(master.database, 1)
    refresh(master)
    chosen = master.config.optimizer
    model = copy.deepcopy(master.learner.model)
    nesterov = chosen.nesterov and chosen.momentum > 0
    optimizer = torch.optim.SGD(
        model.parameters(), chosen.learning_rate, chosen.momentum, nesterov=nesterov, fused=True
    )
    for step in range(6):
        indices, factors = master.method.proposal.draw(generator(master.config.seed, "draws", step), 8)
        inputs, labels = master.examples[indices]
        optimizer.zero_grad()
        (factors * cross_entropy(model(inputs), labels)).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        train(master)
        for ours, torchs in zip(master.learner.model.parameters(), model.parameters(), strict=True):
            assert torch.equal(ours, torchs)


@pytest.mark.parametrize("settings", [[], ["optimizer.nesterov=false"], ["optimizer.momentum=0"]])
def test_steps_follow_the_originals_nesterov_formula(
    hired: Callable[[Config], Master], configured: Configured, settings: list[str]
) -> None:
    """v' = mu v - lr g; p += -mu v + (1 + mu) v' (without Nesterov p += v'), in float64 on the same draws."""
    master = hired(relaxed(configured, "optimizer.learning_rate=0.02", *settings))
    optimizer = master.config.optimizer
    score_everything(master.database, 1)
    refresh(master)
    mu, rate = optimizer.momentum, optimizer.learning_rate
    p = [parameter.detach().double().clone() for parameter in master.learner.model.parameters()]
    v = [torch.zeros_like(part) for part in p]
    for step in range(8):
        indices, weights = master.method.proposal.draw(generator(master.config.seed, "draws", step), 8)
        inputs, labels = master.examples[indices]
        leaves = [part.clone().requires_grad_() for part in p]
        hidden = inputs.double()
        for layer in range(0, len(leaves), 2):
            hidden = functional.linear(hidden.relu() if layer else hidden, leaves[layer], leaves[layer + 1])
        losses = functional.cross_entropy(hidden, labels, reduction="none")
        loss = (weights * losses).mean()
        gradients = torch.autograd.grad(loss, leaves)
        v_new = [mu * old - rate * g for old, g in zip(v, gradients, strict=True)]
        for part, old, new in zip(p, v, v_new, strict=True):
            part += -mu * old + (1 + mu) * new if optimizer.nesterov else new
        v = v_new
        assert float(train(master)) == pytest.approx(float(loss.detach()), rel=1e-4)
        expected = torch.cat([part.flatten() for part in p])
        torch.testing.assert_close(master.learner.parameters.double(), expected, rtol=1e-4, atol=1e-6)
        # What a checkpoint saves is torch's buffer, -v / lr.
        buffer = torch.cat([-part.flatten() / rate for part in v])
        if mu > 0:
            momentum = master.learner.optimizer.vectors["momentum"]
            torch.testing.assert_close(momentum.double(), buffer, rtol=1e-3, atol=1e-5)


def test_a_steps_draws_depend_on_seed_and_step_alone(
    hired: Callable[[Config], Master], configured: Configured, data: Prepared
) -> None:
    master = hired(relaxed(configured))
    score_everything(master.database, 1)
    again, other = (
        Master.of(
            configured("master.mode=relaxed", f"seed={seed}"),
            Problem(configured("master.mode=relaxed", f"seed={seed}"), data),
            master.database,
            master.folder,
            CPU,
        )
        for seed in (0, 1)
    )
    other.learner.parameters.copy_(master.learner.parameters)
    losses = []
    for one in (master, again, other):
        torch.randn(3, generator=torch.Generator())
        refresh(one)
        losses.append([float(train(one)) for _ in range(4)])
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[2][0]  # the same parameters and weights, other draws


# The proposal


def test_issgd_draws_in_proportion_to_the_smoothed_norms(
    hired: Callable[[Config], Master], configured: Configured, begun: Begun
) -> None:
    master = hired(relaxed(configured, "proposal.smoothing=0.25"))
    score_everything(master.database, 1)
    refresh(master)
    norms = master.database.weights(previous=False).norms
    np.testing.assert_allclose(master.method.proposal.weights, norms.astype(np.float64) + 0.25, rtol=1e-12)
    assert report(master)["proposal/smoothing"] == 0.25


def test_sgd_draws_uniformly_whatever_the_table_says(hired: Callable[[Config], Master], configured: Configured) -> None:
    master = hired(relaxed(configured, "proposal.method=sgd"))
    score_everything(master.database, 1)
    score_chunk(master.database, 0, 2, 1e6)
    refresh(master)
    assert len(set(master.method.proposal.weights.tolist())) == 1
    _, factors = master.method.proposal.draw(np.random.default_rng(0), 100)
    np.testing.assert_array_equal(factors, 1)
    values = report(master)
    assert values["proposal/entropy"] == pytest.approx(np.log(95))
    assert values["proposal/fallback"] == 0


def test_before_anything_is_scored_draws_are_uniform_by_fallback(
    hired: Callable[[Config], Master], configured: Configured
) -> None:
    master = hired(relaxed(configured))
    refresh(master)
    values = report(master)
    assert (values["proposal/fallback"], values["proposal/kept_fraction"]) == (1, 0)
    assert values["proposal/entropy"] == pytest.approx(np.log(95))
    assert not any(name.startswith("staleness/") for name in values)


def test_the_report_tells_of_the_proposal_in_use(
    hired: Callable[[Config], Master], configured: Configured, clock: list[float]
) -> None:
    master = hired(relaxed(configured, "proposal.smoothing=0", "proposal.limit_mode=drop"))
    for number in range(5):  # chunks of 10 of 95 examples
        score_chunk(master.database, number, 1, [0.0] + [1.0 + number] * 9)
        clock[0] += 1
    master.publishing.version = 4  # version 3 was published last
    master.learner.step = 6
    refresh(master)
    values, omega = report(master), master.method.proposal.weights
    assert (master.database.get("proposal") or {})["step"] == 6
    assert values["proposal/entropy"] == pytest.approx(entropy(omega))
    assert values["proposal/effective_sample_size"] == pytest.approx(effective_sample_size(omega))
    assert values["proposal/kept_fraction"] == pytest.approx(50 / 95)
    assert values["proposal/floored"] == 5
    assert omega[0] == pytest.approx(FLOOR * 2.7)
    assert values["staleness/mean_seconds"] == pytest.approx(3.0)
    assert values["staleness/max_seconds"] == pytest.approx(5.0)
    assert values["staleness/mean_versions"] == pytest.approx(2.0)


def test_ages_are_means_over_examples_not_chunks(
    hired: Callable[[Config], Master], configured: Configured, clock: list[float]
) -> None:
    master = hired(relaxed(configured))
    score_chunk(master.database, 9, 1, 1.0)
    clock[0] += 4
    score_chunk(master.database, 0, 2, 1.0)
    master.publishing.version = 3
    refresh(master)
    # The last chunk has 5 examples, the first 10.
    assert report(master)["staleness/mean_seconds"] == pytest.approx(4 * 5 / 15)
    assert report(master)["staleness/mean_versions"] == pytest.approx(1 * 5 / 15)


@pytest.mark.parametrize("mode", ["drop", "fill"])
def test_weights_older_than_the_limit_in_seconds_are_not_used(
    hired: Callable[[Config], Master], configured: Configured, clock: list[float], mode: str
) -> None:
    settings = ["proposal.staleness_limit_seconds=4", f"proposal.limit_mode={mode}", "proposal.smoothing=0"]
    master = hired(relaxed(configured, *settings))
    for number in range(10):
        score_chunk(master.database, number, 1, 1.0 + number)
        clock[0] += 1
    refresh(master)  # the ages are now 10, 9, ..., 1 seconds
    omega = master.method.proposal.weights
    np.testing.assert_allclose(omega[60:90], np.repeat([7.0, 8, 9], 10))
    np.testing.assert_allclose(omega[90:], 10.0)
    mean = (70 + 80 + 90 + 50) / 35
    np.testing.assert_allclose(omega[:60], 0.0 if mode == "drop" else mean)
    assert report(master)["proposal/kept_fraction"] == pytest.approx(35 / 95)
    assert report(master)["staleness/max_seconds"] == pytest.approx(4.0)


@pytest.mark.parametrize("mode", ["drop", "fill"])
def test_weights_older_than_the_limit_in_versions_are_not_used(
    hired: Callable[[Config], Master], configured: Configured, mode: str
) -> None:
    settings = ["proposal.staleness_limit_versions=2", f"proposal.limit_mode={mode}", "proposal.smoothing=0"]
    master = hired(relaxed(configured, *settings))
    for number in range(10):
        score_chunk(master.database, number, number + 1, 2.0)
    master.publishing.version = 11  # version 10 was published last
    refresh(master)
    used = master.method.proposal.weights > 0
    np.testing.assert_array_equal(used, np.arange(95) >= (70 if mode == "drop" else 0))
    assert report(master)["proposal/kept_fraction"] == pytest.approx(25 / 95)


@pytest.mark.parametrize(("fraction", "fallback"), [(0.2, False), (0.3, True)])
def test_below_the_minimum_usable_fraction_the_master_draws_uniformly(
    hired: Callable[[Config], Master], configured: Configured, fraction: float, fallback: bool
) -> None:
    master = hired(relaxed(configured, f"proposal.minimum_usable_fraction={fraction}"))
    for number in range(2):
        score_chunk(master.database, number, 1, [1.0] * 9 + [5.0])
    refresh(master)
    assert report(master)["proposal/fallback"] == fallback
    assert (len(set(master.method.proposal.weights.tolist())) == 1) == fallback


@pytest.mark.parametrize("setting", ["entropy:0.99", "variance-optimal"])
def test_the_adaptive_smoothings_learn_from_the_table(
    hired: Callable[[Config], Master], configured: Configured, setting: str
) -> None:
    master = hired(relaxed(configured, f"proposal.smoothing={setting}"))
    for version in (1, 2):
        score_everything(master.database, version)
    refresh(master)
    table = master.database.weights(previous=True)
    assert table.previous_norms is not None
    norms, previous = table.norms.astype(np.float64), table.previous_norms.astype(np.float64)
    by_entropy, by_variance = entropy_constant(norms, 0.99), variance_optimal_constant(previous, norms)
    expected = by_entropy if setting == "entropy:0.99" else by_variance
    assert expected > 0
    assert master.refreshed is not None
    assert in_use(master).smoothing == expected
    np.testing.assert_allclose(master.method.proposal.weights, norms + expected)


def test_variance_optimal_pairs_come_from_fresh_chunks_with_two_versions_only(
    hired: Callable[[Config], Master], configured: Configured
) -> None:
    master = hired(relaxed(configured, "proposal.smoothing=variance-optimal", "proposal.staleness_limit_versions=3"))
    database: Any = master.database
    score_chunk(database, 0, 1, 100.0)  # a pair, but too old
    score_chunk(database, 0, 2, 1.0)
    score_chunk(database, 1, 9, 7.0)  # one version only
    score_chunk(database, 2, 4, np.arange(1.0, 11))  # a pair whose newer half is fresh
    score_chunk(database, 2, 9, np.arange(10.0, 0, -1))
    master.publishing.version = 10
    refresh(master)
    expected = variance_optimal_constant(np.arange(1.0, 11), np.arange(10.0, 0, -1))
    assert master.refreshed is not None
    assert in_use(master).smoothing == pytest.approx(expected)


def poison(database: Database) -> None:
    """Puts into the table what its door refuses."""
    assert isinstance(database, MemoryDatabase)
    score_chunk(database, 3, 1, 1.0)
    database._records["train"].norms[30] = np.nan


def test_a_norm_that_is_no_number_ends_the_run(hired: Callable[[Config], Master], configured: Configured) -> None:
    master = hired(relaxed(configured))
    score_everything(master.database, 1)
    poison(master.database)
    with pytest.raises(WeightError, match="NaN"):
        refresh(master)


# Shuffled weights


@pytest.mark.parametrize("mode", ["drop", "fill"])
def test_shuffled_weights_are_the_same_values_at_other_examples(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, mode: str
) -> None:
    settings = ["proposal.staleness_limit_versions=1", f"proposal.limit_mode={mode}"]
    masters = []
    for source in ("workers", "shuffled"):
        config = relaxed(configured, *settings, f"proposal.source={source}")
        masters.append(master := Master.of(config, Problem(config, data), begun(config), new_folder(source), CPU))
        for number in range(10):
            score_chunk(master.database, number, 3 if number < 6 else 1, np.arange(1.0, 11)[: 10 if number < 9 else 5])
        master.publishing.version = 4
        refresh(master)
    plain, shuffled = masters
    ours, theirs = shuffled.method.proposal.weights, plain.method.proposal.weights
    np.testing.assert_array_equal(np.sort(ours[:60]), np.sort(theirs[:60]))
    np.testing.assert_array_equal(ours[60:], theirs[60:])  # which are not in use
    assert not np.array_equal(ours, theirs)
    assert report(shuffled)["proposal/entropy"] == pytest.approx(report(plain)["proposal/entropy"], rel=1e-12)
    np.testing.assert_array_equal(np.unique(shuffled.database.weights(False).norms), np.arange(1.0, 11))
    # Audits compare with the norms that the weights were made of.
    assert shuffled.refreshed is not None
    np.testing.assert_allclose(ours[:60], in_use(shuffled).norms[:60].astype(np.float64) + 0.5)


def test_how_weights_are_shuffled_depends_on_seed_and_step_alone(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder
) -> None:
    def order(seed: int, step: int, scale: float) -> list[int]:
        config = relaxed(configured, "proposal.source=shuffled", f"seed={seed}", "proposal.smoothing=0")
        master = Master.of(config, Problem(config, data), begun(config), new_folder(f"{seed}-{step}-{scale}"), CPU)
        for number, size in enumerate(master.database.layout().sizes("train")):
            score_chunk(master.database, number, 1, scale * (1 + 10 * number + np.arange(size)))
        master.learner.step, master.publishing.version = step, 5
        refresh(master)
        return [int(place) for place in np.argsort(master.method.proposal.weights)]

    first = order(0, 3, 1.0)
    assert order(0, 3, 7.0) == first
    assert order(0, 4, 1.0) != first
    assert order(1, 3, 1.0) != first


def test_draws_by_shuffled_weights_are_unbiased(hired: Callable[[Config], Master], configured: Configured) -> None:
    """Listed draw by draw: the mean over all examples of anything comes out, as for any positive weights."""
    master = hired(relaxed(configured, "proposal.source=shuffled", "proposal.smoothing=0"))
    score_everything(master.database, 1)
    refresh(master)
    omega = master.method.proposal.weights
    anything = np.random.default_rng(0).standard_normal(95)
    expected = (omega / omega.sum() * (omega.mean() / omega) * anything).sum()
    assert expected == pytest.approx(anything.mean(), abs=1e-12)
    indices, factors = master.method.proposal.draw(np.random.default_rng(0), 50)
    np.testing.assert_allclose(factors, omega.mean() / omega[indices])


# A whole life


def names_of(operations: Iterable[Operation], *wanted: str) -> list[str]:
    return [operation.name for operation in operations if operation.name in wanted]


def test_a_relaxed_master_trains_while_it_publishes_as_often_as_told(
    hired: Callable[[Config], Master], configured: Configured, play: Play
) -> None:
    master = hired(relaxed(configured, "master.steps=10", "master.publish_every_steps=4"))
    done = [operation for _, operation in play(master)]
    assert names_of(done, "publish", "refresh") == ["publish", "refresh"] * 3 + ["publish"]
    # At first it has nothing to draw from; from then on the exchange runs beside the steps.
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
    assert master.folder.parameters.exists()
    found = master.database.parameters()
    assert found is not None
    np.testing.assert_array_equal(found[1], master.learner.parameters.numpy())


def test_a_database_that_does_not_answer_holds_up_no_step(
    hired: Callable[[Config], Master], configured: Configured
) -> None:
    """What goes on beside the training is never resumed, a round of the exchange and the reading for a checkpoint: the
    master draws from the proposal at hand, publishes no more, and saves none before the last."""
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


def test_what_goes_wrong_beside_the_training_ends_the_run(
    hired: Callable[[Config], Master], configured: Configured, play: Play
) -> None:
    master = hired(relaxed(configured, "master.steps=12", "master.publish_every_steps=2"))

    def poisoned(actor: Actor, operation: Operation) -> bool:
        if operation.name == "train" and master.learner.step == 1:
            poison(master.database)
        return False

    with pytest.raises(WeightError, match="NaN"):
        play(master, until=poisoned)


def test_what_is_published_is_as_of_the_step_it_names_though_training_goes_on(
    hired: Callable[[Config], Master], configured: Configured
) -> None:
    master = hired(relaxed(configured, "master.steps=12", "master.publish_every_steps=2"))
    at_step_2 = None
    for operation in master.run():
        if isinstance(operation, Task):
            at_step_2 = master.learner.parameters.clone()
            task = operation
        if master.learner.step == 5:
            break
    assert at_step_2 is not None
    while task.advance() is not None:
        pass
    found = master.database.parameters()
    assert found is not None
    assert found[0] == Published(2, 2)
    np.testing.assert_array_equal(found[1], at_step_2.numpy())
    assert not torch.equal(at_step_2, master.learner.parameters)


# The norms of its own minibatches


def test_own_norms_are_those_of_each_examples_own_loss_and_change_no_step(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder
) -> None:
    """Neither the importance weight nor 1/M stays in them."""
    masters = []
    for reuse in ("false", "true"):
        config = relaxed(configured, "proposal.limit_mode=fill", f"master.reuse_own_norms={reuse}")
        masters.append(Master.of(config, Problem(config, data), begun(config), new_folder(reuse), CPU))
        score_everything(masters[-1].database, 1)
        refresh(masters[-1])
    plain, reusing = masters
    before = copy.deepcopy(reusing.learner.model)
    indices, factors = reusing.method.proposal.draw(generator(0, "draws", 0), 8)
    assert len(set(factors.tolist())) > 1
    assert float(train(reusing)) == pytest.approx(float(train(plain)), rel=1e-6)
    torch.testing.assert_close(reusing.learner.parameters, plain.learner.parameters, rtol=1e-5, atol=1e-7)
    drawn, norms = own_norms(reusing).pending[0]
    assert torch.equal(drawn, indices)
    inputs, labels = reusing.examples[indices]
    for number in range(8):
        loss = functional.cross_entropy(before(inputs[number : number + 1]), labels[number : number + 1])
        gradients = torch.autograd.grad(loss, list(before.parameters()))
        expected = sum(float(part.double().square().sum()) for part in gradients) ** 0.5
        assert float(norms[number]) == pytest.approx(expected, rel=1e-4)


def test_own_norms_stand_above_the_tables_until_a_newer_version_is_scored(
    hired: Callable[[Config], Master], configured: Configured
) -> None:
    master = hired(
        relaxed(configured, "proposal.limit_mode=fill", "master.reuse_own_norms=true", "proposal.smoothing=0")
    )
    own = own_norms(master)
    score_everything(master.database, 2)
    table = master.database.weights(previous=False)
    own.pending = [(torch.tensor([0, 1]), torch.tensor([50.0, 60.0]))]
    own.settle(1, 0.0)  # older than the table
    own.pending = [(torch.tensor([2, 3]), torch.tensor([70.0, 80.0]))]
    own.settle(2, 0.0)  # of the same version's block: younger
    master.publishing.version = 4
    refresh(master)
    expected = table.norms.astype(np.float64)
    expected[2:4] = 70, 80
    np.testing.assert_allclose(master.method.proposal.weights, expected)
    records = master.database.weights(previous=False)
    np.testing.assert_array_equal(records.norms, table.norms)  # the overlay stays private
    assert report(master)["staleness/mean_versions"] == pytest.approx(1)
    score_chunk(master.database, 0, 3, 5.0)
    refresh(master)
    np.testing.assert_allclose(master.method.proposal.weights[:4], 5.0)


def test_own_norms_come_into_play_at_the_next_refresh_only(
    hired: Callable[[Config], Master], configured: Configured
) -> None:
    """The table that a minibatch is drawn from stays as it was for its correction."""
    master = hired(relaxed(configured, "proposal.limit_mode=fill", "master.reuse_own_norms=true"))
    score_everything(master.database, 1)
    master.publishing.version = 2
    refresh(master)
    before = master.method.proposal.weights.copy()
    for _ in range(3):
        train(master)
    drawn = np.unique(torch.cat([indices for indices, _ in own_norms(master).pending]).numpy())
    np.testing.assert_array_equal(master.method.proposal.weights, before)
    published = master._next()
    assert not own_norms(master).pending
    own = own_norms(master)
    np.testing.assert_array_equal(np.flatnonzero(own.versions), drawn)
    assert set(own.versions[drawn]) == {published.version - 1}
    np.testing.assert_array_equal(master.method.proposal.weights, before)
    refresh(master)
    np.testing.assert_allclose(master.method.proposal.weights[drawn], own.norms[drawn].astype(np.float64) + 0.5)
    others = np.setdiff1d(np.arange(95), drawn)
    np.testing.assert_array_equal(master.method.proposal.weights[others], before[others])


def test_a_run_ends_by_its_seconds(
    hired: Callable[[Config], Master], configured: Configured, play: Play, clock: list[float]
) -> None:
    config = relaxed(configured, "master.seconds=0.05", "master.steps=1000000")
    master = hired(config)
    play(master)
    assert 0 < master.learner.step < 1000
    assert master.database.seconds() >= 0.05


def test_an_exact_master_waits_until_every_record_has_its_version_and_the_monitor_has_sampled(
    hired: Callable[[Config], Master], configured: Configured
) -> None:
    master = hired(configured())
    database: Any = master.database
    life = (operation for operation in master.run() if isinstance(operation, Operation))
    assert next(life).name == "publish"
    assert next(life).name == "wait"
    score_everything(database, 1)
    assert next(life).name == "wait"  # valid and test are behind
    for split in ("valid", "test"):
        for number in range(database.layout().chunks(split)):
            span = database.layout().span(split, number)
            ones = np.ones(span.stop - span.start, np.float32)
            database.push(Chunk(split, number), 1, ChunkScores(ones, ones, ones.astype(np.uint8), None))
    assert next(life).name == "wait"  # the monitor has not sampled
    database.put("acknowledged", {"version": 1})
    assert next(life).name == "refresh"
    assert next(life).name == "train"


def test_a_loss_that_is_no_number_fails_the_run_and_names_the_step(
    hired: Callable[[Config], Master], configured: Configured, play: Play
) -> None:
    master = hired(relaxed(configured, "master.steps=9"))

    def poison(actor: Actor, operation: Operation) -> bool:
        if operation.name == "train" and master.learner.step == 4:  # before the fifth step
            master.learner.parameters[0] = float("nan")
        return False

    with pytest.raises(RunError, match=r"not finite at step 5 .*optimizer\.learning_rate"):
        play(master, until=poison)


Until = Callable[[Actor, Operation], bool]


def diverging(master: Master, rate: float, after: int = 5) -> Until:
    """From the step after these on, this learning rate."""

    def of(actor: Actor, operation: Operation) -> bool:
        if operation.name == "train" and master.learner.step == after:
            faster = master.config.optimizer.model_copy(update={"learning_rate": rate})
            master.learner.config = master.config.model_copy(update={"optimizer": faster})
        return False

    return of


def failure(play: Play, data: Prepared, master: Master, until: Until) -> str:
    """What ends this master's run; in exact mode with all who must take part."""
    config, database = master.config, master.database
    if config.master.mode == "relaxed":
        with pytest.raises(RunError) as told:
            play(master, until=until)
    else:
        monitor = Monitor(config, Problem(config, data), database, master.folder, CPU)
        with pytest.raises(RunError) as told:
            play(monitor, master, Worker.of(config, Problem(config, data), database, CPU), until=until)
        monitor.trace.close()
        monitor.events.close()
    return str(told.value)


@pytest.mark.parametrize("mode", ["relaxed", "exact"])
def test_a_run_that_diverges_names_step_weight_and_the_last_good_checkpoint(
    hired: Callable[[Config], Master], configured: Configured, play: Play, data: Prepared, mode: str
) -> None:
    """At 1e18 the parameters stay finite for a step, and the next one's logits are not."""
    settings = ["master.steps=30", "master.publish_every_steps=3", "master.checkpoint_every_seconds=1e-6"]
    master = hired(configured(f"master.mode={mode}", *settings))
    if mode == "relaxed":
        score_everything(master.database, 1)
    message = failure(play, data, master, diverging(master, 1e18, after=6))
    assert "The loss is not finite at step 8 " in message
    omega = master.method.proposal.weights
    assert f"(largest importance weight possible: {omega.mean() / omega.min():.3g})" in message
    assert omega.mean() / omega.min() > 1.1
    assert f"The last good checkpoint is {master.folder.checkpoint}." in message
    checkpoint = load_checkpoint(master.folder.checkpoint)
    assert 0 < checkpoint.step <= 6
    assert np.isfinite(checkpoint.parameters).all()
    assert np.isfinite(checkpoint.optimizer["momentum"]).all()


@pytest.mark.parametrize(
    ("mode", "seconds"), [("relaxed", "1e-6"), ("relaxed", "600"), ("exact", "1e-6"), ("exact", "600")]
)
def test_parameters_that_overflow_after_a_good_loss_are_neither_saved_nor_published(
    hired: Callable[[Config], Master], configured: Configured, play: Play, data: Prepared, mode: str, seconds: str
) -> None:
    """The last step of a block: its loss is of the parameters before it. What comes next is a checkpoint or not."""
    settings = ["master.steps=30", "master.publish_every_steps=3", f"master.checkpoint_every_seconds={seconds}"]
    master = hired(configured(f"master.mode={mode}", *settings))
    message = failure(play, data, master, diverging(master, 1e39, after=11))
    assert "The parameters are not finite after step 12 (largest importance weight possible: " in message
    if (mode, seconds) == ("exact", "600"):  # a relaxed run saves one after its first block in any case
        assert "There is no checkpoint yet." in message
        assert not master.folder.checkpoint.exists()
    else:
        assert f"The last good checkpoint is {master.folder.checkpoint}." in message
        assert load_checkpoint(master.folder.checkpoint).step in (3, 6, 9)
    found = master.database.parameters()
    assert found is not None
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize("vector", ["parameters", "momentum"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_checkpoint_never_holds_what_is_no_number(
    hired: Callable[[Config], Master], configured: Configured, vector: str, value: float
) -> None:
    master = hired(relaxed(configured))
    score_everything(master.database, 1)
    refresh(master)
    train(master)
    master.checkpoint(master.database.seconds())
    before = master.folder.checkpoint.read_bytes()
    train(master)
    vectors = {"parameters": master.learner.parameters, **master.learner.optimizer.vectors}
    vectors[vector][17] = value
    good = master.folder.checkpoint
    with pytest.raises(
        RunError, match=rf"{vector}.* not finite after step 2 .*weight.*last good checkpoint is {good}\."
    ):
        master.checkpoint(master.database.seconds())
    master.stop()  # an interrupt: nothing to save
    assert good.read_bytes() == before
    assert not list(good.parent.glob("*.partial"))


@pytest.mark.parametrize("what", ["changed", "removed"])
def test_no_checkpoint_is_saved_that_may_be_of_changed_data(
    configured: Configured, begun: Begun, new_folder: NewFolder, play: Play, data: Prepared, tmp_path: Path, what: str
) -> None:
    place = tmp_path / "data"
    shutil.copytree(data.directory, place)
    shutil.copytree(data.directory, tmp_path / "copy")
    config = relaxed(
        configured, "master.steps=12", "master.publish_every_steps=2", "master.checkpoint_every_seconds=1e-6"
    )
    database, folder = begun(config), new_folder("run")
    master = Master.of(config, Problem(config, prepared.load(place)), database, folder, CPU)
    path = place / "test-images.npy"

    def spoilt(actor: Actor, operation: Operation) -> bool:
        if operation.name == "train" and master.learner.step == 9:
            path.unlink() if what == "removed" else path.touch()
        return False

    with pytest.raises(DataError, match=rf"test-images\.npy has been {what} since .*--resume"):
        play(master, until=spoilt)
    assert not folder.parameters.exists()
    assert database.get("finished") is None
    checkpoint = load_checkpoint(folder.checkpoint)
    assert 0 < checkpoint.step < 10

    shutil.rmtree(place)
    (tmp_path / "copy").rename(place)
    again = begun(config)
    again.begin(again.layout(), checkpoint.seconds, checkpoint.records)
    resumed = Master.of(config, Problem(config, prepared.load(place)), again, folder, CPU, checkpoint)
    play(resumed)
    assert again.get("finished") is not None


def test_audit_points_are_saved_at_step_0_on_the_way_and_at_the_end(
    hired: Callable[[Config], Master], configured: Configured, play: Play
) -> None:
    master = hired(relaxed(configured, "master.steps=7", "monitor.audit_every_steps=2"))
    start = master.learner.parameters.clone().numpy()
    play(master)
    points = [load_audit(path) for path in sorted(master.folder.audits.glob("step-*.npz"))]
    assert [point.step for point in points] == [0, 2, 4, 6, 7]
    np.testing.assert_array_equal(points[0].parameters, start)
    np.testing.assert_array_equal(points[-1].parameters, master.learner.parameters.numpy())
    np.testing.assert_array_equal(points[-1].weights, master.method.proposal.weights)
    assert np.isnan(points[0].table).all()  # nothing was ever scored


# Interruption


def play_all(
    play: Play, data: Prepared, master: Master, until: Callable[[Actor, Operation], bool] | None = None
) -> None:
    """The whole run of this master, with its monitor and workers, to its end or until all are killed."""
    config, database = master.config, master.database
    workers = [Worker.of(config, Problem(config, data), database, CPU) for _ in range(config.worker.count)]
    monitor = Monitor(config, Problem(config, data), database, master.folder, CPU)
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


@pytest.mark.slow
def test_a_relaxed_run_goes_on_above_every_version_that_may_have_been_issued(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, play: Play
) -> None:
    config = relaxed(configured, "master.steps=1000000", "master.publish_every_steps=1")
    folder, database = new_folder("run"), begun(config)
    master = Master.of(config, Problem(config, data), database, folder, CPU)
    issued: list[int] = []

    def until(actor: Actor, operation: Operation) -> bool:
        if operation.name == "publish":
            issued.append(operation.version)
            score_chunk(database, 0, operation.version - 1, 1.0)
        return len(issued) == 1500

    play(master, until=until)  # long enough to pass the versions that the first checkpoint reserved
    resumed = Master.of(config, Problem(config, data), database, folder, CPU, load_checkpoint(folder.checkpoint))
    assert resumed.publishing.version > max(issued)
    assert resumed.learner.step <= master.learner.step


def test_a_relaxed_masters_weights_keep_their_age_in_versions_when_it_is_resumed(
    hired: Callable[[Config], Master], configured: Configured, begun: Begun, data: Prepared
) -> None:
    config = relaxed(configured, "proposal.staleness_limit_versions=2", "proposal.minimum_usable_fraction=0")
    master = hired(config)
    database: Any = master.database
    for number in range(5):
        score_chunk(database, number, number + 1, 1.0)
    master.publishing.version, master.learner.step = 6, 15  # version 5 was published last
    refresh(master)
    master.checkpoint(database.seconds())
    checkpoint = load_checkpoint(master.folder.checkpoint)
    again = begun(config)
    again.begin(again.layout(), checkpoint.seconds, checkpoint.records)
    resumed = Master.of(config, Problem(config, data), again, master.folder, CPU, checkpoint)
    refresh(resumed)
    np.testing.assert_array_equal(resumed.method.proposal.weights, master.method.proposal.weights)
    assert report(resumed)["staleness/mean_versions"] == report(master)["staleness/mean_versions"]


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
