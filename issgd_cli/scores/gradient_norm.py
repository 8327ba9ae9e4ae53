"""What a worker computes for a chunk: each example's loss, error and gradient norm, in 0.63 of a training step.

The saving: no weight gradients are computed, nor the first layer's input gradient. One backward pass to the layers'
outputs gives every delta, and the rules do the rest. A rule holds where a layer computes what its type does, once, and
nothing else uses its weights: all of that is looked at, and what departs from it is refused.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from issgd_cli.errors import LayerError
from issgd_cli.losses import Loss
from issgd_cli.scores.rules import departure, squared_norms


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


class _Call(NamedTuple):
    """A layer's call: what it was given, what it computed, and the versions that both had then."""

    layer: nn.Module
    inputs: Tensor
    output: Tensor
    versions: tuple[int, int]


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
    if not owner:
        raise LayerError("No parameter of the model is trained, so no example has a gradient. Unfreeze a layer.")


@dataclass(frozen=True)
class Forward:
    """A forward pass whose backward pass gives each example's gradient norm, too.

    Attributes:
        outputs: The model's, detached, shape (B, ...).
        losses: Each example's own, with their graph, shape (B,).
    """

    outputs: Tensor
    losses: Tensor
    _names: Mapping[nn.Module, str]
    _calls: Sequence[_Call]

    @classmethod
    def of(cls, loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor) -> "Forward":
        """Runs the model, and sees to it that the rules at hand are the norms of what it has computed.

        Args and errors: see `score`.
        """
        refuse_unsupported(model)
        names = {layer: name or "the model itself" for name, layer in model.named_modules() if _trained(layer)}
        with _captured(list(names)) as captured, torch.enable_grad():
            outputs = model(inputs)
            losses = loss(outputs, targets)  # (B,)
            for call in captured:
                if (call.inputs._version, call.output._version) != call.versions:
                    # autograd.grad would silently return the gradient after the in-place operation, and a rule read
                    # what the layer was never given.
                    raise LayerError(
                        f"An in-place operation changes the input or output of {names[call.layer]}. Use "
                        "nn.ReLU(inplace=False) and the like."
                    )
            _refuse_other_uses(losses, names, captured)
        return cls(outputs.detach(), losses, names, captured)

    def backward(
        self, factors: Tensor | None = None, with_gradient: bool = True
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Squared norms of each example's own gradient, shape (B,), and the gradient of `losses @ factors`.

        Args:
            factors: Positive, shape (B,); None: 1.
            with_gradient: Else there is no gradient, and its cost is saved.

        Raises:
            LayerError: A layer's output has no part in the loss, or a layer met other rows than the examples.
        """
        outputs = [call.output for call in self._calls]
        parameters = [parameter for layer in self._names for parameter in _trained(layer)] if with_gradient else []
        # Only what these need is computed: no weight gradient where no parameter is among them.
        gradients = torch.autograd.grad(
            self.losses,
            [*outputs, *parameters],
            torch.ones_like(self.losses) if factors is None else factors,
            allow_unused=True,
        )
        wide = torch.promote_types(self.losses.dtype, torch.float32)
        total = torch.zeros(len(self.losses), dtype=wide, device=self.losses.device)
        for call, delta in zip(self._calls, gradients[: len(outputs)], strict=True):
            label = self._names[call.layer]
            if delta is None:
                raise LayerError(f"{label}: its output has no part in the loss, but its weights have, beside its call.")
            of_layer = squared_norms(call.layer, call.inputs.detach(), delta)
            if of_layer.shape != total.shape:
                raise LayerError(f"{label} met {len(of_layer)} rows for {len(total)} examples: it must meet each once.")
            total += of_layer
        if factors is not None:  # else an ideal proposal, whose factors are as 1 / norm, would make all norms equal
            total /= factors.square()
        return total, gradients[len(outputs) :] if with_gradient else None


def score(
    loss: Loss,
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    with_gradient: bool = False,
    factors: Tensor | None = None,
) -> Scores:
    """Losses, errors and exact gradient norms of a chunk.

    Each row must stay its example's: between its layers the model may do what it likes with a row, but nothing that
    mixes or reorders rows, such as subtracting their mean, which is not noticed.

    Args:
        loss: Of an example.
        model: Maps inputs to the loss's outputs; every layer with parameters must have a rule.
        inputs: Shape (B, ...).
        targets: As the loss wants them, shape (B, ...).
        with_gradient: Also compute the chunk's own gradient: about 0.6 of a scoring pass more.
        factors: What each example's loss counts for in the gradient, positive, shape (B,); losses and norms stay those
            of the example's own loss. None: 1.

    Raises:
        LayerError: A layer has no rule, computes something else than its type, is used twice or not at all, or is
            followed by an in-place operation; or a weight is used beside its layer.
    """
    forward = Forward.of(loss, model, inputs, targets)
    squares, gradients = forward.backward(factors, with_gradient)
    losses = forward.losses.detach()
    return Scores(losses, loss.errors(forward.outputs, targets).to(losses.dtype), squares, gradients)


def _trained(layer: nn.Module) -> list[nn.Parameter]:
    """The layer's own parameters, not its children's, that training changes."""
    return [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]


def _refuse_other_uses(losses: Tensor, names: Mapping[nn.Module, str], captured: Sequence[_Call]) -> None:
    """Sees to it that each trained parameter has a part in the losses by its layer's one call, and by nothing else.

    Raises:
        LayerError: A layer was not called, its output not used, or a weight of it used beside it.
    """
    uses = _uses(losses, [call.output for call in captured])
    called = {call.layer for call in captured}
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


def _uses(losses: Tensor, outputs: Sequence[Tensor]) -> Counter[int]:
    """How often each parameter, or what is made of parameters alone, meets the data on the way to the losses, by id.

    A cast or transposed weight that is used twice counts twice, though autograd sees one use of the weight.

    Args:
        losses: Of the examples.
        outputs: Of the layers: of data, even where nothing of these has a gradient.
    """
    of_data = {output.grad_fn for output in outputs}
    uses, made_of = Counter[int](), dict[Node, Counter[int]]()
    for node in _inputs_first(losses.grad_fn):
        before = [following for following, _ in node.next_functions if following is not None]
        if type(node).__name__ == "AccumulateGrad":
            made_of[node] = Counter([id(node.variable)])  # type: ignore[attr-defined]
        elif before and node not in of_data and all(each in made_of for each in before):
            made_of[node] = sum((made_of[each] for each in before), Counter[int]())
        else:
            uses.update(sum((made_of[each] for each in before if each in made_of), Counter[int]()))
    return uses


def _inputs_first(root: Node | None) -> Iterator[Node]:
    """The nodes of a graph, each once, behind all that it is computed from."""
    seen, waiting = set[Node](), [(root, False)]
    while waiting:
        node, is_open = waiting.pop()
        if node is None or (node in seen and not is_open):
            continue
        if is_open:
            yield node
            continue
        seen.add(node)
        waiting.append((node, True))
        waiting += [(following, False) for following, _ in node.next_functions]


@contextmanager
def _captured(layers: list[nn.Module]) -> Iterator[list[_Call]]:
    """Within, a forward pass lists the calls of these layers."""
    captured: list[_Call] = []

    def capture(layer: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        if any(call.layer is layer for call in captured):
            raise LayerError(
                f"{type(layer).__name__} ({layer.extra_repr()}) is used twice in one forward pass; its gradient is a "
                "sum over both uses, whose norm proposition 1 does not give."
            )
        (inputs,) = (*given, *named.values())
        captured.append(_Call(layer, inputs, output, (inputs._version, output._version)))

    # Before all other hooks, which may return something else than what the layer has computed.
    hooks = [layer.register_forward_hook(capture, prepend=True, with_kwargs=True) for layer in layers]
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()
