"""What a worker computes for a chunk: each example's loss, error and gradient norm, in 0.63 of a training step.

The saving: no weight gradients are computed, nor the first layer's input gradient. One backward pass to the layers'
outputs gives every delta, and the rules do the rest. A rule holds where a layer computes what its type does, once, and
nothing else uses its weights: all of that is looked at, and what departs from it is refused.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from issgd_cli.errors import LayerError
from issgd_cli.gradient_norms.rules import departure, squared_norms
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
        if own and (found := departure(layer)):
            raise LayerError(
                f"{label} {found}. The rule for its norms holds for what that type computes; use the plain layer, or "
                "freeze this one."
            )
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
        LayerError: A layer has no rule, computes something else than its type, is used twice or not at all, or is
            followed by an in-place operation; or a weight is used beside its layer.
    """
    refuse_unsupported(model)
    names = {layer: name or "the model itself" for name, layer in model.named_modules() if _trained(layer)}
    parameters = [parameter for layer in names for parameter in _trained(layer)]
    with _captured(list(names)) as captured, torch.enable_grad():
        logits = model(inputs)
        losses = cross_entropy(logits, labels)  # (B,)
        for layer, _, output, version in captured:
            if output._version != version:
                # autograd.grad would silently return the gradient after the in-place operation.
                raise LayerError(
                    f"An in-place operation changes the output of {names[layer]}. Use nn.ReLU(inplace=False)."
                )
        _refuse_other_uses(losses, names, {layer for layer, _, _, _ in captured})
        outputs = [entry[2] for entry in captured]
        wanted = [*outputs, *(parameters if with_gradient else [])]
        # Only what these need is computed: no weight gradient where no parameter is among them.
        summed = losses.sum() if factors is None else losses @ factors
        gradients = torch.autograd.grad(summed, wanted, allow_unused=True)
    total = torch.zeros_like(losses)
    for (layer, layer_inputs, _, _), delta in zip(captured, gradients[: len(outputs)], strict=True):
        if delta is None:
            raise LayerError(
                f"{names[layer]}: its output has no part in the loss, but its weights have, beside its call."
            )
        of_layer = squared_norms(layer, layer_inputs.detach(), delta)
        if of_layer.shape != total.shape:
            raise LayerError(
                f"{names[layer]} met {len(of_layer)} rows for {len(total)} examples: it must meet each once."
            )
        total += of_layer
    if factors is not None:  # else an ideal proposal, whose factors are as 1 / norm, would make all norms equal
        total /= factors.square()
    errors = (logits.detach().argmax(1) != labels).to(losses.dtype)
    return Scores(losses.detach(), errors, total, gradients[len(outputs) :] if with_gradient else None)


def _trained(layer: nn.Module) -> list[nn.Parameter]:
    """The layer's own parameters, not its children's, that training changes."""
    return [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]


def _refuse_other_uses(losses: Tensor, names: Mapping[nn.Module, str], called: set[nn.Module]) -> None:
    """Sees to it that each trained parameter has a part in the losses by its layer's one call, and by nothing else.

    Raises:
        LayerError: A layer was not called, its output not used, or a weight of it used beside it.
    """
    uses = _uses(losses)
    for layer, label in names.items():
        if layer not in called:
            raise LayerError(
                f"{label}: not called in the forward pass. A layer whose weights are used without a call would be "
                "missing from the norm; call the layer, or freeze it if it is not used."
            )
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.requires_grad and uses[id(parameter)] != 1:
                raise LayerError(
                    f"{label}: its {name} has a part in the loss {uses[id(parameter)]} times, where the layer's own "
                    "call gives one. The gradient of a weight that is used beside its layer is a sum over all uses, "
                    "whose norm the rule does not give; a weight that is not used is to be frozen."
                )


def _uses(losses: Tensor) -> Counter[int]:
    """How often each tensor that autograd would keep a gradient of is used on the way to the losses, by its id."""
    uses = Counter[int]()
    seen, waiting = {losses.grad_fn}, [losses.grad_fn]
    while waiting:
        node = waiting.pop()
        for following, _ in node.next_functions if node is not None else ():
            if following is None or following in seen:
                continue
            if type(following).__name__ == "AccumulateGrad":
                uses[id(following.variable)] += 1  # type: ignore[attr-defined]
            else:
                seen.add(following)
                waiting.append(following)
    return uses


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
        captured.append((layer, inputs[0], outputs, outputs._version))

    # Before all other hooks, which may return something else than what the layer has computed.
    hooks = [layer.register_forward_hook(capture, prepend=True) for layer in layers]
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()
