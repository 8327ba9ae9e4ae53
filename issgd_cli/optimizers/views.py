"""Flat vectors seen as the parameters that they belong to."""

from collections.abc import Sequence

import torch
from torch import Tensor


def views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Of a vector of shape (T,), one part for each of these parameters, in its shape, without a copy."""
    sizes = [tensor.numel() for tensor in like]
    return [part.view_as(tensor) for part, tensor in zip(torch.split(flat, sizes), like, strict=True)]
