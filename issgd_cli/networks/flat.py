"""A network's numbers as one flat vector, which is published, loaded and saved as one copy.

First the parameters that are trained, then those that are frozen, then floating-point buffers, such as the running
means of BatchNorm: training changes these too, and who scores with others scores another network. Buffers of whole
numbers are left out: they are constants, or count what nobody reads.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def numbers_of(model: nn.Module) -> Mapping[str, Tensor]:
    """The tensors by their names, in the order of the flat vector."""
    parameters = dict(model.named_parameters())
    trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return {**trained, **parameters, **buffers}


def flatten_parameters(model: nn.Module) -> Tensor:
    """Moves the numbers into one contiguous vector, of which each tensor becomes a view; returns the vector, (P,)."""
    tensors = numbers_of(model).values()
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    offset = 0
    for tensor in tensors:
        tensor.data = flat[offset : offset + tensor.numel()].view_as(tensor)
        offset += tensor.numel()
    return flat


def size(model: nn.Module) -> int:
    """P, how many numbers a flat vector holds."""
    return sum(tensor.numel() for tensor in numbers_of(model).values())


def trained_size(model: nn.Module) -> int:
    """How many of them, the first, are trained: of these is a gradient."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def fingerprint(model: nn.Module) -> str:
    """Sixteen hex digits of the tensors' names and shapes: what a flat vector means."""
    layout = ";".join(f"{name}:{tuple(tensor.shape)}" for name, tensor in numbers_of(model).items())
    return hashlib.sha256(layout.encode()).hexdigest()[:16]
