"""Squared error, for regression."""

from torch import Tensor

from issgd_cli.losses import Targets
from issgd_cli.losses.vectors import as_outputs


class Squared:
    """The mean over an example's K outputs of (output - target)^2.

    No factor 1/2, and a mean, not a sum: averaged over examples it is the mean squared error as PyTorch's `mse_loss`
    and papers report it, so that learning rates and losses compare with theirs whatever K is.
    """

    targets: Targets = "numbers"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Each example's mean squared error over its outputs, not averaged over examples.

        Args:
            outputs: Shape (B, K).
            targets: Shape (B, K), or (B,) for K = 1.

        Returns:
            Shape (B,), >= 0.

        Raises:
            DataError: The shapes do not belong together.
        """
        return (outputs - as_outputs(targets, outputs)).square().mean(1)

    def errors(self, outputs: Tensor, targets: Tensor) -> None:
        """None: no prediction of a number is right or wrong."""

    def output_gradients(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """2 (output - target) / K, shape (B, K), without a graph."""
        outputs = outputs.detach()
        return (outputs - as_outputs(targets, outputs)) * (2 / outputs.shape[1])


squared = Squared()
