"""What networks of images are made of."""

from typing import Literal

from torch import nn

from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes

Norm = Literal["group", "batch"]
GROUP_CHANNELS = 16  # Wu and He 2018, table 2: as good as 32 groups, and no group is of one number alone


def image_of(sizes: Sizes, network: str) -> tuple[int, int, int]:
    """Channels, height and width of the examples.

    Raises:
        ConfigError: They are no images.
    """
    if sizes.tokens or len(sizes.shape) != 3:
        raise ConfigError(
            f"model.network = '{network}' is for images, (channels, height, width); the examples are "
            f"{sizes.described}. Use 'mlp', which takes any numbers, or 'text' for texts."
        )
    channels, height, width = sizes.shape
    return channels, height, width


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """As large as its input where the stride is 1; without a bias, since a normalisation follows."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def normalisation(kind: Norm, width: int) -> nn.Module:
    """Of so many channels: each example by itself, in groups of 16 channels, or in one group where 16 does not divide
    them; or over the minibatch, where no example has a gradient of its own.

    Source: Wu and He 2018; Ioffe and Szegedy 2015.
    """
    groups = 1 if width % GROUP_CHANNELS else width // GROUP_CHANNELS
    return nn.BatchNorm2d(width) if kind == "batch" else nn.GroupNorm(groups, width)


def batch_normalised(model: nn.Module) -> str | None:
    """The first layer that normalises over the minibatch in training mode; None: each example stands for itself."""
    layers = (name for name, layer in model.named_modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))
    return next(layers, None)
