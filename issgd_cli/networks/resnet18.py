"""ResNet-18 for small images: a 3x3 stem of stride 1 without max-pooling, as for CIFAR-10.

Source: He et al. 2016, table 1 with the stem of section 4.2; the shortcuts that change shape are option B's, 1x1
convolutions. GroupNorm unless told otherwise, since the gradient of one example exists there (Wu and He 2018).
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from issgd_cli.config.values import Section, Width
from issgd_cli.networks import Sizes, initial
from issgd_cli.networks.layers import Norm, convolution, image_of, normalisation

if TYPE_CHECKING:
    from issgd_cli.config.config import Config


class Settings(Section):
    """The section [resnet18]."""

    width: Width = 64  # channels of the first stage; the others have twice, four and eight times as many
    norm: Norm = "group"  # "batch": as the paper's, of the minibatch, in which no example has a gradient of its own


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, and a shortcut past both."""

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm) -> None:
        """From so many channels to so many."""
        super().__init__()
        self.conv_1, self.norm_1 = convolution(inputs, width, stride=stride), normalisation(norm, width)
        self.conv_2, self.norm_2 = convolution(width, width), normalisation(norm, width)
        self.relu_1, self.relu_2 = nn.ReLU(), nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(convolution(inputs, width, 1, stride), normalisation(norm, width))

    def forward(self, maps: Tensor) -> Tensor:
        """Shape (B, inputs, h, w) to (B, width, h / stride, w / stride)."""
        inner = self.norm_2(self.conv_2(self.relu_1(self.norm_1(self.conv_1(maps)))))
        outputs: Tensor = self.relu_2(inner + self.shortcut(maps))
        return outputs


class ResidualNetwork(nn.Module):
    """Four stages of two blocks."""

    def __init__(self, channels: int, width: int, outputs: int, norm: Norm) -> None:
        """Of images with so many channels."""
        super().__init__()
        self.stem = nn.Sequential(convolution(channels, width), normalisation(norm, width), nn.ReLU())
        blocks: list[nn.Module] = []
        inputs = width
        for wider, stride in ((1, 1), (2, 2), (4, 2), (8, 2)):
            blocks += [
                BasicBlock(inputs, wider * width, stride, norm),
                BasicBlock(wider * width, wider * width, 1, norm),
            ]
            inputs = wider * width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Images, shape (B, channels, height, width), to outputs, shape (B, outputs)."""
        maps = self.blocks(self.stem(images))  # (B, 8 width, height / 8, width / 8)
        outputs: Tensor = self.classifier(maps.mean((2, 3)))
        return outputs


class ResNet18:
    """The network as a configuration describes it."""

    def __init__(self, config: "Config", sizes: Sizes) -> None:
        """Of the section [resnet18]."""
        self.settings, self.sizes = config.own(Settings), sizes
        self.channels, _, _ = image_of(sizes, "resnet18")

    def build(self) -> nn.Module:
        return ResidualNetwork(self.channels, self.settings.width, self.sizes.outputs, self.settings.norm)

    def initialise(self, model: nn.Module, seed: int) -> None:
        initial.initialise(model, seed)
