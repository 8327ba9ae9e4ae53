"""LOW: uniform draws, in which examples of a large gradient count for more."""

import torch
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.config.values import Rate, Section
from issgd_cli.methods.method import Drawn, Needs, Seen
from issgd_cli.methods.sgd import SGD


class Settings(Section):
    """The configuration's [low]."""

    strength: Rate = 0.1  # lambda: how much even weights are wanted


class LOW(SGD):
    """Examples drawn as SGD does; the weights of a minibatch's losses are what solves a small quadratic programme.

    Bias: the expected gradient is not the mean of all N: weights follow the gradients, but where all are as large.
    `trace/in_use` of its audits is that of uniform draws.

    Source: Santiago et al. 2021, "LOW: Training deep neural networks by learning optimal sample weights".
    """

    needs: Needs = "outputs"

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        super().__init__(config, examples, device)
        self.strength = config.own(Settings).strength

    def weigh(self, drawn: Drawn, seen: Seen) -> Tensor:
        weights = optimal_weights(seen.importances().square(), self.strength)
        return weights.float()[None] / len(weights)


def optimal_weights(squared_norms: Tensor, strength: float) -> Tensor:
    """w >= 0, sum w = B, that minimise lambda ||w||^2 - sum (g^2 + lambda) w: max(0, g^2 / (2 lambda) + t), shape (B,).

    A projection onto the simplex: t follows from how many of the largest g^2 keep a weight.

    Args:
        squared_norms: g^2, of each loss's gradient by the outputs, float64, shape (B,).
        strength: lambda.

    Source: Santiago et al. 2021.
    """
    size = len(squared_norms)
    # Only differences matter: from the largest, so that nothing is lost to a large g^2 over a small lambda.
    slopes = (squared_norms - squared_norms.max()) / (2 * strength)
    down = slopes.sort(descending=True).values
    shifts = (size - down.cumsum(0)) / torch.arange(1, size + 1, dtype=down.dtype, device=down.device)  # t of so many
    count = int((down + shifts > 0).sum())
    return (slopes + shifts[max(0, count - 1)]).clamp_(min=0)
