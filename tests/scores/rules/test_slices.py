"""Examples in slices."""

import pytest
import torch
from torch import Tensor

from issgd_cli.scores.rules import slices


@pytest.mark.parametrize(("numbers", "sizes"), [(1, [10]), (3, [4, 4, 2]), (5, [2] * 5), (100, [1] * 10), (0, [10])])
def test_a_slice_has_as_many_examples_as_fit_and_one_at_least(
    monkeypatch: pytest.MonkeyPatch, numbers: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(slices, "MOST_NUMBERS_CPU", 12)
    met = []

    def norms2(inputs: Tensor, deltas: Tensor) -> Tensor:
        met.append(len(inputs))
        return inputs.square().sum(1) * deltas

    inputs, deltas = torch.randn(10, 2), torch.randn(10)
    found = slices.in_slices(norms2, inputs, deltas, numbers)
    assert met == sizes
    torch.testing.assert_close(found, inputs.square().sum(1) * deltas)


def test_no_examples_have_no_norms() -> None:
    assert slices.in_slices(lambda inputs, deltas: deltas, torch.ones(0, 3), torch.ones(0), 3).shape == (0,)


@pytest.mark.parametrize(
    ("inputs", "deltas", "expected"),
    [
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float32, torch.float32),
        (torch.int64, torch.float16, torch.float32),
        (torch.int64, torch.float64, torch.float64),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_squares_are_summed_in_float32_at_least(
    inputs: torch.dtype, deltas: torch.dtype, expected: torch.dtype
) -> None:
    assert slices.wide(torch.ones(1, dtype=inputs), torch.ones(1, dtype=deltas)) == expected


def test_products_are_not_rounded_where_the_model_runs_in_half_precision() -> None:
    inputs = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))

    def norms2(inputs: Tensor, deltas: Tensor) -> Tensor:
        return (inputs @ deltas.mT).square().sum((1, 2))

    expected = slices.in_slices(norms2, inputs, inputs, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert (inputs @ inputs.mT).dtype == torch.bfloat16
        assert torch.equal(slices.in_slices(norms2, inputs, inputs, 1), expected)


def test_an_examples_numbers() -> None:
    assert slices.numbers_each(torch.ones(3, 4, 5)) == 20
    assert slices.numbers_each(torch.ones(0, 4)) == 0
