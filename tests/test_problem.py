"""The problem joins data, network and loss; its fingerprint is what a run's database and folders know a network by."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from issgd_cli.config.config import Config
from issgd_cli.datasets.prepared import Prepared, Split
from issgd_cli.errors import ConfigError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.networks import flat
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.problem import Problem
from tests.networks.made import named

Configured = Callable[..., Config]

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("hidden", "size", "fingerprint"),
    [
        ("[2048, 2048, 2048, 2048]", 18_903_050, "cd8d42b01bbe3767"),  # the paper's
        ("[32, 32]", 99_722, "05a0bb9c3718390f"),  # experiments/smoke.toml's
    ],
)
def test_a_network_is_known_by_what_version_0_1_called_it(
    configured: Configured, data: Prepared, hidden: str, size: int, fingerprint: str
) -> None:
    problem = Problem(configured(f"model.hidden={hidden}"), replace(data, shape=(3, 32, 32), outputs=10))
    assert (problem.size, problem.fingerprint) == (size, fingerprint)


def test_a_run_starts_from_the_configured_network_as_its_seed_draws_it(configured: Configured, data: Prepared) -> None:
    problem = Problem(configured(), data)
    expected = mlp(16, [7, 6], 3)
    initialise(expected, 4, std=0.5)
    model = problem.initial_network(4, CPU)
    assert torch.equal(flatten_parameters(model), flatten_parameters(expected))
    assert flat.fingerprint(problem.network(CPU)) == flat.fingerprint(model) == problem.fingerprint


def test_the_problems_examples_network_and_loss_fit_together(configured: Configured, data: Prepared) -> None:
    problem = Problem(configured(), data)
    examples = problem.examples("valid", CPU)
    assert len(examples) == len(data.splits["valid"])
    inputs, labels = examples[torch.arange(5)]
    losses = problem.loss(problem.initial_network(0, CPU)(inputs), labels)
    assert losses.shape == (5,)
    assert problem.loss is cross_entropy


def test_what_is_trained_is_in_training_mode_and_what_scores_is_not(
    configured: Configured, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    for network in ("mlp", "cnn", named(monkeypatch)):
        problem = Problem(configured(f"model.network={network}"), data)
        training, scoring = problem.initial_network(0, CPU), problem.network(CPU)
        assert {layer.training for layer in training.modules()} == {True}
        assert {layer.training for layer in scoring.modules()} == {False}


def test_a_network_that_mixes_its_minibatch_gives_no_norms_of_it(
    configured: Configured, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    reusing = ["master.mode=relaxed", "master.reuse_own_norms=true", "proposal.limit_mode=fill"]
    oracle = ["proposal.source=oracle", "cluster.kind=simulated", "master.publish_every_steps=1"]
    for network in ("resnet18", named(monkeypatch)):
        batch = [f"model.network={network}", "resnet18.norm=batch"]
        for key, settings in (("master.reuse_own_norms", reusing), ("proposal.source = 'oracle'", oracle)):
            with pytest.raises(
                ConfigError,
                match=rf"{key} needs .*Set resnet18\.norm, or pointnet\.norm, to 'group'",
            ):
                Problem(configured(*batch, *settings), data)
            Problem(configured("model.network=resnet18", *settings), data)
        problem = Problem(configured(*batch), data)
        with pytest.raises(ConfigError, match=r"proposal\.method = 'x' needs"):
            problem.refuse_batch_statistics("proposal.method = 'x'")


def test_buffers_are_part_of_what_travels_and_not_of_what_descends(
    configured: Configured, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(configured(f"model.network={named(monkeypatch)}"), data)
    assert problem.trained_size == 16 * 5 + 5 + 5 + 5 + 5 * 3 + 3
    assert problem.size == problem.trained_size + 5 + 5
    plain = Problem(configured(), data)
    assert plain.size == plain.trained_size
    assert isinstance(problem.network(CPU), nn.Sequential)


def with_targets(data: Prepared, *values: float) -> Prepared:
    """The same inputs with as many numbers to learn as values, these for every example."""
    splits = {
        name: Split(split.inputs, np.tile(np.array(values, np.float32), (len(split), 1)))
        for name, split in data.splits.items()
    }
    return replace(data, splits=splits, outputs=len(values), targets="numbers")


def test_a_network_has_as_many_outputs_as_there_are_numbers_to_learn(configured: Configured, data: Prepared) -> None:
    numbers = with_targets(data, 0.5, 7.0)
    problem = Problem(configured("model.loss=squared"), numbers)
    inputs, targets = problem.examples("train", CPU)[:5]
    outputs = problem.initial_network(0, CPU)(inputs)
    assert outputs.shape == targets.shape == (5, 2)
    assert problem.loss(outputs, targets).shape == (5,)


@pytest.mark.parametrize(
    ("loss", "values", "message"),
    [
        ("cross-entropy", (0.0,), "compares with classes, but the targets of patterns are numbers. Set .* 'squared'"),
        ("squared", (), "compares with numbers, but the targets of patterns are classes. Set .* to 'cross-entropy'"),
        ("binary-cross-entropy", (), "compares with probabilities, but the targets of patterns are classes"),
        ("binary-cross-entropy", (0.0, 1.5), "has targets beyond 0 and 1. Set model.loss = 'squared'"),
        ("binary-cross-entropy", (-0.5, 1.0), "has targets beyond 0 and 1"),
    ],
)
def test_a_loss_that_does_not_fit_the_targets_is_refused(
    configured: Configured, data: Prepared, loss: str, values: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Problem(configured(f"model.loss={loss}"), with_targets(data, *values) if values else data)
    Problem(configured("model.loss=binary-cross-entropy"), with_targets(data, 0.0, 1.0))
