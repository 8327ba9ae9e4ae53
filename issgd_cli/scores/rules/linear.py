"""Proposition 1: fully-connected layers."""

import torch
from torch import Tensor, nn

from issgd_cli.errors import LayerError
from issgd_cli.scores.rules.rule import PARAMETERS, squared_norms

PARAMETERS[nn.Linear] = frozenset({"weight", "bias"})


@squared_norms.register
def _(layer: nn.Linear, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """||x_n||^2 ||delta_n||^2 for the weights, ||delta_n||^2 for the bias.

    Source: Goodfellow 2015; Alain et al. 2015, proposition 1 (whose second line means the bias).
    """
    if inputs.dim() != 2:
        raise LayerError(
            f"A Linear layer met inputs of shape {tuple(inputs.shape)}. Proposition 1 holds for (examples, features) "
            "only: on further axes the weights are shared, and the norm of a sum is not the sum of norms."
        )
    # Squares summed, not vector_norm: over long float32 rows that one errs by 1e-4. In float32 at least.
    wide = torch.promote_types(inputs.dtype, torch.float32)
    input_norms2 = inputs.to(wide).square().sum(1)  # (B,)
    delta_norms2 = output_gradients.to(wide).square().sum(1)  # (B,)
    return delta_norms2 * (input_norms2 + (0 if layer.bias is None else 1))
