"""A model's copy that computes in bfloat16, for workers whose hardware is much faster at it.

Its gradient norms are good enough for a proposal (off by a percent or so); what it costs in variance is measured by
`make bench`. The last layer and the softmax stay in float32: a confident example's tiny gradient needs them.
"""

import torch
from torch import Tensor, nn

from issgd_cli.errors import LayerError


class Reduced(nn.Module):
    """Linear layers in bfloat16 but for the last, and the activations between."""

    def __init__(self, model: nn.Module) -> None:
        """A copy of this model's shape, on its device, without its parameters yet: `load` brings them."""
        super().__init__()
        if not isinstance(model, nn.Sequential) or any(type(layer) not in (nn.Linear, nn.ReLU) for layer in model):
            raise LayerError("worker.precision = 'bfloat16' is for multi-layer perceptrons alone. Use 'float32'.")
        *lower, last = [_like(layer) for layer in model]
        self.lower = nn.Sequential(*lower).bfloat16()
        self.last = last

    def load(self, model: nn.Module) -> None:
        """Casts the model's parameters into this copy: once per version, not once per chunk."""
        with torch.no_grad():
            for own, given in zip(self.parameters(), model.parameters(), strict=True):
                own.copy_(given)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, float32, of inputs of shape (B, ...)."""
        logits: Tensor = self.last(self.lower(inputs.flatten(1).bfloat16()).float())
        return logits


def _like(layer: nn.Module) -> nn.Module:
    """A layer of the same shape: torch's own copy would copy the parameters too, views of a flat vector here."""
    if isinstance(layer, nn.Linear):
        weight = layer.weight
        return nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device=weight.device)
    return type(layer)()
