"""The paper's model: a multi-layer perceptron with ReLU units and a softmax at its output."""

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from issgd_cli.randomness import generator

ORIGINAL_WIDTH = 2048
ORIGINAL_STD = 0.01


def mlp(features: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """features -> hidden[0] -> ... -> classes, ReLU between, logits at the end; not yet initialised."""
    widths = [features, *hidden, classes]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


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


def flatten_parameters(model: nn.Module) -> Tensor:
    """Moves the parameters into one contiguous vector, of which each becomes a view; returns the vector.

    So a set of parameters is published, loaded and saved as one copy.
    """
    parameters = list(model.parameters())
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    offset = 0
    for parameter in parameters:
        parameter.data = flat[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()
    return flat


def size(features: int, hidden: Sequence[int], classes: int) -> int:
    """P, how many numbers a flat vector of the parameters holds."""
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise([features, *hidden, classes]))


def fingerprint(features: int, hidden: Sequence[int], classes: int) -> str:
    """Sixteen hex digits of the parameters' names and shapes: what a flat vector of parameters means."""
    with torch.device("meta"):  # shapes without memory
        model = mlp(features, hidden, classes)
    layout = ";".join(f"{name}:{tuple(parameter.shape)}" for name, parameter in model.named_parameters())
    return hashlib.sha256(layout.encode()).hexdigest()[:16]
