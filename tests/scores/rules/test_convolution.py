"""Convolutions and transposed ones, of all their options."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from issgd_cli.errors import LayerError
from issgd_cli.scores import squared_norms
from issgd_cli.scores.rules import convolution, linear
from tests.loops import check, deltas_for, drawn, normal, one_by_one

CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def each(draw: st.DrawFn, axes: int, least: int, most: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(least, most)) for _ in range(axes))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A convolution and inputs that it can be given."""
    axes, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, dilation = each(draw, axes, 1, 3), each(draw, axes, 1, 2)
    reach = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    padding: Any = draw(st.sampled_from(["same", "valid", None]))
    sizes = [most + draw(st.integers(1, 4)) for most in reach]
    if padding is None:  # reflections reach less far than the image does
        padding = tuple(min(size - 1, draw(st.integers(0, 2))) for size in sizes)
    stride = (1,) * axes if padding == "same" else each(draw, axes, 1, 3)
    layer = CONVOLUTIONS[axes](
        *(channels, outputs, kernel),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
    )
    return layer, normal(draw(st.integers(1, 4)), channels, *sizes)


@st.composite
def transposed(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A transposed convolution and inputs that it can be given."""
    axes, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, stride, dilation = each(draw, axes, 1, 3), each(draw, axes, 1, 3), each(draw, axes, 1, 3)
    more = tuple(draw(st.integers(0, max(pair) - 1)) for pair in zip(stride, dilation, strict=True))
    padding = tuple(min(d * (k - 1), draw(st.integers(0, 2))) for k, d in zip(kernel, dilation, strict=True))
    sizes = [draw(st.integers(2, 4)) for _ in range(axes)]
    layer = TRANSPOSED[axes](
        *(channels, outputs, kernel, stride, padding, more, groups), bias=draw(st.booleans()), dilation=dilation
    )
    return layer, normal(draw(st.integers(1, 4)), channels, *sizes)


@drawn
@given(convolutions())
def test_convolutions(drawn: tuple[nn.Module, Tensor]) -> None:
    check(*drawn)


@drawn
@given(transposed())
def test_transposed_convolutions(drawn: tuple[nn.Module, Tensor]) -> None:
    check(*drawn)


WAYS: dict[str, dict[str, bool]] = {
    "the gradients": {"gram_is_cheaper": False, "gradients_are_cheaper": True},
    "the windows' product": {"gram_is_cheaper": False, "gradients_are_cheaper": False},
    "the windows' Gram matrices": {"gram_is_cheaper": True, "gradients_are_cheaper": False},
}

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (partial(nn.Conv2d, 8, 5, 3, padding=1), (4, 8, 7, 6)),
    "one position": (partial(nn.Conv2d, 3, 4, 5), (3, 3, 5, 5)),
    "one example": (partial(nn.Conv2d, 3, 4, 3), (1, 3, 5, 5)),
    "pointwise": (partial(nn.Conv2d, 8, 6, 1), (3, 8, 4, 4)),
    "depthwise": (partial(nn.Conv2d, 6, 6, 3, padding=1, groups=6), (3, 6, 5, 5)),
    "depthwise, multiplied": (partial(nn.Conv2d, 6, 12, 3, groups=6), (3, 6, 5, 5)),
    "grouped": (partial(nn.Conv1d, 16, 8, 3, groups=2, stride=2), (3, 16, 12)),
    "a border that no window meets": (partial(nn.Conv2d, 2, 3, 2, stride=3), (3, 2, 7, 6)),
    "a picture": (partial(nn.Conv2d, 8, 4, 3, padding="same", padding_mode="reflect"), (2, 8, 20, 20)),
    "a volume": (partial(nn.Conv3d, 2, 3, (1, 2, 3), dilation=(1, 2, 1)), (3, 2, 3, 5, 4)),
    "transposed": (partial(nn.ConvTranspose2d, 4, 6, 3, 2, padding=1, output_padding=1, groups=2), (3, 4, 3, 4)),
    "transposed, with more at its end than a stride": (
        partial(nn.ConvTranspose1d, 2, 3, 2, stride=1, output_padding=2, dilation=3),
        (3, 2, 5),
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("way", WAYS)
def test_all_ways_are_right_for_all_layers(monkeypatch: pytest.MonkeyPatch, way: str, layer: str) -> None:
    gram, gradients = WAYS[way]["gram_is_cheaper"], WAYS[way]["gradients_are_cheaper"]
    for module in (linear, convolution):
        monkeypatch.setattr(module, "gram_is_cheaper", lambda *sizes: gram)
    monkeypatch.setattr(convolution, "gradients_are_cheaper", lambda *sizes: gradients)
    make, shape = LAYERS[layer]
    check(make(), normal(*shape))


@pytest.mark.parametrize(
    ("layer", "shape", "way"),
    [
        (partial(nn.Conv2d, 64, 64, 3, padding=1), (2, 64, 32, 32), "by_gradients"),
        (partial(nn.Conv2d, 3, 64, 3, padding=1), (2, 3, 32, 32), "by_windows"),
        (partial(nn.Conv2d, 256, 256, 3, padding=1), (2, 256, 4, 4), "by_windows"),
        (partial(nn.Conv2d, 64, 256, 1), (2, 64, 16, 16), "by_windows"),
        (partial(nn.Conv2d, 32, 32, 3, groups=32), (2, 32, 8, 8), "by_gradients"),
        (partial(nn.Conv2d, 32, 32, 5, groups=32), (2, 32, 20, 20), "by_windows"),
    ],
)
def test_each_way_is_taken_where_it_was_measured_to_be_the_faster_and_is_exact_at_these_sizes(
    monkeypatch: pytest.MonkeyPatch, layer: Callable[[], nn.Module], shape: tuple[int, ...], way: str
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)  # else always the windows
    taken = []
    for name in ("by_gradients", "by_windows"):
        original = getattr(convolution, name)

        def seen(*given: Any, name: str = name, original: Callable[..., Tensor] = original) -> Tensor:
            taken.append(name)
            return original(*given)

        monkeypatch.setattr(convolution, name, seen)
    made, inputs = layer(), normal(*shape)
    deltas = normal(*deltas_for(made, inputs).shape, seed=1)
    found = squared_norms(made, inputs, deltas)
    assert set(taken) == {way}
    torch.testing.assert_close(found.double(), one_by_one(made, inputs, deltas), rtol=1e-5, atol=0)


def test_on_a_gpu_only_channels_one_by_one_take_their_gradients() -> None:
    sizes = {"depthwise": (1024, 1, 1, 49), "plain": (1024, 64, 64, 9), "grouped": (1024, 16, 16, 9)}
    taken = {name for name, each in sizes.items() if convolution.gradients_are_cheaper(*each, on_gpu=True)}
    assert taken == {"depthwise"}


@pytest.mark.parametrize("numbers", [1, 300, 10**9])
@pytest.mark.parametrize("layer", ["plain", "grouped", "depthwise", "transposed"])
def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch, layer: str, numbers: int) -> None:
    monkeypatch.setattr("issgd_cli.scores.rules.slices.MOST_NUMBERS_CPU", numbers)
    make, shape = LAYERS[layer]
    check(make(), normal(*shape))


def test_options_that_were_set_later_count() -> None:
    layer = nn.Conv2d(3, 4, 3)
    layer.padding, layer.stride, layer.dilation = (2, 1), 2, (1, 2)  # type: ignore[assignment]
    check(layer, normal(3, 3, 6, 7))
    layer.padding = 1  # type: ignore[assignment]
    check(layer, normal(3, 3, 6, 7))


def test_an_output_size_is_what_the_outputs_gradient_has() -> None:
    layer, inputs = nn.ConvTranspose2d(2, 3, 3, stride=2).double(), normal(3, 2, 4, 4).double()
    for size in ([9, 9], [10, 10]):
        deltas = normal(3, 3, *size).double()
        squares = []
        for number in range(3):
            output = layer(inputs[number : number + 1], output_size=size)
            gradients = torch.autograd.grad(output, list(layer.parameters()), deltas[number : number + 1])
            squares.append(sum(gradient.square().sum() for gradient in gradients))
        torch.testing.assert_close(squared_norms(layer, inputs, deltas), torch.stack([*map(torch.as_tensor, squares)]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layer", ["plain", "depthwise", "a picture", "transposed"])
def test_memory_layouts_change_nothing(layer: str, layout: torch.memory_format) -> None:
    make, shape = LAYERS[layer]
    made, inputs = make(), normal(*shape)
    deltas = deltas_for(made, inputs)
    expected = one_by_one(made, inputs, deltas)
    found = squared_norms(made, inputs.to(memory_format=layout), deltas.to(memory_format=layout))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    expanded = deltas[:1, :, :1, :1].expand(deltas.shape)  # as the gradient of a sum or a mean is
    expected = one_by_one(made, inputs, expanded)
    torch.testing.assert_close(squared_norms(made, inputs, expanded).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("layer", [nn.Conv1d(2, 3, 1), nn.ConvTranspose1d(2, 3, 1)])
def test_an_image_without_an_axis_of_examples_is_refused(layer: nn.Module) -> None:
    with pytest.raises(LayerError, match=r"shape \(2, 5\).* needs 3 axes, the first"):
        squared_norms(layer, torch.ones(2, 5), torch.ones(3, 5))
