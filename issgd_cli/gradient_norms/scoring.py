"""What a worker computes for a chunk: each example's loss, error and gradient norm, in 0.63 of a training step.

The saving: no weight gradients are computed, nor the first layer's input gradient. One backward pass to the layers'
outputs gives every delta, and the rules do the rest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from issgd_cli.errors import LayerError
from issgd_cli.gradient_norms.rules import has_rule, squared_norms
from issgd_cli.models.losses import cross_entropy


@dataclass(frozen=True)
class Scores:
    """Of B examples at one set of parameters.

    Attributes:
        losses: Each example's loss, shape (B,).
        errors: 1 where the prediction is wrong, else 0, shape (B,).
        squared_norms: ||g(x_n)||^2 of each example's own loss over all parameters, shape (B,).
        gradients: Of the summed losses, one for each of `parameters()`, in its shape; None unless asked for.
    """

    losses: Tensor
    errors: Tensor
    squared_norms: Tensor
    gradients: tuple[Tensor, ...] | None = None

    @property
    def norms(self) -> Tensor:
        """||g(x_n)||, shape (B,): the ideal probability weights."""
        return self.squared_norms.sqrt()

    @property
    def gradient(self) -> Tensor | None:
        """The gradients in one flat copy, shape (P,)."""
        return None if self.gradients is None else torch.cat([part.flatten() for part in self.gradients])


def refuse_unsupported(model: nn.Module) -> None:
    """Raises LayerError, naming the layer, unless the norms of this model are exact by the rules at hand."""
    owner: dict[int, str] = {}
    for name, layer in model.named_modules():
        label = f"{name or 'the model itself'} ({type(layer).__name__})"
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise LayerError(f"{label} mixes the examples of a minibatch, so no example has a gradient of its own.")
        own = _trained(layer)
        if own and not has_rule(layer):
            squared_norms(layer, torch.empty(0), torch.empty(0))  # raises, naming the layers that have a rule
        if own and len(own) < len(list(layer.parameters(recurse=False))):
            raise LayerError(f"{label} is trained in part only. Freeze all of its parameters, or none.")
        for parameter in own:
            if id(parameter) in owner:
                raise LayerError(f"{label} shares a parameter with {owner[id(parameter)]}: squares don't add there.")
            owner[id(parameter)] = label


def score(
    model: nn.Module, inputs: Tensor, labels: Tensor, with_gradient: bool = False, factors: Tensor | None = None
) -> Scores:
    """Losses, errors and exact gradient norms of a chunk.

    Args:
        model: Maps inputs to logits; every layer with parameters must have a rule.
        inputs: Shape (B, ...).
        labels: Class numbers, int64, shape (B,).
        with_gradient: Also compute the chunk's own gradient: about 0.6 of a scoring pass more.
        factors: What each example's loss counts for in the gradient, positive, shape (B,); losses and norms stay those
            of the example's own loss. None: 1.

    Raises:
        LayerError: A layer has no rule, is used twice or not at all, or is followed by an in-place operation.
    """
    refuse_unsupported(model)
    layers = [layer for layer in model.modules() if _trained(layer)]
    parameters = [parameter for layer in layers for parameter in _trained(layer)]
    with _detached(parameters, detach=not with_gradient), _captured(layers) as captured, torch.enable_grad():
        logits = _logits(model, inputs)
        losses = cross_entropy(logits, labels)  # (B,)
        for layer, _, output, version in captured:
            if output._version != version:
                # autograd.grad would silently return the gradient after the in-place operation.
                raise _in_place(f"the output of {type(layer).__name__} ({layer.extra_repr()})")
        if missed := {id(layer) for layer in layers} - {id(entry[0]) for entry in captured}:
            names = [name for name, layer in model.named_modules() if id(layer) in missed]
            raise LayerError(
                f"{', '.join(names)}: not called in the forward pass. A layer whose weights are used without a call "
                "would be missing from the norm; call the layer, or freeze it if it is not used."
            )
        outputs = [entry[2] for entry in captured]
        wanted = [*outputs, *(parameters if with_gradient else [])]
        summed = losses.sum() if factors is None else losses @ factors
        gradients = torch.autograd.grad(summed, wanted)
    total = torch.zeros_like(losses)
    for (layer, layer_inputs, _, _), delta in zip(captured, gradients[: len(outputs)], strict=True):
        total += squared_norms(layer, layer_inputs.detach(), delta)
    if factors is not None:  # else an ideal proposal, whose factors are as 1 / norm, would make all norms equal
        total /= factors.square()
    errors = (logits.detach().argmax(1) != labels).to(losses.dtype)
    return Scores(losses.detach(), errors, total, gradients[len(outputs) :] if with_gradient else None)


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    try:
        return model(inputs)  # type: ignore[no-any-return]
    except RuntimeError as error:
        if "in-place operation" in str(error):  # torch itself refuses one on the first layer's output
            raise _in_place("the first layer's output") from None
        raise


def _in_place(what: str) -> LayerError:
    return LayerError(f"An in-place operation changes {what}. Use nn.ReLU(inplace=False).")


def _trained(layer: nn.Module) -> list[nn.Parameter]:
    """The layer's own parameters, not its children's, that training changes."""
    return [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]


@contextmanager
def _detached(parameters: list[nn.Parameter], detach: bool) -> Iterator[None]:
    """Within, autograd does not see the parameters, so their gradients are not computed."""
    for parameter in parameters:
        parameter.requires_grad_(not detach)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def _captured(layers: list[nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor, Tensor, int]]]:
    """Within, a forward pass lists (layer, inputs, outputs, the outputs' version) of each of these layers."""
    captured: list[tuple[nn.Module, Tensor, Tensor, int]] = []

    def capture(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        if any(seen is layer for seen, _, _, _ in captured):
            raise LayerError(
                f"{type(layer).__name__} ({layer.extra_repr()}) is used twice in one forward pass; its gradient is a "
                "sum over both uses, whose norm proposition 1 does not give."
            )
        if not outputs.requires_grad:  # the first layer: neither its inputs nor its parameters are watched
            outputs.requires_grad_()
        captured.append((layer, inputs[0], outputs, outputs._version))

    hooks = [layer.register_forward_hook(capture) for layer in layers]
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()
