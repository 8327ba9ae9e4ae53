"""Targets that are vectors of numbers, as the losses of such targets want them."""

from torch import Tensor

from issgd_cli.errors import DataError


def as_outputs(targets: Tensor, outputs: Tensor) -> Tensor:
    """The targets in the outputs' type and shape, (B, K); of one output they may be given as (B,).

    Raises:
        DataError: They are of another shape: broadcast, they would give a loss of no meaning.
    """
    if outputs.ndim == 2 and targets.shape in (outputs.shape, outputs.shape[: 1 if outputs.shape[1] == 1 else 2]):
        return targets.reshape(outputs.shape).to(outputs.dtype)
    raise DataError(
        f"The network gives outputs of shape {tuple(outputs.shape)} for targets of shape {tuple(targets.shape)}. Give "
        "targets of shape (examples, K) to a network of K outputs."
    )
