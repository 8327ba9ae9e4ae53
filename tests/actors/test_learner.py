"""The learner: its gradients and steps are torch's own, and a run that diverges leaves nothing that is no number."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from issgd_cli.actors.actor import Actor, Operation
from issgd_cli.actors.learner import Learner
from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.worker import Worker
from issgd_cli.config.config import Config
from issgd_cli.datasets.augmentation import Augmentation
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import RunError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.methods.method import Needs
from issgd_cli.problem import Problem
from issgd_cli.randomness import generator
from issgd_cli.runs.checkpoints import load_checkpoint
from tests.masters import Hired, refresh, relaxed, score_everything, train
from tests.networks.made import named

CPU = torch.device("cpu")

Configured = Callable[..., Config]
Play = Callable[..., list[tuple[Actor, Operation]]]


@pytest.mark.parametrize("settings", [[], ["optimizer.nesterov=false"], ["optimizer.momentum=0"]])
def test_steps_are_torchs_own_to_the_bit(hired: Hired, configured: Configured, settings: list[str]) -> None:
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
def test_steps_follow_the_originals_nesterov_formula(hired: Hired, configured: Configured, settings: list[str]) -> None:
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
        hidden = inputs.flatten(1).double()
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


@pytest.mark.parametrize("needs", ["nothing", "norms", "rows"])
def test_each_row_of_coefficients_gives_a_gradient_of_its_own(
    configured: Configured, data: Prepared, needs: Needs
) -> None:
    problem = Problem(config := configured(), data)
    learner = Learner(config, problem, CPU, None)
    inputs, labels = problem.examples("train", CPU)[torch.arange(8)]
    coefficients = torch.rand((2, 8), generator=torch.Generator().manual_seed(0)) + 0.1
    gradients, squared_norms = learner.backward(learner.forward(inputs, labels, needs), coefficients)
    parameters = list(learner.model.parameters())

    def losses() -> torch.Tensor:
        return functional.cross_entropy(learner.model(inputs), labels, reduction="none")

    for number, row in enumerate(coefficients):
        for ours, torchs in zip(gradients, torch.autograd.grad(row @ losses(), parameters), strict=True):
            torch.testing.assert_close(ours[number], torchs)
    if needs != "norms":
        assert squared_norms is None
        return
    # Of each example's own loss: no coefficient stays in them.
    own = [torch.autograd.grad(losses()[number], parameters) for number in range(8)]
    expected = torch.stack([sum((part.square().sum() for part in parts), torch.zeros(())) for parts in own])
    torch.testing.assert_close(squared_norms, expected, rtol=1e-4, atol=1e-7)


# Buffers


def test_buffers_that_training_changes_are_published_and_saved_with_the_parameters(
    configured: Configured, data: Prepared, hired: Hired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else workers would score, and a resumed run train, another network."""
    config = relaxed(configured, f"model.network={named(monkeypatch)}", "proposal.method=sgd")
    master = hired(config)
    learner = master.learner
    start = learner.parameters.clone()
    for _ in range(4):
        train(master)
    means, variances = learner.parameters[-10:-5], learner.parameters[-5:]
    assert torch.equal(means, learner.model.get_buffer("2.running_mean"))
    assert torch.equal(variances, learner.model.get_buffer("2.running_var"))
    assert not (learner.parameters[-10:] == start[-10:]).any()
    assert {len(vector) for vector in learner.optimizer.vectors.values()} == {len(start) - 10}

    published = master.publishing.next(learner.step)
    list(master.publishing.publish(published))
    scorer = Worker.of(config, learner.problem, master.database, CPU).scorer
    found = master.database.parameters()
    assert found is not None
    scorer.load(published.version, found[1])
    inputs, labels = master.examples[torch.arange(8)]
    before = learner.parameters.clone()
    assert learner.model.training
    assert torch.equal(scorer.model(inputs), copy.deepcopy(learner.model).eval()(inputs))
    assert not torch.allclose(scorer.model(inputs), learner.model(inputs))  # which moves its buffers, once more
    learner.parameters.copy_(before)

    master.checkpoint(master.database.seconds())
    saved = load_checkpoint(master.saving.folder.checkpoint)
    again = Learner(config, Problem(config, data), CPU, saved)
    for one in (learner, again):
        gradients, _ = one.backward(one.forward(inputs, labels), torch.full((1, 8), 1 / 8))
        one.descend([part[0] for part in gradients])
    assert torch.equal(again.parameters, learner.parameters)
    assert torch.equal(again.model.get_buffer("2.running_var"), learner.model.get_buffer("2.running_var"))


