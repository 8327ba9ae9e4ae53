"""What transformers are made of."""

import math

import torch
from torch import Tensor, nn

from issgd_cli.errors import ConfigError


class Block(nn.Module):
    """A transformer's encoder block, normalised before each half.

    Its attention is spelt out: torch's fused kernels can be differentiated only once, and its own module hides the
    projections' weights from their layers.

    Source: Vaswani et al. 2017; pre-normalisation as Dosovitskiy et al. 2021.
    """

    def __init__(self, width: int, heads: int) -> None:
        """Of tokens of this width; the hidden layer is four times as wide."""
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.widening = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.narrowing = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """Tokens, shape (B, T, width), to such; `padding`: those that nobody looks at, boolean, shape (B, T)."""
        tokens = tokens + self.attention(self.norm_1(tokens), padding)
        narrowed: Tensor = self.narrowing(self.gelu(self.widening(self.norm_2(tokens))))
        return tokens + narrowed

    def attention(self, tokens: Tensor, padding: Tensor | None) -> Tensor:
        """Softmax(Q K^T / sqrt(d)) V of each head, and what is made of the heads together."""
        examples, length, width = tokens.shape
        parts = self.to_qkv(tokens).view(examples, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # (B, heads, T, d) each
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)  # (B, heads, T, T)
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None, :], -math.inf)
        heads = scores.softmax(-1) @ v  # (B, heads, T, d)
        projected: Tensor = self.projection(heads.transpose(1, 2).reshape(examples, length, width))
        return projected


class Positions(nn.Module):
    """Learned: a vector for each place, added to whatever stands there."""

    def __init__(self, length: int, width: int) -> None:
        """Of sequences of this length, each token of this width."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(length, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Shape (B, T, width)."""
        return tokens + self.weight


class ClassToken(nn.Module):
    """Learned: a token before all others."""

    def __init__(self, width: int) -> None:
        """Of this width."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Shape (B, T, width) to (B, 1 + T, width)."""
        return torch.cat([self.weight.expand(len(tokens), 1, -1), tokens], 1)


def refuse_heads(width: int, heads: int, section: str) -> None:
    """Sees to it that the heads share the width out evenly.

    Raises:
        ConfigError: They don't.
    """
    if width % heads:
        raise ConfigError(f"{section}.width, {width}, must be a multiple of {section}.heads, {heads}.")
