"""What a worker computes for a chunk: each example's loss, error and gradient norm; for an MLP in 0.63 of a training
step.

The saving: no weight gradients are computed, nor the first layer's input gradient. One backward pass to the layers'
outputs gives every delta, and the rules do the rest. Where no rule holds, the part of the network that it would be for
is run again, for each example's own gradient: see plan.py.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from issgd_cli.errors import LossError
from issgd_cli.losses import Loss
from issgd_cli.scores.first_look import plan_of
from issgd_cli.scores.forward import Forward
from issgd_cli.scores.plan import Plan


@dataclass(frozen=True)
class Scores:
    """Of B examples at one set of parameters.

    Attributes:
        losses: Each example's loss, shape (B,).
        errors: 1 where the prediction is wrong, else 0, shape (B,); None of a loss that knows none.
        squared_norms: ||g(x_n)||^2 of each example's own loss over all parameters, shape (B,).
        outputs: The model's, without a graph, shape (B, ...), or whatever the loss takes.
        gradients: Of the summed losses, one for each of `parameters()`, in its shape; None unless asked for.
    """

    losses: Tensor
    errors: Tensor | None
    squared_norms: Tensor
    outputs: Any
    gradients: tuple[Tensor, ...] | None = None

    @property
    def norms(self) -> Tensor:
        """||g(x_n)||, shape (B,): the ideal probability weights."""
        return self.squared_norms.sqrt()

    @property
    def gradient(self) -> Tensor | None:
        """The gradients in one flat copy, shape (P,)."""
        return None if self.gradients is None else torch.cat([part.flatten() for part in self.gradients])


def forward(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor) -> Forward:
    """A forward pass whose backward pass gives each example's gradient norm, too. Args and errors: see `score`."""
    return Forward.of(loss, model, inputs, targets, plan_of(loss, model, inputs, targets))


def score(
    loss: Loss,
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    with_gradient: bool = False,
    factors: Tensor | None = None,
) -> Scores:
    """Losses, errors and exact gradient norms of a chunk.

    Args:
        loss: Of an example.
        model: Maps inputs to the loss's outputs. Any: at the first pass, and whenever a layer was frozen, replaced or
            set to another mode since, it is looked at how the norms are to be found, and a few examples' are compared
            with plain autograd's.
        inputs: Shape (B, ...).
        targets: As the loss wants them, shape (B, ...).
        with_gradient: Also compute the chunk's own gradient: about 0.6 of a scoring pass more.
        factors: What each example's loss counts for in the gradient, positive, shape (B,); losses and norms stay those
            of the example's own loss. None: 1.

    Raises:
        LayerError: An example has no gradient of its own, since the model mixes examples; or the norms differ from
            plain autograd's; or the model does something else than with the first minibatch.
        LossError: The loss is not one number an example that depends on the parameters, or not everything is a tensor
            with a row an example.
    """
    if not hasattr(loss, "errors"):
        raise LossError(
            "The loss is a plain function, of which nobody knows its errors: score(per_example(loss), ...)."
        )
    require_rows(inputs=inputs, targets=targets, **({} if factors is None else {"factors": factors}))
    plan = plan_of(loss, model, inputs, targets)
    size, found = plan.slices(inputs.device), []
    for first in range(0, max(1, len(inputs)), size):
        part = slice(first, first + size)
        own = None if factors is None else factors[part]
        found.append(_scored(loss, model, inputs[part], targets[part], with_gradient, own, plan))
    return found[0] if len(found) == 1 else _joined(found)


def require_rows(**given: object) -> None:
    """Raises LossError unless all are tensors of as many rows; factors have no more axes."""
    rows = next((each.shape[:1] for each in given.values() if isinstance(each, Tensor)), ())
    for name, each in given.items():
        own = each.shape[: None if name == "factors" else 1] if isinstance(each, Tensor) else None
        if own != rows or not rows:
            shape = f"have shape {tuple(each.shape)}" if isinstance(each, Tensor) else f"are {type(each).__name__}"
            raise LossError(
                f"The {name} {shape}; they must be a tensor with a row for each of the minibatch's examples, as many "
                "in all. A model of several arguments, or of named ones, is wrapped in a module that takes one tensor "
                "apart for it."
            )


def _scored(
    loss: Loss,
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    with_gradient: bool,
    factors: Tensor | None,
    plan: Plan,
) -> Scores:
    passed = Forward.of(loss, model, inputs, targets, plan)
    squares, gradients = passed.backward(factors, with_gradient)
    losses, errors = passed.losses.detach(), loss.errors(passed.outputs, targets)
    return Scores(losses, None if errors is None else errors.to(losses.dtype), squares, passed.outputs, gradients)


def _joined(parts: list[Scores]) -> Scores:
    """Of consecutive examples; the gradients are of the sum of their losses."""
    gradients = [part.gradients for part in parts if part.gradients is not None]
    errors = [part.errors for part in parts if part.errors is not None]
    return Scores(
        torch.cat([part.losses for part in parts]),
        torch.cat(errors) if errors else None,
        torch.cat([part.squared_norms for part in parts]),
        _pytree.tree_map(_consecutive, *(part.outputs for part in parts)),
        tuple(torch.stack(each).sum(0) for each in zip(*gradients, strict=True)) if gradients else None,
    )


def _consecutive(*parts: Any) -> Any:
    """One tensor of consecutive examples'; of what is none, the last."""
    return torch.cat(parts) if all(isinstance(part, Tensor) and part.dim() for part in parts) else parts[-1]
