"""The one function that every layer type gives its rule to."""

from functools import singledispatch

import torch
from torch import Tensor, nn

from issgd_cli.errors import LayerError

# Of each layer type that has a rule, the names of its parameters.
PARAMETERS: dict[type[nn.Module], frozenset[str]] = {}


@singledispatch
def squared_norms(layer: nn.Module, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """Each example's squared gradient norm over one layer's own parameters.

    Args:
        layer: The layer; its type chooses the rule.
        inputs: What the layer was given, shape (B, ...).
        output_gradients: Gradient of each example's own (not averaged) loss with respect to the layer's outputs.

    Returns:
        Shape (B,). Squares, because only squares add across layers.

    Raises:
        LayerError: No rule for this type of layer.
    """
    raise LayerError(
        f"No rule for the gradient norms of a {type(layer).__name__} layer. Layers with parameters that have one: "
        f"{', '.join(supported_layers())}. A new rule is one file in issgd_cli/scores/rules/."
    )


def supported_layers() -> list[str]:
    """Names of the layer types that have a rule."""
    return sorted(kind.__name__ for kind in PARAMETERS)


def departure(layer: nn.Module) -> str | None:
    """How this layer's computation may be another than its type's, for which the rule holds; None: not at all.

    Raises:
        LayerError: Neither its type has a rule nor one that it derives from.
    """
    kind = next((kind for kind in type(layer).__mro__ if kind in PARAMETERS), None)
    if kind is None:
        squared_norms(layer, torch.empty(0), torch.empty(0))  # raises, naming the layers that have a rule
        return None
    own = type(layer)
    if own.forward is not kind.forward or own.__call__ is not kind.__call__ or "forward" in vars(layer):
        return f"has a forward of its own, not {kind.__name__}'s"
    if set(layer._parameters) != PARAMETERS[kind]:
        found = ", ".join(layer._parameters) or "none"
        return f"is pruned or reparametrised: its own parameters are {found}, a {kind.__name__}'s {_listed(kind)}"
    return None


def _listed(kind: type[nn.Module]) -> str:
    return " and ".join(sorted(PARAMETERS[kind], reverse=True))
