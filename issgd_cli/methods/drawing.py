"""Drawing minibatches where the model computes."""

import numpy as np
import torch
from torch import Tensor

from issgd_cli.methods.proposal import Proposal


class Draws:
    """A proposal, drawn from for a model on some device: the same draws on each, to the bit.

    On CUDA the search runs on the device, in float64 like NumPy's; elsewhere (not every accelerator has float64) on
    the CPU. Random numbers always come from the CPU's generator.
    """

    def __init__(self, proposal: Proposal, device: torch.device, search_there: bool | None = None) -> None:
        """Moves what the search needs to the device; `search_there` None: where the device is CUDA."""
        self.proposal, self.device = proposal, device
        self.total = float(proposal.cumulative[-1])
        self.mean = self.total / proposal.support
        self.tables: tuple[Tensor, Tensor] | None = None
        if device.type == "cuda" if search_there is None else search_there:
            self.tables = (
                torch.from_numpy(proposal.cumulative).to(device),
                torch.from_numpy(proposal.weights).to(device),
            )

    def draw(self, generator: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """Drawn examples, int64, shape (size,), and their importance weights, float32, shape (size,), on the device."""
        if self.tables is None:
            indices, factors = self.proposal.draw(generator, size)
            return torch.from_numpy(indices).to(self.device), torch.from_numpy(factors).float().to(self.device)
        cumulative, weights = self.tables  # as Proposal.draw, step by step
        places = torch.from_numpy(generator.random(size) * self.total).to(self.device, non_blocking=True)
        found = torch.searchsorted(cumulative, places, right=True).clamp_(max=self.proposal.last)
        return found, (self.mean / weights[found]).float()
