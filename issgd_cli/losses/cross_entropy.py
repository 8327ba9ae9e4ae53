"""Classification into one of several classes: the paper's loss."""

from typing import Any

import torch
from torch import Tensor

from issgd_cli.errors import LossError
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


def _beyond(labels: Tensor, classes: int) -> str:
    """What is said of labels of which some are no class."""
    places = ((labels < 0) | (labels >= classes)).nonzero().flatten().tolist()
    return (
        f"{len(places)} of {len(labels)} labels are none of the {classes} classes that the model has outputs for, 0 to "
        f"{classes - 1}; the first is {int(labels[places[0]])}, at place {places[0]} of the minibatch. Count classes "
        "from 0, give the model an output for each, and leave out examples that have none, as -100 marks them."
    )


class CrossEntropy:
    """Softmax cross-entropy."""

    targets: Targets = "classes"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Each example's cross-entropy, not averaged.

        Args:
            outputs: Logits, shape (B, classes).
            targets: Class numbers, of any integer type, shape (B,).

        Returns:
            Shape (B,), >= 0.

        Raises:
            LossError: Outputs or targets are something else, or, on a CPU, a label is no class: elsewhere torch says
                so itself, later.
        """
        if not isinstance(outputs, Tensor) or outputs.dim() != 2:
            given = f"of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
            raise LossError(
                f"The model's outputs are {given}; cross-entropy wants logits of shape (B, classes). Where the model "
                "gives more, a loss may choose: lambda outputs, targets: cross_entropy(outputs[0], targets)."
            )
        if targets.shape != outputs.shape[:1] or targets.is_floating_point():
            raise LossError(
                f"The targets are {targets.dtype} of shape {tuple(targets.shape)} for {len(outputs)} examples; "
                f"cross-entropy wants class numbers of shape ({len(outputs)},): labels.squeeze(1) of a column, "
                "labels.argmax(1) of one-hot rows."
            )
        targets = targets.long()
        try:
            return _CrossEntropy.apply(outputs, targets)  # type: ignore[no-any-return,no-untyped-call]
        except RuntimeError as error:  # asked only then: on a device, to ask would be to wait for it
            if "out of bounds" not in str(error):
                raise
            raise LossError(_beyond(targets, outputs.shape[1])) from error

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Where the largest logit is not the label's, boolean, shape (B,)."""
        return outputs.argmax(1) != targets

    def output_gradients(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Softmax less one-hot label, as exact as the backward pass, shape (B, classes), without a graph."""
        return _losses_and_gradients(outputs.detach(), targets)[1]


cross_entropy = CrossEntropy()
