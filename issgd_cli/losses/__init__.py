"""Per-example losses. A new one is one file, and one line in registries.py."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Protocol):
    """What is minimised in the mean over the training examples."""

    def __call__(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Each example's own loss, not averaged, shape (B,), of the network's outputs, shape (B, ...)."""

    def errors(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """1 where the prediction is wrong, else 0, boolean, shape (B,)."""
