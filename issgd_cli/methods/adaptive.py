"""Online importance sampling without its correction: biased, for comparison."""

import torch

from issgd_cli.methods import online
from issgd_cli.methods.method import Drawn, Seen


class Settings(online.Settings):
    """The configuration's [adaptive]: as [online]."""


class Adaptive(online.Online):
    """Draws as `online` does, and leaves out the factors 1 / (N p): important examples count for more.

    Bias: given the parameters and q, the expected gradient is sum_i p_i g_i, p = q / sum q, not the mean of all N: off
    by N cov(p, g), which is none where q knows nothing of g, and much where the large gradients agree with each other.
    `trace/in_use` of its audits is that of `online`: of the same draws, with their factors.

    Source: Salaun et al. 2023, "adaptive sampling".
    """

    def own_settings(self) -> Settings:
        return self.config.own(Settings)

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        drawn = super().draw(step, size)
        return Drawn(drawn.indices, torch.ones_like(drawn.factors))
