"""Each example's gradient along one direction, without per-example gradients."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from issgd_cli.losses import Loss
from issgd_cli.scores.calls import recorded
from issgd_cli.scores.first_look import plan_of

# Graphs as large as a forward pass's that one through its gradient keeps.
PASSES = 3


def projections(loss: Loss, model: nn.Module, inputs: Tensor, targets: Tensor, direction: Tensor) -> Tensor:
    """g(x_n) . v of each example's own loss, shape (B,), for the price of two training steps.

    The sum over n of u_n g(x_n) . v is linear in the factors u, so its derivative in them is what is wanted.

    Args:
        loss: Of an example.
        model: Whatever it computes, if it can be differentiated twice: attention, LSTM and GRU are, in their pieces.
        inputs: Shape (B, ...).
        targets: Shape (B, ...).
        direction: v, flat, in the order of the model's trained parameters.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parts = torch.split(direction, [parameter.numel() for parameter in parameters])
    plan = plan_of(loss, model, inputs, targets)

    def of_slice(inputs: Tensor, targets: Tensor) -> Tensor:
        losses = loss(model(inputs), targets)
        factors = torch.ones_like(losses, requires_grad=True)
        whole = (losses * factors).sum()  # by grad's own factors torch would load half a second of libraries
        gradients = torch.autograd.grad(whole, parameters, create_graph=True, materialize_grads=True)
        sums = [gradient.flatten() @ part.to(gradient) for gradient, part in zip(gradients, parts, strict=True)]
        return torch.autograd.grad(torch.stack(sums).sum(), factors)[0]

    size = plan.slices(inputs.device, PASSES)
    with recorded(len(inputs), [], plan.apart, []), sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        slices = zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
        return torch.cat([of_slice(*each) for each in slices])
