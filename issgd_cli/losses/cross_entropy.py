"""Classification into one of several classes: the paper's loss."""

from typing import Any

import torch
from torch import Tensor

from issgd_cli.losses import Targets


class _CrossEntropy(torch.autograd.Function):
    """Softmax cross-entropy that stays exact for confident examples.

    In float32, softmax(z)[y] - 1 is 0 once the others' probabilities sum to less than 6e-8, and log-sum-exp loses
    the loss likewise: such an example would get a wrong norm. Here both come from z_j - z_y, j != y: the loss is
    log(1 + sum_j exp(z_j - z_y)), and the label's own gradient is minus the sum of the other probabilities.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        losses, jacobian = _losses_and_gradients(logits, labels)
        ctx.save_for_backward(jacobian)
        return losses

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor, None]:
        (jacobian,) = ctx.saved_tensors
        return jacobian * output_gradients[0][:, None], None


def _losses_and_gradients(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Shape (B,), and of each loss by its own logits, shape (B, classes)."""
    column = labels[:, None]
    differences = logits - logits.gather(1, column)  # (B, classes); 0 at the label
    top = differences.max(1, keepdim=True).values  # >= 0
    others = (differences - top).exp().scatter(1, column, 0.0)  # exp(z_j - z_y - top), 0 at the label
    sum_of_others = others.sum(1, keepdim=True)  # (B, 1)
    total = sum_of_others + (-top).exp()
    losses = (top + torch.log1p(sum_of_others + torch.expm1(-top))).squeeze(1)
    return losses, (others / total).scatter(1, column, -sum_of_others / total)


class CrossEntropy:
    """Softmax cross-entropy."""

    targets: Targets = "classes"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Each example's cross-entropy, not averaged.

        Args:
            outputs: Logits, shape (B, classes).
            targets: Class numbers, int64, shape (B,).

        Returns:
            Shape (B,), >= 0.
        """
        return _CrossEntropy.apply(outputs, targets)  # type: ignore[no-any-return,no-untyped-call]

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Where the largest logit is not the label's, boolean, shape (B,)."""
        return outputs.argmax(1) != targets

    def output_gradients(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Softmax less one-hot label, as exact as the backward pass, shape (B, classes), without a graph."""
        return _losses_and_gradients(outputs.detach(), targets)[1]


cross_entropy = CrossEntropy()
