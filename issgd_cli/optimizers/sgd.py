"""SGD with momentum, Nesterov's or Polyak's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim.sgd import sgd  # not the class: it loads torch's compiler, which takes longer than a short run

from issgd_cli.optimizers.views import views

if TYPE_CHECKING:
    from issgd_cli.config.config import Config


class SGD:
    """torch.optim.SGD(fused=True) to the bit, on CPU and CUDA. Weight decay is added to the gradient."""

    def __init__(self, config: "Config", parameters: Tensor, tensors: Sequence[Tensor]) -> None:
        """For a flat vector of parameters, shape (T,), and its views."""
        self.settings, self.tensors = config.optimizer, list(tensors)
        # torch's own first step would start from zeros, too: its buffer becomes a copy of the gradient.
        self.vectors = {"momentum": torch.zeros_like(parameters)}
        self.buffers: list[Tensor | None] = [*views(self.vectors["momentum"], tensors)]

    @torch.no_grad()
    def descend(self, gradient: Sequence[Tensor], learning_rate: float, step: int) -> None:
        """One step, in place."""
        sgd(
            self.tensors,
            list(gradient),
            self.buffers,
            fused=self.tensors[0].device.type in ("cpu", "cuda"),
            weight_decay=self.settings.weight_decay,
            momentum=self.settings.momentum,
            lr=learning_rate,
            dampening=0.0,
            nesterov=self.settings.nesterov and self.settings.momentum > 0,
            maximize=False,
        )
