"""The paper's model: a multi-layer perceptron with ReLU units and a softmax at its output."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes
from issgd_cli.randomness import generator

if TYPE_CHECKING:
    from issgd_cli.config.config import Config

ORIGINAL_WIDTH = 2048
ORIGINAL_STD = 0.01


class _Flattening(nn.Sequential):
    """Layers that are given each example as one row, whatever its shape. (A layer that did so would rename theirs.)"""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs, (B, classes), of inputs of shape (B, ...)."""
        outputs: torch.Tensor = super().forward(inputs.flatten(1))  # type: ignore[no-untyped-call]
        return outputs


def mlp(features: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """features -> hidden[0] -> ... -> classes, ReLU between, logits at the end; not yet initialised.

    Its inputs are (B, ...), so many features an example in all.
    """
    widths = [features, *hidden, classes]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return _Flattening(*layers[:-1])


@torch.no_grad()
def initialise(model: nn.Module, seed: int, std: float | None = None) -> None:
    """Normal weights of mean 0, biases 0, drawn in float64 from the run's seed alone.

    Args:
        std: The same standard deviation for every layer. None: 0.01 as the original's, but sqrt(2048 / width) times
            that for hidden layers after the first that are narrower than 2048, which keeps the original's forward
            gain: at small width N(0, 0.01^2) stays on the initial plateau for thousands of steps.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(layers):
        scale = std
        if scale is None:
            between = 0 < number < len(layers) - 1
            narrow = min(1.0, layer.in_features / ORIGINAL_WIDTH) if between else 1.0
            scale = ORIGINAL_STD / math.sqrt(narrow)
        draws = generator(seed, "initial_weights", number).standard_normal(tuple(layer.weight.shape))
        layer.weight.copy_(torch.from_numpy(draws * scale))
        if layer.bias is not None:
            layer.bias.zero_()


class MLP:
    """The paper's network as a configuration describes it."""

    def __init__(self, config: "Config", sizes: Sizes) -> None:
        """Of the section [model]; for numbers of any shape.

        Raises:
            ConfigError: The examples are texts.
        """
        if sizes.tokens:
            raise ConfigError(f"model.network = 'mlp' is for numbers; the examples are {sizes.described}. Use 'text'.")
        self.settings, self.sizes = config.model, sizes

    def build(self) -> nn.Module:
        return mlp(math.prod(self.sizes.shape), self.settings.hidden, self.sizes.outputs)

    def initialise(self, model: nn.Module, seed: int) -> None:
        initialise(model, seed, self.settings.initial_weight_std)
