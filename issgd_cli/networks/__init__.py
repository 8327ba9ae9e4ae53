"""Networks and their initialisation. A new one is one file, and one line in registries.py."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """What a network stands between.

    Attributes:
        shape: Of one example: (channels, height, width) of an image, (length,) of a text.
        outputs: How many numbers it gives for each.
        tokens: Where examples are texts, how many tokens there are, of which 0 is the padding; 0: they are none.
    """

    shape: tuple[int, ...]
    outputs: int
    tokens: int = 0

    @property
    def described(self) -> str:
        """What examples are, for people."""
        return f"{'texts' if self.tokens else 'numbers'} of shape {self.shape}"


class Network(Protocol):
    """How a network is made, by a configuration and its sizes, which it may refuse by a ConfigError."""

    def build(self) -> "nn.Module":
        """A new one: inputs, shape (B, *shape), to outputs, shape (B, outputs); it need not be initialised.

        Names, shapes and order of its parameters and buffers are the same whenever it is built of the same settings.
        """

    def initialise(self, model: "nn.Module", seed: int) -> None:
        """Draws the parameters from the run's seed alone."""


@runtime_checkable
class LinearAtLast(Protocol):
    """A network that tells what its last layer, which is linear, is given: of few outputs, and many weights there."""

    def last_inputs(self, inputs: "Tensor") -> "Tensor":
        """Of these inputs, shape (B, F)."""
