"""Networks and their initialisation. A new one is one file, and one line here."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from issgd_cli.registry import Registry

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


NETWORKS: Registry[Callable[[Any], Network]] = Registry("network", {"mlp": "issgd_cli.networks.mlp:MLP"})
