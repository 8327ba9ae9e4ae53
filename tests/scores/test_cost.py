"""The work that norms are, against operations counted by hand."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import nn

from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores import cost
from issgd_cli.scores.gradient_norm import forward


def norms(model: nn.Module, inputs: torch.Tensor, classes: int) -> float:
    targets = torch.arange(len(inputs)) % classes
    return cost.norms(cross_entropy, model, inputs, targets, forward(cross_entropy, model, inputs, targets).plan)


@pytest.mark.parametrize("widths", [(6, 5, 4), (20, 30, 3), (16, 7, 6, 3)])
def test_of_linear_layers_two_sums_of_squares_a_layer(widths: Sequence[int]) -> None:
    """||a||^2 and ||delta||^2 are 2 d and 2 p operations, (||a||^2 + 1) ||delta||^2 and adding it up a few more."""
    sizes = list(pairwise(widths))
    layers = [layer for of in sizes for layer in (nn.Linear(*of), nn.ReLU())]
    of_products = sum(2 * d * p for d, p in sizes)
    squares = sum(2 * (d + p) for d, p in sizes)
    found = norms(nn.Sequential(*layers[:-1]), torch.randn(9, widths[0]), widths[-1]) * of_products
    assert squares + 2 * len(sizes) <= found <= squares + 4 * len(sizes)


def test_of_a_convolution_the_products_of_its_rule() -> None:
    """Of 64 positions, 27 inputs and 5 outputs each, the gradient is cheaper than inner products of all pairs."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 64, 4))
    of_products = 2 * 64 * 27 * 5 + 2 * 5 * 64 * 4
    found = norms(model, torch.randn(6, 3, 8, 8), 4) * of_products
    assert 2 * 64 * 27 * 5 < found < 2 * 64 * 27 * 5 + 20_000  # the products; taking patches, squares and sums besides


def test_counting_leaves_the_model_and_the_global_generators_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 4))
    inputs = torch.randn(6, 6)
    targets = torch.arange(6) % 4
    plan = forward(cross_entropy, model, inputs, targets).plan
    before, state = [each.clone() for each in model.parameters()], torch.get_rng_state()
    cost.norms(cross_entropy, model, inputs, targets, plan)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert all(each.grad is None for each in model.parameters())
    assert model.training


def test_a_norms_part_of_a_pass_has_sums_that_are_exact_in_any_order() -> None:
    found = norms(nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)), torch.randn(6, 7), 3)
    assert found > 0
    parts = [(2 + found) * 97, 128.0, (3 + found) * 128, found * 5] * 1000
    assert sum(parts) == sum(reversed(parts)) == sum(sorted(parts))
