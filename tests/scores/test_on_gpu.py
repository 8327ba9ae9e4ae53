"""Norms on a GPU are those of plain autograd, however its libraries round, and refusals are the same."""

import pytest
import torch
from torch import Tensor, nn

from issgd_cli.actors.devices import computing
from issgd_cli.errors import LayerError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores import score
from tests.benchmarks import stage
from tests.benchmarks.peers import one_by_one
from tests.benchmarks.scale import FULL, QUICK
from tests.benchmarks.situations import SITUATIONS
from tests.benchmarks.subjects import Subject, names, subject
from tests.gpus import DEVICE, needed

pytestmark = [needed, pytest.mark.slow]
ALL_DIGITS = stage.config(QUICK)  # of float32: no TF32
RELATIVE = 1e-5  # of norms, in float32


def expected(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """By plain autograd in float64, on the CPU; the model stays there, in float64."""
    wide = inputs.double() if inputs.is_floating_point() else inputs
    return one_by_one(model.double(), wide, labels).sqrt()


def found(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """There, as a run computes."""
    with computing(ALL_DIGITS):
        norms = score(cross_entropy, model.to(DEVICE), inputs.to(DEVICE), labels.to(DEVICE)).norms
    return norms.cpu().double()


def minibatch_of(it: Subject) -> tuple[nn.Module, Tensor, Tensor]:
    return it.model, it.inputs, it.labels


@pytest.mark.parametrize("name", [name for name, situation in SITUATIONS.items() if not situation.mixes])
def test_each_situations_norms(name: str) -> None:
    situation = SITUATIONS[name]
    right = one_by_one(*situation.made(torch.float64)).sqrt()
    torch.testing.assert_close(found(*situation.made()), right, rtol=RELATIVE, atol=1e-7)


@pytest.mark.parametrize("name", [name for name, situation in SITUATIONS.items() if situation.mixes])
def test_what_mixes_examples_is_refused(name: str) -> None:
    with pytest.raises(LayerError):
        found(*SITUATIONS[name].made())


@pytest.mark.parametrize("name", names(QUICK))
def test_each_networks_norms_and_those_of_products_with_fewer_digits(name: str) -> None:
    """A library's user has not asked for all of float32's digits: convolutions have TF32's by default."""
    right = expected(*minibatch_of(subject(QUICK, name)))
    torch.testing.assert_close(found(*minibatch_of(subject(QUICK, name))), right, rtol=RELATIVE, atol=1e-7)
    there = subject(QUICK, name).on(torch.device(DEVICE))
    default = score(cross_entropy, *minibatch_of(there)).norms
    torch.testing.assert_close(default.cpu().double(), right, rtol=1e-2, atol=1e-5)


def test_the_papers_network() -> None:
    minibatch = stage.minibatch(FULL, 64)
    right = expected(stage.network(FULL), *minibatch)
    torch.testing.assert_close(found(stage.network(FULL), *minibatch), right, rtol=10 * RELATIVE, atol=0)


@pytest.mark.parametrize("kernel", [3, 7])
def test_channels_one_by_one(kernel: int) -> None:
    """With the larger kernel their norms are had another way than on a CPU."""

    def made() -> nn.Sequential:
        torch.manual_seed(0)
        side = 20 + 2 - kernel + 1
        convolution = nn.Conv2d(8, 8, kernel, padding=1, groups=8)
        return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(8 * side**2, 4))

    inputs, labels = torch.randn(16, 8, 20, 20), torch.randint(4, (16,))
    right = expected(made(), inputs, labels)
    torch.testing.assert_close(found(made(), inputs, labels), right, rtol=RELATIVE, atol=0)
