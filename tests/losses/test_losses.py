"""What every loss that a configuration may name keeps to."""

from typing import cast

import pytest
import torch
from torch import Tensor

from issgd_cli.losses import Objective
from issgd_cli.registries import LOSSES

EXAMPLES, OUTPUTS = 12, 4


def targets_of(loss: Objective, random: torch.Generator) -> Tensor:
    if loss.targets == "classes":
        return torch.randint(OUTPUTS, (EXAMPLES,), generator=random)
    numbers = torch.randn(EXAMPLES, OUTPUTS, generator=random, dtype=torch.float64)
    return numbers if loss.targets == "numbers" else (numbers > 0).double()


@pytest.mark.parametrize("scale", [0.1, 1, 10])
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradients_by_the_outputs_are_autograds(name: str, scale: float) -> None:
    loss: Objective = LOSSES[name]
    random = torch.Generator().manual_seed(3)
    outputs = scale * torch.randn(EXAMPLES, OUTPUTS, generator=random, dtype=torch.float64)
    targets = targets_of(loss, random)
    outputs.requires_grad_()
    losses = loss(outputs, targets)
    assert losses.shape == (EXAMPLES,)
    assert (losses >= 0).all()
    (expected,) = torch.autograd.grad(losses.sum(), outputs)
    found = loss.output_gradients(outputs, targets)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), (outputs,))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_knows_every_examples_error_or_none(name: str) -> None:
    loss: Objective = LOSSES[name]
    random = torch.Generator().manual_seed(4)
    outputs = torch.randn(EXAMPLES, OUTPUTS, generator=random)
    errors = loss.errors(outputs, targets_of(loss, random))
    if loss.targets == "numbers":
        assert errors is None
    else:
        assert cast(Tensor, errors).shape == (EXAMPLES,)
        assert cast(Tensor, errors).dtype == torch.bool
