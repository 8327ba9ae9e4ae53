"""How a learner descends, and at what rate. A new optimiser is one file, and one line in registries.py."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Descent(Protocol):
    """An optimiser of the parameters that it was made for, which it changes in place.

    Attributes:
        vectors: Its state, by the names that it has in a checkpoint, flat as the parameters, shape (T,).
    """

    vectors: "Mapping[str, Tensor]"

    def descend(self, gradient: "Sequence[Tensor]", learning_rate: float, step: int) -> None:
        """One step.

        Args:
            gradient: One part for each parameter, in its shape.
            learning_rate: Of this step.
            step: How many came before.
        """
