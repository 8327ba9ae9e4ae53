"""A small convolutional network: conv - GroupNorm - ReLU - pool, a few times, then a linear layer."""

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from issgd_cli.config.values import Section, Widths
from issgd_cli.networks import Sizes, initial
from issgd_cli.networks.layers import convolution, image_of, normalisation

if TYPE_CHECKING:
    from issgd_cli.config.config import Config


class Settings(Section):
    """The section [cnn]."""

    widths: Widths = (64, 128, 256)  # channels of each stage, each of which halves height and width


class ConvolutionalNetwork(nn.Module):
    """See the module. Ours: plain, so that each example's gradient is easily had."""

    def __init__(self, channels: int, widths: tuple[int, ...], outputs: int) -> None:
        """Of images with so many channels."""
        super().__init__()
        self.stages = nn.Sequential(*(stage(*pair) for pair in pairwise([channels, *widths])))
        self.classifier = nn.Linear(widths[-1], outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Images, shape (B, channels, height, width), to outputs, shape (B, outputs)."""
        maps = self.stages(images)  # (B, widths[-1], height / 2^stages, width / 2^stages)
        outputs: Tensor = self.classifier(maps.mean((2, 3)))
        return outputs


def stage(inputs: int, outputs: int) -> nn.Sequential:
    """From so many channels to so many; a last odd row or column is pooled by itself."""
    pool = nn.MaxPool2d(2, ceil_mode=True)
    return nn.Sequential(convolution(inputs, outputs), normalisation("group", outputs), nn.ReLU(), pool)


class CNN:
    """The network as a configuration describes it."""

    def __init__(self, config: "Config", sizes: Sizes) -> None:
        """Of the section [cnn]."""
        self.settings, self.sizes = config.own(Settings), sizes
        self.channels, _, _ = image_of(sizes, "cnn")

    def build(self) -> nn.Module:
        return ConvolutionalNetwork(self.channels, self.settings.widths, self.sizes.outputs)

    def initialise(self, model: nn.Module, seed: int) -> None:
        initial.initialise(model, seed)
