"""Convolutions and transposed ones: the weights are shared along all positions of the output.

A transposed convolution is a convolution with its input and output exchanged, and so is its weights' gradient.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional, grad

from issgd_cli.scores.rules.linear import bias_norms2, gram_is_cheaper, weight_norms2
from issgd_cli.scores.rules.rule import PARAMETERS, require_axes, squared_norms
from issgd_cli.scores.rules.slices import in_slices, numbers_each, wide

for _kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
    PARAMETERS[_kind] = frozenset({"weight", "bias"})

_WEIGHT_GRADIENTS: dict[int, Callable[..., Tensor]] = {
    1: grad.conv1d_weight,
    2: grad.conv2d_weight,
    3: grad.conv3d_weight,
}


class Sliding(NamedTuple):
    """How weights of shape (O, C / groups, *kernel) slide over images (B, C, *sizes), to give (B, O, *positions)."""

    kernel: Sequence[int]
    stride: Sequence[int]
    dilation: Sequence[int]
    groups: int
    padding: Sequence[int]  # before and after, from the last axis on: as torch's `pad` wants it
    mode: str  # of `pad`

    @classmethod
    def of(cls, layer: nn.modules.conv._ConvNd) -> "Sliding":
        """As the layer's forward reads its options."""
        kernel = layer.weight.shape[2:]
        # Only the first two are what the layer was given; here or there `padding` may have been set since.
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            padding = layer._reversed_padding_repeated_twice
        else:
            padding = [each for each in reversed(_each(layer.padding, kernel)) for _ in range(2)]
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        return cls(kernel, _each(layer.stride, kernel), _each(layer.dilation, kernel), layer.groups, padding, mode)


@squared_norms.register
def _(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """||sum_t delta_t x_t^T||^2 over the positions t of the output, x_t the window there; ||sum_t delta_t||^2."""
    require_axes(layer, inputs, layer.weight.dim(), layer.weight.dim())
    norms2 = sliding_norms2(Sliding.of(layer), inputs, output_gradients)
    return norms2 if layer.bias is None else norms2 + bias_norms2(output_gradients.flatten(2).mT)


@squared_norms.register
def _(
    layer: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d, inputs: Tensor, output_gradients: Tensor
) -> Tensor:
    """As a convolution's that maps the output to the input."""
    require_axes(layer, inputs, layer.weight.dim(), layer.weight.dim())
    norms2 = sliding_norms2(Sliding.of(layer), output_gradients, inputs)
    return norms2 if layer.bias is None else norms2 + bias_norms2(output_gradients.flatten(2).mT)


def sliding_norms2(sliding: Sliding, images: Tensor, deltas: Tensor) -> Tensor:
    """||dL_n / dweights||^2 of each example, shape (B,), the cheaper way.

    Args:
        sliding: Of the weights over the images.
        images: Shape (B, C, *sizes).
        deltas: Shape (B, O, *positions).
    """
    positions, kernel = math.prod(deltas.shape[2:]), math.prod(sliding.kernel)
    channels, outputs = images.shape[1] // sliding.groups, deltas.shape[1] // sliding.groups
    on_gpu = images.device.type != "cpu"
    if (
        wide(images, deltas) == torch.float32
        and (on_gpu or torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and gradients_are_cheaper(positions, channels, outputs, kernel, on_gpu)
    ):
        return by_gradients(sliding, images, deltas)
    return by_windows(sliding, images, deltas)


def gradients_are_cheaper(positions: int, channels: int, outputs: int, kernel: int, on_gpu: bool = False) -> bool:
    """Whether `by_gradients` is faster than `by_windows`, by a group's sizes, in float32.

    Timed by hand on an H100 it was 2.5 to 6 times as fast where each channel is a group of its own. At 23 of 28 other
    shapes it was slower, up to 7.5 times; at the rest windows took at most 1.4 times as long.

    On a CPU oneDNN is good at many channels and, one by one, at kernels up to 3 x 3; else it may take 10 times as long.
    At 140 shapes this choice took 5% longer than the best, at most 2.4 times as long; windows alone 17%, 5.5 times.
    """
    if gram_is_cheaper(positions, channels * kernel, outputs):
        return False
    if channels == outputs == 1:
        return on_gpu or kernel <= 9
    return not on_gpu and channels >= 8 and kernel > 1 and positions >= 256


def by_windows(sliding: Sliding, images: Tensor, deltas: Tensor) -> Tensor:
    """As a fully-connected layer on (B groups, T, d): its inputs are the windows, a copy of them k^2 times as large."""
    positions, numbers = math.prod(deltas.shape[2:]), images.shape[1] * math.prod(sliding.kernel)

    def norms2(images: Tensor, deltas: Tensor) -> Tensor:
        padded = _padded(sliding, images, deltas)
        examples, channels, *axes = padded.stride()
        within = [axis * each for axis, each in zip(axes, sliding.dilation, strict=True)]
        between = [axis * each for axis, each in zip(axes, sliding.stride, strict=True)]
        windows = padded.as_strided(
            (*padded.shape[:2], *sliding.kernel, *deltas.shape[2:]), (examples, channels, *within, *between)
        )
        batch = len(images) * sliding.groups
        of_groups = weight_norms2(windows.reshape(batch, -1, positions).mT, deltas.reshape(batch, -1, positions).mT)
        return of_groups.view(len(images), sliding.groups).sum(1)

    return in_slices(norms2, images, deltas, numbers * positions)


def by_gradients(sliding: Sliding, images: Tensor, deltas: Tensor) -> Tensor:
    """By one convolution whose groups are all groups of all examples: its weights' gradient is everyone's own."""
    channels, outputs = images.shape[1], deltas.shape[1]
    own = channels // sliding.groups, *sliding.kernel

    def norms2(images: Tensor, deltas: Tensor) -> Tensor:
        examples, padded = len(images), _padded(sliding, images, deltas)
        gradients = _WEIGHT_GRADIENTS[len(sliding.kernel)](
            padded.reshape(1, examples * channels, *padded.shape[2:]),
            (examples * outputs, *own),
            deltas.reshape(1, examples * outputs, *deltas.shape[2:]),
            sliding.stride,
            0,
            sliding.dilation,
            examples * sliding.groups,
        )
        return gradients.view(examples, -1).square_().sum(1)

    return in_slices(norms2, images, deltas, max(outputs * math.prod(own), numbers_each(images), numbers_each(deltas)))


def _padded(sliding: Sliding, images: Tensor, deltas: Tensor) -> Tensor:
    """The images as the weights meet them, without a border that a stride leaves behind the last position."""
    if any(sliding.padding):
        images = functional.pad(images, sliding.padding, sliding.mode)
    options = zip(deltas.shape[2:], sliding.stride, sliding.dilation, sliding.kernel, strict=True)
    for axis, (positions, stride, dilation, kernel) in enumerate(options, start=2):
        images = images.narrow(axis, 0, (positions - 1) * stride + dilation * (kernel - 1) + 1)
    return images


def _each(option: int | Sequence[int], kernel: Sequence[int]) -> Sequence[int]:
    """An option for each axis of the kernel."""
    return [option] * len(kernel) if isinstance(option, int) else option
