"""The one function that every layer type gives its rule to."""

from functools import singledispatch

from torch import Tensor, nn

from issgd_cli.errors import LayerError


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
        f"{', '.join(supported_layers())}. A new rule is one file in issgd_cli/gradient_norms/."
    )


def supported_layers() -> list[str]:
    """Names of the layer types that have a rule."""
    return sorted(kind.__name__ for kind in squared_norms.registry if kind is not object)


def has_rule(layer: nn.Module) -> bool:
    """Whether this layer's type, or one that it derives from, has a rule."""
    return squared_norms.dispatch(type(layer)) is not squared_norms.registry[object]
