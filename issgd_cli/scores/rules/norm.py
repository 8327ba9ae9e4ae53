"""Normalisations: a scale and a shift of what was normalised, each example by itself."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from issgd_cli.scores.rules.rule import PARAMETERS, require_axes, reservation, squared_norms
from issgd_cli.scores.rules.slices import in_slices, numbers_each, wide

for _kind in (
    *(nn.LayerNorm, nn.GroupNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
):
    PARAMETERS[_kind] = frozenset({"weight", "bias"})
PARAMETERS[nn.RMSNorm] = frozenset({"weight"})


@squared_norms.register
def _(layer: nn.LayerNorm | nn.RMSNorm, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """||sum_t xhat_t delta_t||^2 for the weights, xhat what they scale; ||sum_t delta_t||^2 for the bias."""
    axes = len(layer.normalized_shape)
    require_axes(layer, inputs, 1 + axes)

    def normalised(inputs: Tensor) -> Tensor:
        if isinstance(layer, nn.RMSNorm):
            return functional.rms_norm(inputs, layer.normalized_shape, None, layer.eps)
        return functional.layer_norm(inputs, layer.normalized_shape, None, None, layer.eps)

    def over_positions(values: Tensor) -> Tensor:
        return values.unsqueeze(1).flatten(1, -axes - 1).sum(1)

    return _norms2(layer, normalised, over_positions, inputs, output_gradients)


@squared_norms.register
def _(layer: nn.GroupNorm, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """As LayerNorm's; the weights are the channels'."""
    require_axes(layer, inputs, 2)

    def normalised(inputs: Tensor) -> Tensor:
        # Not functional's, which refuses groups of one value where they come with one example.
        return torch.group_norm(inputs, layer.num_groups, eps=layer.eps)

    return _norms2(layer, normalised, _over_channels, inputs, output_gradients)


@squared_norms.register
def _(
    layer: nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d, inputs: Tensor, output_gradients: Tensor
) -> Tensor:
    """As GroupNorm's."""
    axes = layer._get_no_batch_dim() + 1
    require_axes(layer, inputs, axes, axes)

    def normalised(inputs: Tensor) -> Tensor:
        if layer.training or layer.running_mean is None:
            return functional.instance_norm(inputs, eps=layer.eps)
        return _by_running(layer, inputs)

    return _norms2(layer, normalised, _over_channels, inputs, output_gradients)


@squared_norms.register
def _(layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """As GroupNorm's, by the running statistics."""
    require_axes(layer, inputs, 2)
    return _norms2(layer, lambda inputs: _by_running(layer, inputs), _over_channels, inputs, output_gradients)


@reservation.register
def _(layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> str | None:
    if layer.training or layer.running_mean is None:
        return "mixes the examples of a minibatch, so no example has a gradient of its own"
    return None


def _by_running(layer: nn.modules.batchnorm._NormBase, inputs: Tensor) -> Tensor:
    """The inputs, of shape (B, C, ...), by the layer's running statistics."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    shape = (-1, *[1] * (inputs.dim() - 2))
    mean, variance = (each.to(inputs.dtype).view(shape) for each in (layer.running_mean, layer.running_var))
    return (inputs - mean) * (variance + layer.eps).rsqrt()


def _over_channels(values: Tensor) -> Tensor:
    """Sums over the positions of each channel, shape (B, C), of (B, C, ...)."""
    return values.unsqueeze(-1).flatten(2).sum(2)


def _norms2(
    layer: nn.Module,
    normalised: Callable[[Tensor], Tensor],
    over_positions: Callable[[Tensor], Tensor],
    inputs: Tensor,
    deltas: Tensor,
) -> Tensor:
    """Of weights that scale what is normalised and of a bias, if there is one, shape (B,)."""
    if getattr(layer, "weight", None) is None:
        return deltas.new_zeros(len(deltas), dtype=wide(inputs, deltas))

    def norms2(inputs: Tensor, deltas: Tensor) -> Tensor:
        found = over_positions(normalised(inputs) * deltas).flatten(1).square().sum(1)
        if getattr(layer, "bias", None) is not None:
            found += over_positions(deltas).flatten(1).square().sum(1)
        return found

    return in_slices(norms2, inputs, deltas, numbers_each(inputs))
