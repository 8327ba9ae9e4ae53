"""Where a layer's norms can be had in two ways: whether the rules' cost model takes the faster one."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from issgd_cli.scores.rules import convolution, linear
from tests.benchmarks.report import Row
from tests.benchmarks.scale import Scale
from tests.benchmarks.timing import Quartiles, interleaved

LINEAR, CONVOLUTION = "choosing: Gram or product", "choosing: windows or gradients"
RIGHT, MEAN, WORST = "shapes where the choice is right", "geometric mean of all choices", "the worst choice"
CLOSE = 1.05  # times the other way: as good as it
MOST, MOST_ONCE = 1.1, 1.5  # times the better way: on average, and of any one shape
BATCH = 16

# Positions, features, outputs: of transformers, recurrent layers and the windows of convolutions.
LINEARS = (
    *((positions, *each) for positions in (17, 65, 128, 256, 1024) for each in ((64, 64), (192, 576), (768, 192))),
    *((positions, *each) for positions in (65, 128, 256) for each in ((256, 768), (256, 1024), (1024, 256))),
    *((100, 128, 1024), (100, 256, 1024), (1024, 27, 32), (1024, 288, 32), (256, 576, 64), (64, 1152, 128)),
    *((16, 2304, 256), (512, 512, 512)),
)


class Layer(NamedTuple):
    """A convolution, and the side of its square (or otherwise even) images."""

    channels: int
    outputs: int
    side: int
    kernel: int
    stride: int = 1
    groups: int = 1
    axes: int = 2

    @property
    def shape(self) -> str:
        """For people."""
        options = {"stride": self.stride, "groups": self.groups}
        more = "".join(f", {name} {value}" for name, value in options.items() if value > 1)
        return f"{self.channels} -> {self.outputs}, side {self.side}, {self.axes}d, kernel {self.kernel}{more}"


CONVOLUTIONS = (
    *(Layer(3, 32, 32, 3), Layer(3, 64, 32, 3), Layer(3, 192, 32, 4, 4), Layer(3, 64, 64, 7, 2)),
    *(Layer(4, 8, 32, 5), Layer(8, 8, 32, 3), Layer(16, 16, 32, 3), Layer(16, 32, 32, 5), Layer(32, 32, 32, 3)),
    *(Layer(64, 64, 32, 3), Layer(32, 64, 32, 3, 2), Layer(64, 64, 16, 3), Layer(128, 128, 16, 3)),
    *(Layer(128, 128, 8, 3), Layer(256, 256, 8, 3), Layer(256, 256, 4, 3), Layer(512, 512, 4, 3)),
    *(Layer(32, 64, 32, 1), Layer(64, 128, 16, 1, 2), Layer(256, 64, 16, 1), Layer(64, 64, 32, 3, groups=4)),
    *(Layer(64, 64, 32, 3, groups=64), Layer(128, 128, 16, 3, groups=128), Layer(64, 64, 32, 7, groups=64)),
    *(Layer(1, 16, 1024, 9, axes=1), Layer(16, 32, 256, 5, axes=1), Layer(64, 64, 128, 3, axes=1)),
    *(Layer(32, 32, 1024, 3, axes=1), Layer(3, 16, 16, 3, axes=3), Layer(8, 16, 8, 3, axes=3)),
    Layer(16, 32, 8, 3, axes=3),
)
KINDS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Choice(NamedTuple):
    """What the model chose for a shape, and what it did not.

    Attributes:
        shape: For people.
        chosen, other: The ways' names.
        ratio: Of the chosen way's seconds to the other's.
        seconds: Median, of the chosen.
    """

    shape: str
    chosen: str
    other: str
    ratio: Quartiles
    seconds: float

    @property
    def loss(self) -> float:
        """How many times the better way's seconds it took."""
        return max(1.0, self.ratio.median)


def rows(scale: Scale) -> list[Row]:
    """Of Linear with positions, then of convolutions: each shape, and how often and how far the model errs."""
    of_linear = [_of_linear(scale, *sizes) for sizes in LINEARS[:: scale.shrink]]
    of_convolution = [_of_convolution(scale, layer) for layer in CONVOLUTIONS[:: scale.shrink]]
    return [*reported(LINEAR, of_linear), *reported(CONVOLUTION, of_convolution)]


def _of_linear(scale: Scale, positions: int, features: int, outputs: int) -> Choice:
    random = torch.Generator().manual_seed(0)
    shapes = [(BATCH // scale.shrink, positions, size) for size in (features, outputs)]
    inputs, deltas = (torch.randn(shape, generator=random) for shape in shapes)
    ways = {"Gram": linear.by_gram, "product": linear.by_product}
    first = "Gram" if linear.gram_is_cheaper(positions, features, outputs) else "product"
    shape = f"{features} -> {outputs}, {positions} positions, batch {len(inputs)}"
    return _timed(scale, shape, first, {name: partial(way, inputs, deltas) for name, way in ways.items()})


def _of_convolution(scale: Scale, layer: Layer) -> Choice:
    channels, outputs, side, kernel, stride, groups, axes = layer
    made = KINDS[axes](channels, outputs, kernel, stride, 0 if stride == kernel else kernel // 2, groups=groups)
    random = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH // scale.shrink, channels, *[side] * axes, generator=random)
    with torch.no_grad():
        deltas = torch.randn(made(images).shape, generator=random)
    ways = {"windows": convolution.by_windows, "gradients": convolution.by_gradients}
    sizes = prod(deltas.shape[2:]), channels // groups, outputs // groups, kernel**axes
    first = "gradients" if convolution.gradients_are_cheaper(*sizes) else "windows"
    sliding = convolution.Sliding.of(made)
    calls = {name: partial(way, sliding, images, deltas) for name, way in ways.items()}
    return _timed(scale, f"{layer.shape}, batch {len(images)}", first, calls)


def _timed(scale: Scale, shape: str, chosen: str, ways: Mapping[str, Callable[[], Tensor]]) -> Choice:
    (other,) = set(ways) - {chosen}
    with torch.no_grad():
        timings = interleaved(ways, scale.repeats)
    return Choice(shape, chosen, other, timings.ratios(chosen, other), timings.seconds(chosen).median)


def reported(path: str, choices: list[Choice]) -> Iterator[Row]:
    """Each shape's row, and those that sum them up."""
    for each in choices:
        unit = f"x the {each.other}" + ("" if each.loss <= CLOSE else ", wrong")
        yield Row(path, each.chosen, each.shape, each.ratio, unit, each.seconds)
    right = np.mean([each.loss <= CLOSE for each in choices])
    mean = np.exp(np.mean(np.log([each.loss for each in choices])))
    worst = max(choices, key=lambda each: each.loss)
    size, unit = f"{len(choices)} shapes", "x the better way"
    yield Row(path, RIGHT, size, Quartiles.exactly(float(right)), "of 1", note=f"within {CLOSE} times the other way")
    yield Row(path, MEAN, size, Quartiles.exactly(float(mean)), unit, bar=MOST)
    yield Row(path, WORST, worst.shape, Quartiles.exactly(worst.loss), unit, bar=MOST_ONCE)
