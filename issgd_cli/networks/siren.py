"""A SIREN: linear layers with sines between them, of coordinates in [-1, 1]; it learns a picture as a function.

Source: Sitzmann et al. 2020: sin(w0 (W x + b)), and in section 3.2 and supplement 1 how its weights begin. Biases, of
which it says nothing, begin as torch's linear layers'.
"""

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from issgd_cli.config.values import Layers, Rate, Section, Width
from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes, initial
from issgd_cli.randomness import generator

if TYPE_CHECKING:
    from issgd_cli.config.config import Config


class Settings(Section):
    """The section [siren]. Width and w0 are Sitzmann et al.'s; 5 layers: Salaun et al. 2024."""

    width: Width = 256
    layers: Layers = 5  # linear ones, the last without a sine
    w0: Rate = 30.0  # what stands before each sine's argument


class SineNetwork(nn.Module):
    """See the module."""

    def __init__(self, features: int, settings: Settings, outputs: int) -> None:
        """Of so many coordinates."""
        super().__init__()
        widths = [features, *[settings.width] * (settings.layers - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.w0 = settings.w0

    def forward(self, inputs: Tensor) -> Tensor:
        """Coordinates, shape (B, ...), to outputs, shape (B, outputs)."""
        *sines, last = self.layers
        values = inputs.flatten(1)
        for layer in sines:
            values = torch.sin(self.w0 * layer(values))  # (B, width)
        outputs: Tensor = last(values)
        return outputs


class Siren:
    """The network as a configuration describes it."""

    def __init__(self, config: "Config", sizes: Sizes) -> None:
        """Of the section [siren].

        Raises:
            ConfigError: The examples are texts.
        """
        self.settings, self.sizes = config.own(Settings), sizes
        if sizes.tokens:
            raise ConfigError(f"model.network = 'siren' is of numbers; the examples are {sizes.described}. Use 'text'.")

    def build(self) -> nn.Module:
        return SineNetwork(math.prod(self.sizes.shape), self.settings, self.sizes.outputs)

    def initialise(self, model: nn.Module, seed: int) -> None:
        """Weights are uniform: the first layer's within +-1 / n, the others' within +-sqrt(6 / n) / w0."""
        initial.initialise(model, seed)
        weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)]
        for number, weight in enumerate(weights):
            fan_in = weight.shape[1]
            bound = math.sqrt(6 / fan_in) / self.settings.w0 if number else 1 / fan_in
            draws = generator(seed, "initial_weights", 2 * number).uniform(-bound, bound, tuple(weight.shape))
            with torch.no_grad():
                weight.copy_(torch.from_numpy(draws))
