"""A small transformer for texts: the mean over its real tokens, after a few encoder blocks.

Source: Vaswani et al. 2017, its encoder; learned positions as Devlin et al. 2019; sizes ours, for sentences.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from issgd_cli.config.values import Layers, Positive, Section, Width
from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes, initial
from issgd_cli.networks.transformer import Block, Positions, refuse_heads

if TYPE_CHECKING:
    from issgd_cli.config.config import Config

PADDING = 0  # the token that fills a text up


class Settings(Section):
    """The section [text]. The vocabulary and the longest text are the data's."""

    width: Width = 128
    depth: Layers = 2
    heads: Positive = 4


class TextTransformer(nn.Module):
    """See the module."""

    def __init__(self, tokens: int, length: int, settings: Settings, outputs: int) -> None:
        """Of texts of at most this length."""
        super().__init__()
        width = settings.width
        self.embedding = nn.Embedding(tokens, width, padding_idx=PADDING)
        self.positions = Positions(length, width)
        self.blocks = nn.ModuleList(Block(width, settings.heads) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, outputs)

    def forward(self, texts: Tensor) -> Tensor:
        """Token numbers, int64, shape (B, T), 0 where a text is over, to outputs, shape (B, outputs)."""
        padding = texts == PADDING  # (B, T)
        # An empty text is one of padding alone: a softmax over nothing would be NaN.
        padding = padding & ~padding.all(1, keepdim=True)
        tokens = self.positions(self.embedding(texts))  # (B, T, width)
        for block in self.blocks:
            tokens = block(tokens, padding)
        real = (~padding)[:, :, None].to(tokens)  # (B, T, 1)
        outputs: Tensor = self.classifier((self.norm(tokens) * real).sum(1) / real.sum(1))
        return outputs


class Text:
    """The network as a configuration describes it."""

    def __init__(self, config: "Config", sizes: Sizes) -> None:
        """Of the section [text].

        Raises:
            ConfigError: The examples are no texts, or the heads do not share the width.
        """
        self.settings, self.sizes = config.own(Settings), sizes
        if not sizes.tokens or len(sizes.shape) != 1:
            raise ConfigError(
                f"model.network = 'text' is for texts, rows of tokens; the examples are {sizes.described}. Use 'mlp', "
                "or 'cnn' for images."
            )
        refuse_heads(self.settings.width, self.settings.heads, "text")

    def build(self) -> nn.Module:
        return TextTransformer(self.sizes.tokens, self.sizes.shape[0], self.settings, self.sizes.outputs)

    def initialise(self, model: nn.Module, seed: int) -> None:
        initial.initialise(model, seed)
