"""A loss of one's own: any function that gives each example's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from issgd_cli.errors import LossError


@dataclass(frozen=True)
class PerExample:
    """A function's losses, seen to be one an example.

    Attributes:
        function: (outputs, targets) -> losses, shape (B,). Outputs are whatever the model gives, targets a tensor.
        wrong: (outputs, targets) -> where the prediction is wrong, shape (B,); None: unknown.
    """

    function: Callable[[Any, Tensor], Tensor]
    wrong: Callable[[Any, Tensor], Tensor] | None = None

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        """Each example's own loss, shape (B,).

        Raises:
            LossError: It isn't.
        """
        losses = self.function(outputs, targets)
        require_one_each(losses, len(targets))
        return losses

    def errors(self, outputs: Any, targets: Tensor) -> Tensor | None:
        """1 where the prediction is wrong, else 0, shape (B,); None where that is unknown."""
        return None if self.wrong is None else self.wrong(outputs, targets)


def require_one_each(losses: object, examples: int) -> None:
    """Raises LossError unless the losses are so many numbers."""
    if not isinstance(losses, Tensor) or losses.shape != (examples,):
        given = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
        raise LossError(
            f"The loss gave {given} for {examples} examples: it must be one number an example, not averaged. Torch's "
            'losses give that with reduction="none", and with .flatten(1).mean(1) where there is more than one target '
            "an example."
        )


def per_example(
    function: Callable[[Any, Tensor], Tensor], wrong: Callable[[Any, Tensor], Tensor] | None = None
) -> PerExample:
    """A loss that `score` takes, of any function: torch's with reduction="none", or your own.

    Args:
        function: (outputs, targets) -> losses, shape (B,). Outputs are what the model gives, a tuple with auxiliary
            ones too.
        wrong: (outputs, targets) -> where the prediction is wrong, shape (B,); None: scores have no errors.
    """
    return PerExample(function, wrong)
