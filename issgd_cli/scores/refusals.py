"""What is said of models whose examples have no gradients of their own, or whose norms can't be found, by name."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from issgd_cli.errors import LayerError, LossError
from issgd_cli.scores.plan import Unit


def refuse_unsupported(model: nn.Module) -> None:
    """Raises LayerError, naming the layer, where it is plain that an example has no gradient of its own."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or layer.running_mean is None):
            raise LayerError(
                f"{name or 'the model itself'} ({type(layer).__name__}) mixes the examples of a minibatch, so no "
                "example has a gradient of its own. Score the model in evaluation mode, or use nn.GroupNorm."
            )
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.weight.requires_grad:
            for option in ("scale_grad_by_freq", "sparse"):  # so the others' tokens count; or it is not dense
                if getattr(layer, option):
                    raise LayerError(
                        f"{name or 'the model itself'} ({type(layer).__name__}) has another gradient than its examples "
                        f"make in sum, or in another form: {option}. Set {option}=False."
                    )
        if isinstance(layer, torch.jit.ScriptModule):
            raise LayerError(
                f"{name or 'the model itself'} is a ScriptModule, in which layers can't be seen. Score the module that "
                "it was made of; what is computed faster then, torch.compile may do as well."
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise LayerError("No parameter of the model is trained, so no example has a gradient. Unfreeze a layer.")


@contextmanager
def explained_calls(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Says what a model's own error does not, where it is called as it can't be, or differentiated so."""
    try:
        yield
    except TypeError as error:
        if (why := _unlike(model, inputs)) is None:
            raise
        raise LossError(
            f"The model can't be called with one tensor of inputs alone: {why}. Wrap a model of several arguments, or "
            "of named ones, in a module that takes one tensor apart for it."
        ) from error
    except RuntimeError as error:
        if "utils.checkpoint" not in str(error):
            raise
        raise LayerError(
            "The model recomputes a part of itself by torch.utils.checkpoint, which does not bear that norms are found "
            "there. Give checkpoint use_reentrant=False; around attention, LSTM and GRU, take it out."
        ) from error


def _unlike(model: nn.Module, inputs: Tensor) -> str | None:
    """How a model's forward takes other arguments than one, in words; None: it does not, or nobody can tell."""
    try:
        signature = inspect.signature(model.forward)
    except ValueError:
        return None
    try:
        signature.bind(inputs)
    except TypeError as error:
        return f"{error}, of forward{signature}"
    return None


def differing(wrong: Sequence[Unit]) -> str:
    """What is said of units whose norms are not what plain autograd gives."""
    ways = "; ".join(f"{unit.name}, found by {unit.way}, since {unit.why}" for unit in wrong)
    # Run before a layer's own, they change what is taken for its output.
    hooks = nn.modules.module._global_forward_hooks.values()
    names = ", ".join(getattr(hook, "__qualname__", type(hook).__name__) for hook in hooks)
    hooked = f"the hook on all modules ({names}) changes what a layer gives: register it on the layers themselves; or "
    return (
        f"The gradient norms of {len(wrong)} parts of the model are not what plain autograd gives for each example "
        f"alone: {ways}. Either {hooked if names else ''}the model mixes or reorders the examples of a minibatch, so "
        "that none has a gradient of its own: take that out; or a rule is wrong: please report it, with the layer."
    )
