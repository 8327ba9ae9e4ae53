"""Per-example losses. A new one is one file, and one line here."""

from typing import TYPE_CHECKING, Protocol

from issgd_cli.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Protocol):
    """What is minimised in the mean over the training examples."""

    def __call__(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Each example's own loss, not averaged, shape (B,), of the network's outputs, shape (B, ...)."""

    def errors(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """1 where the prediction is wrong, else 0, boolean, shape (B,)."""


LOSSES: Registry[Loss] = Registry("loss", {"cross-entropy": "issgd_cli.losses.cross_entropy:cross_entropy"})
