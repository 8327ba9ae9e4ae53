"""Embeddings: a token's row has the sum of the deltas wherever the example has that token."""

import torch
from torch import Tensor, nn

from issgd_cli.scores.rules.rule import PARAMETERS, require_axes, reservation, squared_norms
from issgd_cli.scores.rules.slices import wide

PARAMETERS[nn.Embedding] = PARAMETERS[nn.EmbeddingBag] = frozenset({"weight"})


@squared_norms.register
def _(layer: nn.Embedding, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """Over an example's distinct tokens v: sum_v ||sum over t where it has v of delta_t||^2, v not the padding."""
    require_axes(layer, inputs, 1)
    deltas = output_gradients.flatten(0, -2).to(wide(output_gradients))  # (B T, p)
    tokens, examples, places, _ = _distinct(layer, inputs.unsqueeze(-1).flatten(1))
    sums = deltas.new_zeros(len(tokens), deltas.shape[1]).index_add_(0, places, deltas)
    norms2 = _without_padding(layer, tokens, sums.square().sum(1))
    return norms2.new_zeros(len(inputs)).index_add_(0, examples, norms2)


@squared_norms.register
def _(layer: nn.EmbeddingBag, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """||delta||^2 sum_v c_v^2, c_v how often the example's bag has v, of the mean by the squared size of the bag.

    Holds for bags of one size, inputs (B, size): what is given with them, offsets or weights, is not looked at.
    """
    require_axes(layer, inputs, 2, 2)
    tokens, examples, _, counts = _distinct(layer, inputs)
    counts = _without_padding(layer, tokens, counts.to(wide(output_gradients)))
    zeros = counts.new_zeros(len(inputs))
    norms2 = zeros.index_add(0, examples, counts.square()) * output_gradients.to(counts.dtype).square().sum(1)
    if layer.mode == "mean":
        norms2 = norms2 / zeros.index_add(0, examples, counts).clamp(min=1).square()
    return norms2


@reservation.register
def _(layer: nn.Embedding | nn.EmbeddingBag) -> str | None:
    if layer.max_norm is not None:
        return "changes its weights as it is called (max_norm)"
    if layer.scale_grad_by_freq:
        return "divides by how often the minibatch has a token (scale_grad_by_freq)"
    if layer.sparse:
        return "has sparse gradients"
    if isinstance(layer, nn.EmbeddingBag) and layer.mode == "max":
        return "takes maxima (mode='max')"
    if isinstance(layer, nn.EmbeddingBag) and layer.include_last_offset:
        return "is made for bags of all sizes (include_last_offset)"
    return None


def _distinct(layer: nn.Embedding | nn.EmbeddingBag, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The distinct pairs of an example and one of its tokens, of tokens (B, T).

    Returns:
        Their tokens and examples, shape (U,); which pair each of the B T places has; how many places have each pair.
    """
    codes = tokens.long() + layer.num_embeddings * torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
    pairs, places, counts = torch.unique(codes, return_inverse=True, return_counts=True)
    return pairs % layer.num_embeddings, pairs // layer.num_embeddings, places.flatten(), counts


def _without_padding(layer: nn.Embedding | nn.EmbeddingBag, tokens: Tensor, values: Tensor) -> Tensor:
    """The values of these tokens, 0 for the padding, whose row is not trained."""
    return values if layer.padding_idx is None else values.masked_fill(tokens == layer.padding_idx, 0)
