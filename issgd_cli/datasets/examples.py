"""Prepared examples as the inputs of a model, standardised by the minibatch, and their targets."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.datasets.prepared import Prepared
from issgd_cli.datasets.prepared import Split as PreparedSplit

Which = slice | NDArray[np.int64] | Tensor


class _Rows:
    """An array of which rows are asked for: on the CPU as it is, perhaps memory-mapped; elsewhere moved there once."""

    def __init__(self, array: NDArray[Any], device: torch.device, among: NDArray[np.int64] | None = None) -> None:
        """All rows of an array, or those `among` them."""
        self._array, self._among, self._on_device = array, among, None
        if device.type != "cpu":
            self._on_device = torch.from_numpy(np.array(array if among is None else array[among])).to(device)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """A copy: indexing by a slice alone would be a view."""
        if self._on_device is not None:
            return self._on_device[rows].clone() if isinstance(rows, slice) else self._on_device[rows]
        which = rows if isinstance(rows, slice) else rows.numpy()
        return torch.from_numpy(np.array(self._array[which if self._among is None else self._among[which]]))


class Examples:
    """One split of a dataset.

    On the CPU the inputs stay memory-mapped; on another device they move there once, in the type that they are stored
    in. Neither ever holds images as floats.
    """

    def __init__(self, data: Prepared, split: PreparedSplit, device: torch.device) -> None:
        """The split's examples for a model on `device`."""
        self.device = device
        self._count, self._shape, self._are_tokens = len(split), data.shape, data.tokens > 0
        self._mean = torch.from_numpy(np.array(data.mean, np.float32)).to(device)
        self._inverse_std = torch.from_numpy(1 / np.array(data.std, np.float32)).to(device)
        self._inputs = _Rows(split.inputs, device, split.rows)
        self._targets = _Rows(np.asarray(split.targets, np.int64 if data.classes else np.float32), device)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, which: Which) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a slice or of indices, a minibatch that is the caller's own.

        Returns:
            Inputs, shape (B, *shape): float32 and standardised, or tokens, int64. Targets: classes, int64, shape (B,);
            or numbers, float32, shape (B, K).
        """
        rows = torch.from_numpy(which).to(self.device) if isinstance(which, np.ndarray) else which
        inputs = self._inputs[rows]  # (B, features)
        if self._are_tokens:
            inputs = inputs.to(torch.int64)
        else:
            inputs = inputs.to(torch.float32).sub_(self._mean).mul_(self._inverse_std)
        return inputs.reshape(-1, *self._shape), self._targets[rows]
