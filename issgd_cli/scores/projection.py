"""Each example's gradient along one direction, without per-example gradients."""

import torch
from torch import Tensor, nn

from issgd_cli.losses import Loss


def projections(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor, direction: Tensor) -> Tensor:
    """g(x_n) . v of each example's own loss, shape (B,), for the price of two training steps.

    The sum over n of u_n g(x_n) . v is linear in the factors u, so its derivative in them is what is wanted.

    Args:
        loss: Of an example.
        model: Whatever it computes, if it can be differentiated twice.
        inputs: Shape (B, ...).
        targets: Shape (B, ...).
        direction: v, flat, shape (P,), in the order of the model's parameters.
    """
    parameters = list(model.parameters())
    parts = torch.split(direction, [parameter.numel() for parameter in parameters])
    with torch.enable_grad():
        losses = loss(model(inputs), targets)
        factors = torch.ones_like(losses, requires_grad=True)
        gradients = torch.autograd.grad(losses, parameters, factors, create_graph=True)
        sums = [gradient.flatten() @ part.to(gradient) for gradient, part in zip(gradients, parts, strict=True)]
        (found,) = torch.autograd.grad(torch.stack(sums).sum(), factors)
    return found
