"""The logistic loss that stays right for sure predictions, in both directions."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from issgd_cli.losses.binary_cross_entropy import binary_cross_entropy


def ours(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    losses = binary_cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    return losses.detach(), gradient


@pytest.mark.parametrize("outputs", [1, 2, 5])
@pytest.mark.parametrize("soft", [False, True])
def test_losses_and_gradients_equal_torchs_in_float64(outputs: int, soft: bool) -> None:
    random = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(20, outputs, generator=random, dtype=torch.float64)
    targets = torch.rand(20, outputs, generator=random, dtype=torch.float64)
    targets = targets if soft else targets.round()
    losses, gradient = ours(logits, targets)
    expected = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, torch.sigmoid(logits) - targets, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("gap", [5.0, 16.0, 20.0, 30.0, 50.0, 80.0])
def test_sure_predictions_keep_their_digits_in_float32(gap: float, target: float) -> None:
    sign = 1 if target else -1
    for right in (True, False):
        z = sign * gap if right else -sign * gap
        losses, gradient = ours(torch.tensor([[z]]), torch.tensor([[target]]))
        wrongness = gap if not right else -gap
        expected = math.log1p(math.exp(wrongness))
        assert float(losses[0]) == pytest.approx(expected, rel=1e-6, abs=0)
        assert float(gradient[0, 0]) == pytest.approx(-sign / (1 + math.exp(-wrongness)), rel=1e-6, abs=0)
        analytic = binary_cross_entropy.output_gradients(torch.tensor([[z]]), torch.tensor([[target]]))
        assert torch.equal(analytic, gradient)


def test_an_example_is_wrong_where_any_of_its_outputs_is() -> None:
    outputs = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0], [0.0, -0.5]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert binary_cross_entropy.errors(outputs, targets).tolist() == [False, True, True, False]


def test_each_examples_gradient_is_scaled_by_its_own_factor() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, dtype=torch.float64, generator=random).requires_grad_()
    targets = torch.rand(3, 4, generator=random).round()
    factors = torch.tensor([1.0, 0.0, 2.5], dtype=torch.float64)
    (weighted,) = torch.autograd.grad((factors * binary_cross_entropy(logits, targets)).sum(), logits)
    plain = binary_cross_entropy.output_gradients(logits, targets)
    torch.testing.assert_close(weighted, factors[:, None] * plain)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_give_a_loss_that_is_none(bad: float) -> None:
    losses = binary_cross_entropy(torch.tensor([[bad, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert not torch.isfinite(losses[0])
    assert torch.isfinite(losses[1])
