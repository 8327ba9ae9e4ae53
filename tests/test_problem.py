"""The problem joins data, network and loss; its fingerprint is what a run's database and folders know a network by."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from issgd_cli.config.config import Config
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.networks import flat
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.problem import Problem

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
    problem = Problem(configured(f"model.hidden={hidden}"), replace(data, shape=(3, 32, 32), classes=10))
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
