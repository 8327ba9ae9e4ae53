"""The networks on which scoring is timed: an MLP, a residual network, a vision transformer, texts by two kinds."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tests.benchmarks import stage
from tests.benchmarks.scale import Scale

CLASSES, TOKENS, CHANNELS, SIDE = 10, 10_000, 3, 32


class Subject(NamedTuple):
    """A network, and a minibatch of no meaning.

    Attributes:
        name: For people.
        model: Initialised.
        inputs: Shape (B, ...).
        labels: Shape (B,).
        most: Times a plain pass that scoring may take at most.
        beats: Whether it is to be faster than every peer, too.
    """

    name: str
    model: nn.Module
    inputs: Tensor
    labels: Tensor
    most: float
    beats: bool = True

    @property
    def size(self) -> str:
        """Of the minibatch."""
        return f"batch {len(self.labels)}"


class Residual(nn.Module):
    """Two convolutions, each normalised by groups, and a way around them."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *normed(channels, outputs, 3, stride), nn.ReLU(inplace=False), *normed(outputs, outputs, 3, 1)
        )
        same = channels == outputs and stride == 1
        self.around = nn.Identity() if same else nn.Sequential(*normed(channels, outputs, 1, stride))
        self.last = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, outputs, side / stride, side / stride)."""
        return self.last(self.inner(images) + self.around(images))  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, blocks normalised first."""

    def __init__(self, width: int, blocks: int, heads: int = 3, patch: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(CHANNELS, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (SIDE // patch) ** 2, width))
        self.blocks = transformer(width, blocks, heads)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        rows = self.patches(images).flatten(2).mT
        rows = torch.cat([self.token.expand(len(rows), -1, -1), rows], 1) + self.positions
        return self.head(self.norm(self.blocks(rows)[:, 0]))  # type: ignore[no-any-return]


class TextTransformer(nn.Module):
    """Embedded tokens, learned positions, blocks normalised first, the mean."""

    def __init__(self, width: int, blocks: int, length: int, heads: int = 4) -> None:
        super().__init__()
        self.table = nn.Embedding(TOKENS, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, length, width))
        self.blocks = transformer(width, blocks, heads)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        rows = self.table(tokens) + self.positions
        return self.head(self.norm(self.blocks(rows).mean(1)))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """Embedded tokens, an LSTM, the mean of its outputs."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(TOKENS, width), nn.LSTM(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.lstm(self.table(tokens))[0].mean(1))  # type: ignore[no-any-return]


def normed(channels: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """A convolution and its normalisation."""
    return nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, bias=False), nn.GroupNorm(8, outputs)


def residual_network(width: int) -> nn.Sequential:
    """Of three blocks, 7 convolutions and 2 around them."""
    blocks = (Residual(width, width, 1), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2))
    first = (*normed(CHANNELS, width, 3, 1), nn.ReLU())
    return nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, CLASSES))


def transformer(width: int, blocks: int, heads: int) -> nn.Sequential:
    """torch's own blocks, without dropout."""
    options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
    return nn.Sequential(
        *(nn.TransformerEncoderLayer(width, heads, 4 * width, **options) for _ in range(blocks))  # type: ignore[arg-type]
    )


def names(scale: Scale) -> list[str]:
    """Of all subjects."""
    return [*(f"MLP, {size}" for size in scale.batches), "ResNet", "ViT", "transformer of texts", "LSTM"]


def subject(scale: Scale, name: str) -> Subject:
    """The same each time."""
    small = scale.shrink
    size, length, steps = 64 // small, 128 // small, 100 // small
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        if name.startswith("MLP"):
            inputs, labels = stage.minibatch(scale, int(name.split()[1]))
            return Subject("MLP", stage.network(scale), inputs, labels, 0.66, beats=False)
        texts, labels = torch.randint(TOKENS, (size // 2, length)), torch.randint(CLASSES, (size,))
        images = torch.randn(size, CHANNELS, SIDE, SIDE)
        if name == "ResNet":
            return Subject(name, residual_network(32 // small), images, labels, 1.3)
        if name == "ViT":
            return Subject(name, VisionTransformer(192 // small, max(1, 6 // small)), images, labels, 1.0)
        if name == "LSTM":
            return Subject(name, Recurrent(128 // small, 256 // small), texts[:, :steps], labels[: size // 2], 1.0)
        model = TextTransformer(256 // small, max(1, 4 // small), length)
        return Subject(name, model, texts, labels[: size // 2], 1.0)
