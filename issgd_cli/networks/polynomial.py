"""A polynomial of one number: linear in its coefficients.

Source: Salaun et al. 2024, figure 2: order 6 on [-2, 2].
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from issgd_cli.config.values import Layers, Section
from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes, initial

if TYPE_CHECKING:
    from issgd_cli.config.config import Config


class Settings(Section):
    """The section [polynomial]."""

    order: Layers = 6


class PolynomialModel(nn.Module):
    """m_0 + m_1 x + ... + m_order x^order."""

    def __init__(self, order: int, outputs: int) -> None:
        """So many polynomials of the same number."""
        super().__init__()
        self.order = order
        self.coefficients = nn.Linear(order + 1, outputs, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Numbers, shape (B,) or (B, 1), to outputs, shape (B, outputs)."""
        outputs: Tensor = self.coefficients(self.last_inputs(inputs))
        return outputs

    def last_inputs(self, inputs: Tensor) -> Tensor:
        """The powers of these numbers, shape (B, order + 1)."""
        x = inputs.reshape(-1, 1)
        return torch.cat([x**power for power in range(self.order + 1)], 1)


class Polynomial:
    """The network as a configuration describes it."""

    def __init__(self, config: "Config", sizes: Sizes) -> None:
        """Of the section [polynomial].

        Raises:
            ConfigError: An example is more than one number.
        """
        self.settings, self.sizes = config.own(Settings), sizes
        if sizes.tokens or math.prod(sizes.shape) != 1:
            raise ConfigError(
                f"model.network = 'polynomial' is of one number; the examples are {sizes.described}. Use 'mlp'."
            )

    def build(self) -> nn.Module:
        return PolynomialModel(self.settings.order, self.sizes.outputs)

    def initialise(self, model: nn.Module, seed: int) -> None:
        initial.initialise(model, seed)
