"""Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.adam import adam  # not the classes: see sgd.py
from torch.optim.adamw import adamw

from issgd_cli.optimizers.views import views

if TYPE_CHECKING:
    from issgd_cli.config.config import Config


class Adam:
    """torch.optim.Adam(fused=True) to the bit, on CPU and CUDA. Weight decay is added to the gradient."""

    formula: Any = staticmethod(adam)

    def __init__(self, config: "Config", parameters: Tensor, tensors: Sequence[Tensor]) -> None:
        """For a flat vector of parameters, shape (T,), and its views."""
        self.settings, self.tensors = config.optimizer, list(tensors)
        self.vectors = {name: torch.zeros_like(parameters) for name in ("first_moment", "second_moment")}
        self.moments = [views(vector, tensors) for vector in self.vectors.values()]

    @torch.no_grad()
    def descend(self, gradient: Sequence[Tensor], learning_rate: float, step: int) -> None:
        """One step, in place."""
        device = self.tensors[0].device
        fused = device.type in ("cpu", "cuda")
        # torch counts a step before it uses the number; a fused kernel wants it where it runs.
        count = torch.full((), float(step), device=device if fused else "cpu")
        self.formula(
            self.tensors,
            list(gradient),
            *self.moments,
            [],
            [count.clone() for _ in self.tensors],
            fused=fused,
            amsgrad=False,
            beta1=self.settings.betas[0],
            beta2=self.settings.betas[1],
            lr=learning_rate,
            weight_decay=self.settings.weight_decay,
            eps=self.settings.epsilon,
            maximize=False,
        )


class AdamW(Adam):
    """torch.optim.AdamW(fused=True) to the bit: the weights decay by themselves, at the learning rate."""

    formula = staticmethod(adamw)
