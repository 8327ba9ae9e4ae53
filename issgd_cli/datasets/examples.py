"""Prepared uint8 examples as the float inputs of a model, standardised by the minibatch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.datasets.prepared import Prepared
from issgd_cli.datasets.prepared import Split as PreparedSplit


class Examples:
    """One split of a dataset.

    On the CPU the images stay memory-mapped; on another device the uint8 images move there once. Neither ever holds
    the dataset as floats.
    """

    def __init__(self, data: Prepared, split: PreparedSplit, device: torch.device) -> None:
        """The split's examples for a model on `device`."""
        self.device = device
        self._mean = torch.from_numpy(np.array(data.mean, np.float32)).to(device)
        self._inverse_std = torch.from_numpy(1 / np.array(data.std, np.float32)).to(device)
        self._images = split.images
        self._labels = torch.from_numpy(np.array(split.labels, np.int64)).to(device)
        self._on_device = None if device.type == "cpu" else torch.from_numpy(np.array(split.images)).to(device)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, which: slice | NDArray[np.int64] | Tensor) -> tuple[Tensor, Tensor]:
        """Inputs, float32, shape (B, features), and labels, int64, shape (B,), of a slice or of indices."""
        rows = torch.from_numpy(which).to(self.device) if isinstance(which, np.ndarray) else which
        if self._on_device is not None:
            images = self._on_device[rows]
        else:
            images = torch.from_numpy(np.array(self._images[rows if isinstance(rows, slice) else rows.numpy()]))
        return images.to(torch.float32).sub_(self._mean).mul_(self._inverse_std), self._labels[rows]
