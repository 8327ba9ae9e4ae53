"""Proposition 1 for one fully-connected layer."""

import pytest
import torch
from torch import Tensor, nn

from issgd_cli.errors import LayerError
from issgd_cli.scores import squared_norms


def outer_products(inputs: Tensor, deltas: Tensor, bias: bool) -> Tensor:
    """The squared norm of each example's own weight gradient, an outer product, written out in full."""
    weight_gradients = torch.einsum("bo,bi->boi", deltas.double(), inputs.double())
    total = weight_gradients.square().sum((1, 2))
    return total + deltas.double().square().sum(1) if bias else total


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_proposition_1_equals_the_written_out_outer_products(seed: int, bias: bool) -> None:
    random = torch.Generator().manual_seed(seed)
    inputs, deltas = torch.randn(11, 7, generator=random), torch.randn(11, 4, generator=random)
    result = squared_norms(nn.Linear(7, 4, bias=bias), inputs, deltas)
    torch.testing.assert_close(result.double(), outer_products(inputs, deltas, bias), rtol=1e-6, atol=0)


def test_an_example_without_inputs_still_moves_the_bias() -> None:
    inputs, deltas = torch.zeros(2, 3), torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert squared_norms(nn.Linear(3, 2), inputs, deltas).tolist() == [25, 0]
    assert squared_norms(nn.Linear(3, 2, bias=False), inputs, deltas).tolist() == [0, 0]


def test_long_float32_rows_are_summed_within_a_millionth() -> None:
    random = torch.Generator().manual_seed(0)
    inputs, deltas = torch.randn(3, 200_000, generator=random), torch.ones(3, 1)
    result = squared_norms(nn.Linear(200_000, 1, bias=False), inputs, deltas)
    torch.testing.assert_close(result.double(), inputs.double().square().sum(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(5,), (2, 4, 5)])
def test_inputs_that_are_not_examples_by_features_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LayerError, match="Proposition 1"):
        squared_norms(nn.Linear(5, 3), torch.ones(shape), torch.ones(*shape[:-1], 3))
