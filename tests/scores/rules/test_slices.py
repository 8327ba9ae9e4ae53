"""Examples in slices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from issgd_cli.scores import squared_norms
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


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that an operation has made."""

    def __init__(self, *old: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.old, self.numbers = {tensor.untyped_storage().data_ptr() for tensor in old}, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.old:
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return found


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (partial(nn.Linear, 96, 64), (64, 10, 96)),  # by Gram matrices
        (partial(nn.Linear, 96, 64), (64, 50, 96)),  # by gradients
        (partial(nn.Conv2d, 8, 16, 3, padding=1), (64, 8, 6, 6)),  # by windows
        (partial(nn.Conv2d, 8, 16, 3, padding=1), (64, 8, 16, 16)),  # by one grouped convolution
        (partial(nn.Conv2d, 16, 16, 3, groups=16), (64, 16, 8, 8)),
        (partial(nn.LayerNorm, 64), (64, 20, 64)),
    ],
)
def test_however_many_examples_there_are_nothing_larger_than_a_slice_is_made(
    monkeypatch: pytest.MonkeyPatch, layer: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(slices, "MOST_NUMBERS_CPU", 20_000)
    made, inputs = layer(), torch.randn(shape)
    deltas = torch.randn(made(inputs).shape)
    with torch.no_grad(), Largest(inputs, deltas) as largest:
        squared_norms(made, inputs, deltas)
    assert 1_000 < largest.numbers < 1.5 * 20_000  # a pad of a slice is more than the slice