def test_what_is_frozen_stays_as_it_is(configured: Configured, data: Prepared) -> None:
    problem = Problem(config := configured(), data)
    build = problem._network.build

    def frozen() -> nn.Module:
        model = build()
        next(model.children()).requires_grad_(False)
        return model

    problem._network.build = frozen  # type: ignore[method-assign]
    learner = Learner(config, problem, CPU, None)
    weights, start = learner.model.get_parameter("0.weight"), learner.parameters.clone()
    inputs, labels = problem.examples("train", CPU)[torch.arange(8)]
    gradients, _ = learner.backward(learner.forward(inputs, labels), torch.full((1, 8), 1 / 8))
    learner.descend([part[0] for part in gradients])
    trained = len(learner.trained)
    assert len(start) - trained == weights.numel() + 7
    assert torch.equal(learner.parameters[trained:], start[trained:])
    assert not torch.equal(learner.trained, start[:trained])
    assert torch.equal(weights.flatten(), start[trained : trained + weights.numel()])


# Divergence


def test_a_loss_that_is_no_number_fails_the_run_and_names_the_step(
    hired: Hired, configured: Configured, play: Play
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
        monitor = Monitor(config, Problem(config, data), database, master.saving.folder, CPU)
        with pytest.raises(RunError) as told:
            play(monitor, master, Worker.of(config, Problem(config, data), database, CPU), until=until)
        monitor.trace.close()
        monitor.events.close()
    return str(told.value)


@pytest.mark.parametrize("mode", ["relaxed", "exact"])
def test_a_run_that_diverges_names_step_weight_and_the_last_good_checkpoint(
    hired: Hired, configured: Configured, play: Play, data: Prepared, mode: str
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
    assert f"The last good checkpoint is {master.saving.folder.checkpoint}." in message
    checkpoint = load_checkpoint(master.saving.folder.checkpoint)
    assert 0 < checkpoint.step <= 6
    assert np.isfinite(checkpoint.parameters).all()
    assert np.isfinite(checkpoint.optimizer["momentum"]).all()


@pytest.mark.parametrize(
    ("mode", "seconds"), [("relaxed", "1e-6"), ("relaxed", "600"), ("exact", "1e-6"), ("exact", "600")]
)
def test_parameters_that_overflow_after_a_good_loss_are_neither_saved_nor_published(
    hired: Hired, configured: Configured, play: Play, data: Prepared, mode: str, seconds: str
) -> None:
    """The last step of a block: its loss is of the parameters before it. What comes next is a checkpoint or not."""
    settings = ["master.steps=30", "master.publish_every_steps=3", f"master.checkpoint_every_seconds={seconds}"]
    master = hired(configured(f"master.mode={mode}", *settings))
    message = failure(play, data, master, diverging(master, 1e39, after=11))
    assert "The parameters are not finite after step 12 (largest importance weight possible: " in message
    if (mode, seconds) == ("exact", "600"):  # a relaxed run saves one after its first block in any case
        assert "There is no checkpoint yet." in message
        assert not master.saving.folder.checkpoint.exists()
    else:
        assert f"The last good checkpoint is {master.saving.folder.checkpoint}." in message
        assert load_checkpoint(master.saving.folder.checkpoint).step in (3, 6, 9)
    found = master.database.parameters()
    assert found is not None
    assert np.isfinite(found[1]).all()


def test_the_minibatch_of_a_step_is_augmented_and_what_is_scored_is_not(configured: Configured, data: Prepared) -> None:
    problem = Problem(config := configured("data.augment=['crop', 'flip']"), data)
    learner = Learner(config, problem, CPU, None)
    examples = problem.examples("train", CPU)
    inputs, labels = examples[torch.arange(8)]
    for step in (0, 1):
        learner.step = step
        changed = Augmentation(("crop", "flip"), config.seed, data.shape)(inputs, step)
        assert not torch.equal(changed, inputs)
        expected = functional.cross_entropy(learner.model(changed), labels, reduction="none")
        torch.testing.assert_close(learner.forward(inputs, labels).losses, expected)
    assert torch.equal(examples[torch.arange(8)][0], inputs)


def test_augmented_draws_by_any_weights_stay_unbiased(configured: Configured, data: Prepared) -> None:
    """Every draw of one example, each weighed as it was drawn: the mean gradient of the step's changed examples."""
    problem = Problem(config := configured("data.augment=['crop', 'flip']"), data)
    learner = Learner(config, problem, CPU, None)
    examples = problem.examples("train", CPU)
    omega = np.random.default_rng(0).exponential(1.0, len(examples)) + 0.01
    total = torch.zeros(problem.size, dtype=torch.float64)
    plain = torch.zeros(problem.size, dtype=torch.float64)
    for index in range(len(examples)):
        losses = learner.forward(*examples[np.array([index])])
        weight = omega.mean() / omega[index]
        gradients, _ = learner.backward(losses, torch.tensor([[weight]], dtype=torch.float32))
        flat = torch.cat([part.flatten() for part in gradients]).double()
        total += omega[index] / omega.sum() * flat
        plain += flat / weight / len(examples)
    torch.testing.assert_close(total, plain, rtol=1e-5, atol=1e-7)
