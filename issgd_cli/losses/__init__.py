"""Per-example losses. A new one is one file, and one line in registries.py."""

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

# Of an example: its class's number; a vector of numbers; a vector of numbers in [0, 1].
Targets = Literal["classes", "numbers", "probabilities"]


class Loss(Protocol):
    """What is minimised in the mean over the training examples: all that a score needs."""

    def __call__(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Each example's own loss, not averaged, shape (B,), of the network's outputs, shape (B, ...)."""

    def errors(self, outputs: "Tensor", targets: "Tensor") -> "Tensor | None":
        """1 where the prediction is wrong, else 0, boolean, shape (B,); None where none is right or wrong: regression.

        Of one loss always None, or never.
        """


class Objective(Loss, Protocol):
    """A loss that a configuration can name.

    Attributes:
        targets: What it compares a network's outputs with.
    """

    @property
    def targets(self) -> Targets: ...

    def output_gradients(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Gradient of each example's own loss by its outputs, in their shape, (B, K); analytic, without a graph."""
