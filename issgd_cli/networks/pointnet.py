"""PointNet: the same layers at every point of a cloud, the largest of what they find, and layers on that.

Source: Qi et al. 2017, the classification network of figure 2. GroupNorm unless told otherwise, since the gradient of
one example exists there; no dropout, since nothing is drawn but from the run's seed. What stands before the identity in
a transform begins as any other layer, not at zero, where layers before it would stand still at first; its penalty,
.001 |I - A A^T|^2, which the paper adds to the loss, is left out: a loss is of outputs here.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from issgd_cli.config.values import Section, Width
from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes, initial
from issgd_cli.networks.layers import Norm, convolution, normalisation

if TYPE_CHECKING:
    from issgd_cli.config.config import Config

Transform = Literal["input", "features"]


class Settings(Section):
    """The section [pointnet]. Ours is a quarter as wide as PointNet, whose width is 64, and without its transforms."""

    width: Width = 16  # of the first layers; the others have 2, 4, 8 and 16 times as much
    transforms: tuple[Transform, ...] = ()  # each a small network that gives a matrix, by which what it saw is turned
    norm: Norm = "group"  # "batch": as published, of the minibatch, in which no example has a gradient of its own


def shared(widths: list[int], norm: Norm) -> nn.Sequential:
    """Layers of these widths at each point: (B, widths[0], N, 1) to (B, widths[-1], N, 1)."""
    layers = [
        layer
        for inputs, outputs in pairwise(widths)
        for layer in (convolution(inputs, outputs, 1), normalisation(norm, outputs), nn.ReLU())
    ]
    return nn.Sequential(*layers)


def largest(points: Tensor) -> Tensor:
    """Of each channel over the points: (B, C, N, 1) to (B, C, 1, 1)."""
    return points.amax(2, keepdim=True)


class Turn(nn.Module):
    """A spatial transformer: of the points as a whole a matrix, by which each of them is multiplied."""

    def __init__(self, channels: int, width: int, norm: Norm) -> None:
        """Of points with so many channels."""
        super().__init__()
        self.points = shared([channels, width, 2 * width, 16 * width], norm)
        self.cloud = shared([16 * width, 8 * width, 4 * width], norm)
        self.matrix = nn.Linear(4 * width, channels * channels)

    def forward(self, points: Tensor) -> Tensor:
        """Shape (B, channels, N, 1) to the same."""
        found = self.matrix(self.cloud(largest(self.points(points))).flatten(1))  # (B, channels^2)
        channels = points.shape[1]
        matrices = found.view(-1, channels, channels) + torch.eye(channels, dtype=found.dtype, device=found.device)
        turned: Tensor = matrices @ points.squeeze(3)
        return turned.unsqueeze(3)


class PointNetwork(nn.Module):
    """See the module."""

    def __init__(self, channels: int, settings: Settings, outputs: int) -> None:
        """Of points with so many coordinates."""
        super().__init__()
        width, norm = settings.width, settings.norm
        turned = {"input": channels, "features": width}
        turns: dict[str, nn.Module] = {
            name: Turn(size, width, norm) if name in settings.transforms else nn.Sequential()
            for name, size in turned.items()
        }
        self.input_turn = turns["input"]
        self.near = shared([channels, width, width], norm)
        self.feature_turn = turns["features"]
        self.far = shared([width, width, 2 * width, 16 * width], norm)
        self.cloud = shared([16 * width, 8 * width, 4 * width], norm)
        self.classifier = nn.Linear(4 * width, outputs)

    def forward(self, clouds: Tensor) -> Tensor:
        """Clouds of points, shape (B, N, channels), to outputs, shape (B, outputs)."""
        points = clouds.transpose(1, 2).unsqueeze(3)  # (B, channels, N, 1)
        points = self.feature_turn(self.near(self.input_turn(points)))  # (B, width, N, 1)
        cloud = self.cloud(largest(self.far(points)))  # (B, 4 width, 1, 1)
        outputs: Tensor = self.classifier(cloud.flatten(1))
        return outputs


class PointNet:
    """The network as a configuration describes it."""

    def __init__(self, config: "Config", sizes: Sizes) -> None:
        """Of the section [pointnet].

        Raises:
            ConfigError: The examples are no clouds of points.
        """
        self.settings, self.sizes = config.own(Settings), sizes
        if sizes.tokens or len(sizes.shape) != 2:
            raise ConfigError(
                f"model.network = 'pointnet' is for clouds of points, (points, coordinates); the examples are "
                f"{sizes.described}. Use 'cnn' for images, 'mlp' for other numbers."
            )

    def build(self) -> nn.Module:
        return PointNetwork(self.sizes.shape[1], self.settings, self.sizes.outputs)

    def initialise(self, model: nn.Module, seed: int) -> None:
        initial.initialise(model, seed)
