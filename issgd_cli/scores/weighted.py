"""The backward pass of a training loop that weighs its examples, and that learns their gradient norms along with it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from issgd_cli.errors import LossError
from issgd_cli.losses.per_example import PerExample
from issgd_cli.scores.gradient_norm import forward, require_rows


def weighted_backward(
    loss: Callable[[Any, Tensor], Tensor], model: nn.Module, inputs: Tensor, targets: Tensor, factors: Tensor
) -> tuple[Tensor, Tensor]:
    """What `(factors * loss(model(inputs), targets)).mean().backward()` does, with each example's gradient norm.

    Gradients are added to `.grad`, so any optimiser, schedule, clipping or accumulation goes on as before.

    Args:
        loss: (outputs, targets) -> losses, shape (B,); outputs are what the model gives, a tuple too.
        model: Of one tensor. Any, as for `score`; not one whose backward pass others hook into, as
            DistributedDataParallel does.
        inputs: Shape (B, ...).
        targets: Shape (B, ...).
        factors: Positive, shape (B,), on whatever device.

    Returns:
        Losses and norms of each example's own loss, as if it had no factor; both shape (B,), without a graph.

    Raises:
        LossError: The loss is not one number an example, not everything is a tensor with a row an example, or a factor
            is not positive.
        LayerError: See `score`.
    """
    require_rows(inputs=inputs, targets=targets, factors=factors)
    if not bool(((factors > 0) & factors.isfinite()).all()):
        raise LossError("A factor is 0, negative or not finite, of which no example's norm can be told. Leave it out.")
    passed = forward(PerExample(loss), model, inputs, targets)
    squares, gradients = passed.backward_of_used(factors.to(passed.losses) / len(factors))
    assert gradients is not None
    taken: set[int] = set()
    for parameter, gradient in zip(passed.parameters, gradients, strict=True):
        if gradient is None:
            continue  # as after backward(): momentum and decay leave what has no gradient alone
        if parameter.grad is None:
            # Clipping changes it in place: of a + b both have the same one, and of a sum it is one number, expanded.
            place = gradient.untyped_storage().data_ptr()
            is_its_own = place not in taken and gradient.is_contiguous()
            taken.add(place)
            parameter.grad = gradient if is_its_own else gradient.clone(memory_format=torch.contiguous_format)
        else:
            with torch.no_grad():
                parameter.grad += gradient
    return passed.losses.detach(), squares.sqrt()
