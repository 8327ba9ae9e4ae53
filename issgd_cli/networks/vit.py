"""A vision transformer: patches of an image as tokens.

Source: Dosovitskiy et al. 2021; the mean over the patches instead of a class token: Beyer et al. 2022.
"""

from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from issgd_cli.config.values import Layers, Positive, Section, Width
from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes, initial
from issgd_cli.networks.layers import image_of
from issgd_cli.networks.transformer import Block, ClassToken, Positions, refuse_heads

if TYPE_CHECKING:
    from issgd_cli.config.config import Config


class Settings(Section):
    """The section [vit]. Width and heads are DeiT-Ti's, half as deep: for images of 32 x 32 pixels."""

    patch: Positive = 4  # pixels, high and wide
    width: Width = 192
    depth: Layers = 6
    heads: Positive = 3
    pooling: Literal["mean", "token"] = "mean"  # "token": a class token, as Dosovitskiy et al.


class VisionTransformer(nn.Module):
    """See the module."""

    def __init__(self, channels: int, patches: int, settings: Settings, outputs: int) -> None:
        """Of images with so many channels that fall into so many patches."""
        super().__init__()
        width, token = settings.width, settings.pooling == "token"
        self.patches = nn.Conv2d(channels, width, settings.patch, settings.patch)
        self.class_token = ClassToken(width) if token else nn.Sequential()
        self.positions = Positions(patches + token, width)
        self.blocks = nn.Sequential(*(Block(width, settings.heads) for _ in range(settings.depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, outputs)
        self.pooling = settings.pooling

    def forward(self, images: Tensor) -> Tensor:
        """Images, shape (B, channels, height, width), to outputs, shape (B, outputs)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)  # (B, patches, width)
        tokens = self.norm(self.blocks(self.positions(self.class_token(tokens))))
        outputs: Tensor = self.classifier(tokens[:, 0] if self.pooling == "token" else tokens.mean(1))
        return outputs


class ViT:
    """The network as a configuration describes it."""

    def __init__(self, config: "Config", sizes: Sizes) -> None:
        """Of the section [vit].

        Raises:
            ConfigError: The examples are no images, or do not fall into patches; or the heads do not share the width.
        """
        self.settings, self.sizes = config.own(Settings), sizes
        self.channels, height, width = image_of(sizes, "vit")
        side = self.settings.patch
        if height % side or width % side:
            raise ConfigError(f"vit.patch, {side}, must divide the images' height and width, {height} and {width}.")
        self.patches = (height // side) * (width // side)
        refuse_heads(self.settings.width, self.settings.heads, "vit")

    def build(self) -> nn.Module:
        return VisionTransformer(self.channels, self.patches, self.settings, self.sizes.outputs)

    def initialise(self, model: nn.Module, seed: int) -> None:
        initial.initialise(model, seed)
