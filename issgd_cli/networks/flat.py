"""A network's parameters as one flat vector, which is published, loaded and saved as one copy."""

import hashlib

import torch
from torch import Tensor, nn


def flatten_parameters(model: nn.Module) -> Tensor:
    """Moves the parameters into one contiguous vector, of which each becomes a view; returns the vector, shape (P,)."""
    parameters = list(model.parameters())
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    offset = 0
    for parameter in parameters:
        parameter.data = flat[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()
    return flat


def size(model: nn.Module) -> int:
    """P, how many numbers a flat vector of the parameters holds."""
    return sum(parameter.numel() for parameter in model.parameters())


def fingerprint(model: nn.Module) -> str:
    """Sixteen hex digits of the parameters' names and shapes: what a flat vector of parameters means."""
    layout = ";".join(f"{name}:{tuple(parameter.shape)}" for name, parameter in model.named_parameters())
    return hashlib.sha256(layout.encode()).hexdigest()[:16]
