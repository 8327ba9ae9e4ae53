"""Proposition 1: fully-connected layers, and what it becomes where the weights are shared along further axes."""

from torch import Tensor, nn

from issgd_cli.scores.rules.rule import PARAMETERS, require_axes, squared_norms
from issgd_cli.scores.rules.slices import in_slices, wide

PARAMETERS[nn.Linear] = frozenset({"weight", "bias"})


@squared_norms.register
def _(layer: nn.Linear, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """||x_n||^2 ||delta_n||^2 for the weights, ||delta_n||^2 for the bias; on (B, ..., d), the squared norms of sums.

    Source: Goodfellow 2015; Alain et al. 2015, proposition 1 (whose second line means the bias).
    """
    require_axes(layer, inputs, 2)
    if inputs.dim() > 2:
        inputs, deltas = inputs.flatten(1, -2), output_gradients.flatten(1, -2)  # (B, T, d), (B, T, p)
        norms2 = weight_norms2(inputs, deltas)
        return norms2 if layer.bias is None else norms2 + bias_norms2(deltas)
    # Squares summed, not vector_norm: over long float32 rows that one errs by 1e-4. In float32 at least.
    dtype = wide(inputs)
    input_norms2 = inputs.to(dtype).square().sum(1)  # (B,)
    delta_norms2 = output_gradients.to(dtype).square().sum(1)  # (B,)
    return delta_norms2 * (input_norms2 + (0 if layer.bias is None else 1))


def weight_norms2(inputs: Tensor, deltas: Tensor) -> Tensor:
    """||sum_t delta_t x_t^T||^2 of each example, shape (B,), the cheaper way.

    Either the gradient's own squares, or sum_st <x_s, x_t> <delta_s, delta_t>, which never forms the gradient.

    Args:
        inputs: Shape (B, T, d).
        deltas: Shape (B, T, p).
    """
    sizes = inputs.shape[1], inputs.shape[2], deltas.shape[2]
    return by_gram(inputs, deltas) if gram_is_cheaper(*sizes) else by_product(inputs, deltas)


def bias_norms2(deltas: Tensor) -> Tensor:
    """||sum_t delta_t||^2 of each example, shape (B,), of shape (B, T, p)."""
    return deltas.sum(1, dtype=wide(deltas)).square().sum(1)


def gram_is_cheaper(positions: int, features: int, outputs: int) -> bool:
    """Whether inner products of all pairs of positions take fewer multiplications than the gradient does.

    On a CPU, over 60 shapes, this took 3% longer than the better of both each time; counting bytes, too, won nothing.
    """
    return positions * (features + outputs) < features * outputs


def by_gram(inputs: Tensor, deltas: Tensor) -> Tensor:
    """By Gram matrices of (B, T, d) and (B, T, p), shape (B,).

    Not below 0, which rounding could reach where a sum cancels. In float32 within 1e-6; where the deltas add up to
    nothing and the inputs' mean is m times their spread, within m^2 1e-7.
    """

    def norms2(inputs: Tensor, deltas: Tensor) -> Tensor:
        return ((inputs @ inputs.mT) * (deltas @ deltas.mT)).sum((1, 2)).clamp_(min=0)

    positions, features, outputs = inputs.shape[1], inputs.shape[2], deltas.shape[2]
    return in_slices(norms2, inputs, deltas, max(positions * (features + outputs), positions**2))


def by_product(inputs: Tensor, deltas: Tensor) -> Tensor:
    """By each example's gradient, of (B, T, d) and (B, T, p), shape (B,)."""

    def norms2(inputs: Tensor, deltas: Tensor) -> Tensor:
        return (deltas.mT @ inputs).square_().sum((1, 2))

    positions, features, outputs = inputs.shape[1], inputs.shape[2], deltas.shape[2]
    return in_slices(norms2, inputs, deltas, max(positions * (features + outputs), features * outputs))
