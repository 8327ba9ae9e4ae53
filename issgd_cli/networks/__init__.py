"""Networks and their initialisation. A new one is one file, and one line in registries.py."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Sizes:
    """What a network stands between.

    Attributes:
        shape: Of one example: (channels, height, width) of an image, (length,) of a text.
        outputs: How many numbers it gives for each.
        vocabulary: Where examples are texts, how many tokens there are, from 0, the padding, on; else None.
    """

    shape: tuple[int, ...]
    outputs: int
    vocabulary: int | None = None


class Network(Protocol):
    """How a network is made, by a configuration and its sizes, which it may refuse by a ConfigError."""

    def build(self) -> "nn.Module":
        """A new one: inputs, shape (B, *shape), to outputs, shape (B, outputs); it need not be initialised.

        Names, shapes and order of its parameters and buffers are the same whenever it is built of the same settings.
        """

    def initialise(self, model: "nn.Module", seed: int) -> None:
        """Draws the parameters from the run's seed alone."""
