"""Norms on a GPU are those of plain autograd, however its libraries round, and refusals are the same."""

import copy

import pytest
import torch
from torch import nn

from issgd_cli.actors.devices import computing
from issgd_cli.errors import LayerError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.scores import score
from tests.benchmarks import stage
from tests.benchmarks.peers import one_by_one
from tests.benchmarks.scale import QUICK
from tests.benchmarks.situations import SITUATIONS
from tests.benchmarks.subjects import names, subject
from tests.gpus import DEVICE, needed

pytestmark = [needed, pytest.mark.slow]
PLAIN = stage.config(QUICK)  # products in all of float32's digits
RELATIVE = 1e-5  # of norms, in float32


@pytest.mark.parametrize("name", [name for name, situation in SITUATIONS.items() if not situation.mixes])
def test_each_situations_norms(name: str) -> None:
    expected = one_by_one(*SITUATIONS[name].made(torch.float64)).sqrt()
    model, inputs, labels = SITUATIONS[name].made()
    with computing(PLAIN):
        found = score(cross_entropy, model.to(DEVICE), inputs.to(DEVICE), labels.to(DEVICE)).norms
    torch.testing.assert_close(found.cpu().double(), expected, rtol=RELATIVE, atol=1e-7)


@pytest.mark.parametrize("name", [name for name, situation in SITUATIONS.items() if situation.mixes])
def test_what_mixes_examples_is_refused(name: str) -> None:
    model, inputs, labels = SITUATIONS[name].made()
    with pytest.raises(LayerError):
        score(cross_entropy, model.to(DEVICE), inputs.to(DEVICE), labels.to(DEVICE))


@pytest.mark.parametrize("name", names(QUICK))
def test_each_networks_norms_and_those_of_products_with_fewer_digits(name: str) -> None:
    """A library's user has not asked for all of float32's digits: convolutions have TF32's by default."""
    it = subject(QUICK, name)
    inputs = it.inputs.double() if it.inputs.is_floating_point() else it.inputs
    expected = one_by_one(copy.deepcopy(it.model).double(), inputs, it.labels).sqrt()
    model, inputs, labels = it.model.to(DEVICE), it.inputs.to(DEVICE), it.labels.to(DEVICE)
    with computing(PLAIN):
        exact = score(cross_entropy, model, inputs, labels).norms
    torch.testing.assert_close(exact.cpu().double(), expected, rtol=RELATIVE, atol=1e-7)
    default = score(cross_entropy, copy.deepcopy(model), inputs, labels).norms
    torch.testing.assert_close(default.cpu().double(), expected, rtol=1e-2, atol=1e-5)


def test_a_large_minibatch_of_the_papers_network() -> None:
    model = mlp(3072, [2048] * 4, 10)
    initialise(model, 0)
    inputs, labels = torch.randn(64, 3072), torch.randint(10, (64,))
    expected = one_by_one(copy.deepcopy(model).double(), inputs.double(), labels).sqrt()
    with computing(PLAIN):
        found = score(cross_entropy, model.to(DEVICE), inputs.to(DEVICE), labels.to(DEVICE)).norms
    torch.testing.assert_close(found.cpu().double(), expected, rtol=10 * RELATIVE, atol=0)  # sums of 3,072 products


@pytest.mark.parametrize("kernel", [3, 7])
def test_channels_one_by_one(kernel: int) -> None:
    """Whose norms are had another way than on a CPU."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 8, kernel, padding=1, groups=8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)]
    model, inputs, labels = nn.Sequential(*layers), torch.randn(16, 8, 20, 20), torch.randint(4, (16,))
    model(inputs)
    expected = one_by_one(copy.deepcopy(model).double(), inputs.double(), labels).sqrt()
    with computing(PLAIN):
        found = score(cross_entropy, model.to(DEVICE), inputs.to(DEVICE), labels.to(DEVICE)).norms
    torch.testing.assert_close(found.cpu().double(), expected, rtol=RELATIVE, atol=0)
