"""The one function that every layer type gives its rule to, and where a rule does not hold."""

from collections.abc import Callable
from functools import cache, singledispatch
from inspect import getattr_static
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from issgd_cli.errors import LayerError

# Of each layer type that has a rule, the names of its parameters.
PARAMETERS: dict[type[nn.Module], frozenset[str]] = {}

# What the call of a layer runs, of any type that has a rule: a class or an object that brings its own departs from it.
_COMPUTING = frozenset(
    {
        *("__call__", "_wrapped_call_impl", "_call_impl", "_slow_forward", "__getattr__", "__getattribute__"),
        *("forward", "_conv_forward", "_output_padding"),
        *("_check_input_dim", "_get_no_batch_dim", "_handle_no_batch_input", "_apply_instance_norm"),
    }
)


class Apart(NamedTuple):
    """How a type of module is taken apart into pieces that have rules.

    Attributes:
        forward: (module, tap, *args, **kwargs) -> what the module computes, where `tap(output, squares)` is called for
            each piece with what comes out of it, shape (B, ...), and the rule for it, of the loss's gradient there.
        refuses: Why this module is not to be so computed, in words; None: it is.
    """

    forward: Callable[..., Any]
    refuses: Callable[[nn.Module], str | None]


# Of each type that is taken apart.
PIECES: dict[type[nn.Module], Apart] = {}


@singledispatch
def squared_norms(layer: nn.Module, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """Each example's squared gradient norm over one layer's own parameters.

    Args:
        layer: The layer; its type chooses the rule.
        inputs: What the layer was given, shape (B, ...).
        output_gradients: Gradient of each example's own (not averaged) loss with respect to the layer's outputs.

    Returns:
        Shape (B,), in float32 at least. Squares, because only squares add across layers.

    Raises:
        LayerError: No rule for this type of layer, or the inputs have no axis of examples.
    """
    raise LayerError(
        f"No rule for the gradient norms of a {type(layer).__name__} layer. Layers with parameters that have one: "
        f"{', '.join(supported_layers())}. A new rule is one file in issgd_cli/scores/rules/."
    )


@singledispatch
def reservation(layer: nn.Module) -> str | None:
    """How this layer's options take it beyond its type's rule, as `departure` says it; None: they don't."""
    return None


def supported_layers() -> list[str]:
    """Names of the layer types that have a rule."""
    return sorted(kind.__name__ for kind in PARAMETERS)


def objection(layer: nn.Module) -> str | None:
    """Why neither a rule nor pieces give this module's norms, in words; None: they do."""
    if type(layer) in PIECES:
        return "it has a forward of its own" if "forward" in vars(layer) else PIECES[type(layer)].refuses(layer)
    if not any(kind in PARAMETERS for kind in type(layer).__mro__):
        return f"there is no rule for {type(layer).__name__}"
    return departure(layer)


def departure(layer: nn.Module) -> str | None:
    """How this layer's computation may be another than its type's, for which the rule holds; None: not at all.

    Raises:
        LayerError: Neither its type has a rule nor one that it derives from.
    """
    if any(is_lazy(parameter) for parameter in layer.parameters(recurse=False)):
        return "is lazy and has no weights before its first call"
    kind = next((kind for kind in type(layer).__mro__ if kind in PARAMETERS), None)
    if kind is None:
        squared_norms(layer, torch.empty(0), torch.empty(0))  # raises, naming the layers that have a rule
        return None
    brought, own = _brought(type(layer), kind), vars(layer).keys()  # type: ignore[arg-type]  # classes have hashes
    if not (brought.isdisjoint(_COMPUTING) and own.isdisjoint(_COMPUTING)):
        return f"has a forward of its own, not {kind.__name__}'s"
    if set(layer._parameters) != PARAMETERS[kind]:
        found = ", ".join(layer._parameters) or "none"
        return f"is pruned or reparametrised: its own parameters are {found}, a {kind.__name__}'s {_listed(kind)}"
    for name, parameter in layer._parameters.items():
        if name in brought or name in own:
            return f"is reparametrised: its {name} is computed"
        if parameter is None:
            continue
        if parameter.is_complex():
            return f"has a complex {name}"
        if parameter._backward_hooks:
            return f"has a hook on its {name} that may change the gradient"
    return reservation(layer)


def require_axes(layer: nn.Module, inputs: Tensor, least: int, most: int | None = None) -> None:
    """Raises LayerError unless the inputs have so many axes, of which the first is the examples'."""
    if not least <= inputs.dim() <= (inputs.dim() if most is None else most):
        raise LayerError(
            f"A {type(layer).__name__} layer met inputs of shape {tuple(inputs.shape)}. The rule for its norms needs "
            f"{least} axes{'' if most == least else ' at least'}, the first for the examples: give it a minibatch."
        )


@cache  # asked at every minibatch
def _brought(own: type[nn.Module], kind: type[nn.Module]) -> frozenset[str]:
    """What of its computation, and which parameters, a class does not take from this base of its."""
    names = _COMPUTING | PARAMETERS[kind]
    return frozenset(name for name in names if getattr_static(own, name, None) is not getattr_static(kind, name, None))


def _listed(kind: type[nn.Module]) -> str:
    return " and ".join(sorted(PARAMETERS[kind], reverse=True))
