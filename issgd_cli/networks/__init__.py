"""Networks and their initialisation. A new one is one file, and one line in registries.py."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn


class Network(Protocol):
    """How a network is made, by its settings."""

    def build(self, shape: tuple[int, ...], outputs: int) -> "nn.Module":
        """For examples of this shape and so many outputs; its parameters need not be initialised.

        They must have the same names, shapes and order whenever it is built of the same settings.
        """

    def initialise(self, model: "nn.Module", seed: int) -> None:
        """Draws the parameters from the run's seed alone."""
