"""Proposition 1 for one fully-connected layer, and its norms where the weights are shared along further axes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from issgd_cli.errors import LayerError
from issgd_cli.scores import squared_norms
from issgd_cli.scores.rules import linear
from tests.loops import check, drawn, normal, one_by_one


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


@pytest.mark.parametrize("shape", [(5,), ()])
def test_inputs_without_an_axis_of_examples_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LayerError, match=r"Linear layer met inputs of shape .*2 axes at least"):
        squared_norms(nn.Linear(5, 3), torch.ones(shape), torch.ones(*shape[:-1], 3))


# Further axes


@drawn
@given(
    st.integers(1, 4),
    st.lists(st.integers(0, 5), max_size=3),
    st.integers(1, 12),
    st.integers(1, 12),
    st.booleans(),
)
def test_along_further_axes_the_gradients_add_up(
    examples: int, middle: list[int], features: int, outputs: int, bias: bool
) -> None:
    check(nn.Linear(features, outputs, bias), normal(examples, *middle, features))


@pytest.mark.parametrize(("positions", "width"), [(256, 1024), (600, 200), (1024, 64)])
def test_long_float32_sequences_are_within_a_hundred_thousandth(positions: int, width: int) -> None:
    layer, inputs = nn.Linear(width, width), normal(2, positions, width)
    deltas = normal(2, positions, width, seed=1)  # without a mean: the sum is as small as a sum of noise
    torch.testing.assert_close(
        squared_norms(layer, inputs, deltas).double(), one_by_one(layer, inputs, deltas), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("is_cheaper", [True, False])
def test_the_cheaper_way_is_as_right_as_the_other(monkeypatch: pytest.MonkeyPatch, is_cheaper: bool) -> None:
    monkeypatch.setattr(linear, "gram_is_cheaper", lambda *sizes: is_cheaper)
    for positions, features, outputs in ((0, 3, 4), (1, 3, 4), (9, 3, 4), (3, 20, 30)):
        check(nn.Linear(features, outputs), normal(3, positions, features))


@pytest.mark.parametrize(
    ("positions", "features", "outputs", "cheaper"),
    [(1, 8, 8, True), (64, 192, 768, True), (197, 192, 192, False), (4, 512, 10, True), (1024, 576, 64, False)],
)
def test_gram_matrices_are_for_few_positions(positions: int, features: int, outputs: int, cheaper: bool) -> None:
    multiplications = positions**2 * (features + outputs), positions * features * outputs
    assert linear.gram_is_cheaper(positions, features, outputs) == (multiplications[0] < multiplications[1]) == cheaper


def test_what_cancels_is_not_below_zero() -> None:
    inputs = normal(200, 1, 64).expand(200, 8, 64)  # the same at each position,
    deltas = normal(200, 8, 64, seed=1)
    deltas = deltas - deltas.mean(1, keepdim=True)  # where the deltas add up to nothing
    raw = ((inputs @ inputs.mT) * (deltas @ deltas.mT)).sum((1, 2))
    assert (raw < 0).any()
    assert linear.gram_is_cheaper(8, 64, 64)
    found = squared_norms(nn.Linear(64, 64), inputs, deltas)
    assert (found >= 0).all()
    assert (found < 1e-5 * math.prod((8, 64, 64))).all()


@pytest.mark.parametrize("numbers", [1, 40, 10**9])
def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    monkeypatch.setattr("issgd_cli.scores.rules.slices.MOST_NUMBERS_CPU", numbers)
    check(nn.Linear(6, 5), normal(7, 3, 6))
    check(nn.Linear(2, 3), normal(7, 11, 2))
