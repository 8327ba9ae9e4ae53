"""Multi-head attention, taken apart: torch's own uses its projections' weights without calling a layer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from issgd_cli.scores.rules.linear import bias_norms2, weight_norms2
from issgd_cli.scores.rules.rule import PIECES, Apart

Tap = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]


def projected(tap: Tap, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """inputs W^T + b, shape (B, T, p), tapped with proposition 1's rule for those of W and b that are trained."""

    def squares(deltas: Tensor) -> Tensor:
        total = weight_norms2(inputs.detach(), deltas) if weight.requires_grad else deltas.new_zeros(len(deltas))
        return total + bias_norms2(deltas) if bias is not None and bias.requires_grad else total

    return tap(functional.linear(inputs, weight, bias), squares)


def attend(
    layer: nn.MultiheadAttention,
    tap: Tap,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What nn.MultiheadAttention computes, for the same arguments.

    `is_causal` is only a hint there, beside the mask that it describes: the mask is what counts. Of a single example,
    without an axis for more, nothing is tapped.
    """
    if query.dim() != 3:  # no minibatch
        return type(layer).forward(
            layer, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )
    if not layer.batch_first:
        query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
    heads, width = layer.num_heads, layer.head_dim

    def apart(projection: Tensor) -> Tensor:
        return projection.view(*projection.shape[:2], heads, width).transpose(1, 2)  # (B, heads, T, width)

    q, k, v = (apart(each) for each in _projections(layer, tap, query, key, value))
    mask = _mask(layer, attn_mask, key_padding_mask, q)
    dropout = layer.dropout if layer.training else 0.0
    weights = None
    if need_weights:
        scores = q @ k.mT / width**0.5
        weights = (scores if mask is None else scores + mask).softmax(-1)
        weights = functional.dropout(weights, dropout) if dropout else weights
        mixed = weights @ v
    else:
        mixed = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
    output = projected(tap, mixed.transpose(1, 2).flatten(2), layer.out_proj.weight, layer.out_proj.bias)
    if weights is not None and average_attn_weights:
        weights = weights.mean(1)
    return output if layer.batch_first else output.transpose(0, 1), weights


def _projections(layer: nn.MultiheadAttention, tap: Tap, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Of the queries, keys and values, in as few products as there are different inputs."""
    biases = [None] * 3 if layer.in_proj_bias is None else list(layer.in_proj_bias.chunk(3))
    if layer.in_proj_weight is None:
        weights = [layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight]
    elif query is key and key is value:
        return list(projected(tap, query, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1))
    else:
        weights = list(layer.in_proj_weight.chunk(3))
    given = zip((query, key, value), weights, biases, strict=True)
    return [projected(tap, inputs, weight, bias) for inputs, weight, bias in given]


def _mask(layer: nn.MultiheadAttention, attention: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
    """What is added to the scores, shape broadcast to (B, heads, T, S): -inf where a boolean mask says True."""

    def additive(mask: Tensor) -> Tensor:
        return torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask

    masks = []
    if attention is not None:  # (T, S), or (B heads, T, S)
        masks.append(
            additive(attention)
            if attention.dim() == 2
            else additive(attention.view(*q.shape[:2], *attention.shape[1:]))
        )
    if padding is not None:  # (B, S)
        masks.append(additive(padding)[:, None, None])
    return sum(masks[1:], masks[0]) if masks else None


def _refuses(layer: nn.Module) -> str | None:
    assert isinstance(layer, nn.MultiheadAttention)
    if layer.bias_k is not None or layer.add_zero_attn:
        return "it has a key and a value of its own (add_bias_kv, add_zero_attn)"
    if type(layer.out_proj).__mro__[1] is not nn.Linear or "forward" in vars(layer.out_proj):
        return "its output projection is not torch's own"
    own = {"in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight"}
    if set(layer._parameters) != own or set(layer.out_proj._parameters) != {"weight", "bias"}:
        return "it is pruned or reparametrised"
    return None


PIECES[nn.MultiheadAttention] = Apart(attend, _refuses)
