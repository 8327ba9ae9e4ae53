"""Yes or no, K times over: logistic regression, and examples that bear several labels at once."""

from typing import Any

import torch
from torch import Tensor

from issgd_cli.losses import Targets
from issgd_cli.losses.vectors import as_outputs


class _BinaryCrossEntropy(torch.autograd.Function):
    """Logistic loss that stays exact for confident examples.

    In float32, sigmoid(z) - 1 is 0 beyond z = 17, and log(1 + exp(z)) - z is 0 likewise: such an example would get a
    wrong norm. Here no number near 1 is subtracted from 1: log sigmoid(z) and 1 - sigmoid(z) are those of -z.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(_gradients(logits, targets))
        return ((1 - targets) * _softplus(logits) + targets * _softplus(-logits)).sum(1)

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor, None]:
        (jacobian,) = ctx.saved_tensors
        return jacobian * output_gradients[0][:, None], None


def _softplus(logits: Tensor) -> Tensor:
    """log(1 + exp(z)), every digit of it: torch's own drops the second part beyond z = 20."""
    return logits.clamp(min=0) + torch.log1p(torch.exp(-logits.abs()))


def _gradients(logits: Tensor, targets: Tensor) -> Tensor:
    """sigmoid(z) - t, where t is 0 or 1 without a difference of numbers that are nearly equal."""
    return (1 - targets) * torch.sigmoid(logits) - targets * torch.sigmoid(-logits)


class BinaryCrossEntropy:
    """The sum over an example's K outputs of the cross-entropy between sigmoid(output) and its target."""

    targets: Targets = "probabilities"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Each example's binary cross-entropy, summed over its outputs, not averaged over examples.

        Args:
            outputs: Logits, shape (B, K).
            targets: 0 or 1, or a probability between, floats, shape (B, K), or (B,) for K = 1.

        Returns:
            Shape (B,), >= 0.

        Raises:
            DataError: The shapes do not belong together.
        """
        return _BinaryCrossEntropy.apply(outputs, as_outputs(targets, outputs))  # type: ignore[no-any-return,no-untyped-call]

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Where any of the outputs is on the wrong side: not more likely than not as its target is, boolean, (B,)."""
        return ((outputs > 0) != (as_outputs(targets, outputs) > 0.5)).any(1)

    def output_gradients(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """sigmoid(output) - target, as exact as the backward pass, shape (B, K), without a graph."""
        outputs = outputs.detach()
        return _gradients(outputs, as_outputs(targets, outputs))


binary_cross_entropy = BinaryCrossEntropy()
