"""Optimal multiple importance sampling: what several proposals have drawn, put together by a linear system."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.config.values import Decay, Ridge
from issgd_cli.equations import salaun2024
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.methods import multiple
from issgd_cli.methods.method import Drawn, Gradient, Seen


class Settings(multiple.Settings):
    """The configuration's [omis]: as [mis], and these."""

    beta: Decay = 0.7  # how much of A and b stays from minibatch to minibatch
    ridge: Ridge = 0.01  # of A's mean diagonal; ours, see salaun2024.multipliers
    # Whether a is of the same draws, as the paper's; or of those before, ours: a control variate.
    correction: Literal["none", "unbiased"] = "none"


class Optimal(multiple.Multiple):
    """Draws as `mis` does, and weighs what was drawn otherwise.

    1. The first epoch is reshuffled SGD, as there.
    2. A <- beta A + (1 - beta) sum_i W(i) W(i)^T over a minibatch, W_j = p_j / S, shape (J, J).
    3. b_j <- beta b_j + (1 - beta) sum_i g_i W_j(i) / S(i): J gradients, each of losses weighted otherwise.
    4. A a = b; the gradient is sum_j a_j / N. It is a sum of b's rows, of J numbers that A alone tells.

    Both are means over the minibatches so far while these are few. (Ours: in A^-1 b it cancels, but for the ridge.) For
    beta = 0 nothing is kept, and one backward pass does.

    Bias: with A of all N it is the balance heuristic of `mis`, so that what is gained comes from A of few draws, and so
    does a bias, at any beta: a ratio estimator's, which more draws or a ridge make smaller; and for beta > 0 b lags
    behind the parameters, as momentum does. With `correction = "unbiased"` a is of the minibatches before this one, and
    the gradient sum_j a_j + sum_i (g_i - sum_j a_j p_j(i)) / S(i), over N: given the parameters, all q_j and a, its
    expectation is the mean of all N. In the first epoch as of `reshuffled`. `trace/in_use` of its audits is by Monte
    Carlo: see actors/several.py.

    Source: Salaun et al. 2024, algorithm 2; the correction is ours.
    """

    settings: Settings

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        super().__init__(config, examples, device)
        self.is_corrected = self.settings.correction == "unbiased"
        if self.settings.beta > 0 or self.is_corrected:
            self.remembers, self.needs = self.count, "rows"  # b
        self.forget(0)
        self._shares: Float64s | None = None  # W of the minibatch under way, shape (J, B)

    def own_settings(self) -> Settings:
        return self.config.own(Settings)

    def weigh(self, drawn: Drawn, seen: Seen) -> Tensor:
        """Rows J n_j W_j / (S N), shape (J, B), whose mean is the balance heuristic; for beta = 0, the one of them."""
        if not self.is_filled:
            self._shares = None
            return super().weigh(drawn, seen)
        chances = self.importances.chances(drawn.indices).cpu().numpy()  # (J, B)
        n = np.array(self.by_proposal(len(drawn.indices)), np.float64)
        mixture = salaun2024.mixture(chances, n)
        self._shares = shares = salaun2024.shares(chances, mixture)
        if self.remembers:
            rows = (self.count * n)[:, None] * shares / mixture
        else:
            w = salaun2024.multipliers(salaun2024.sampled_matrix(shares), n, self.settings.ridge)
            rows = salaun2024.coefficients(w, shares, mixture)[None]
        return torch.from_numpy(rows / self.examples).float().to(self.device)

    def combine(self, gradients: Gradient) -> Gradient:
        if self._shares is None or not self.remembers:
            return super().combine(gradients)
        n = np.array(self.by_proposal(self._shares.shape[1]), np.float64)
        unit, ridge = 1 / (self.count * n), self.settings.ridge  # b is kept times J n_j
        direction = torch.zeros_like(self.remembered[0])  # (T,)
        parts = _parts(direction, [part.shape[1:] for part in gradients])
        if self.is_corrected:
            for part, new in zip(parts, gradients, strict=True):
                torch.mean(new, 0, out=part)
            if self.minibatches:
                factors = unit * salaun2024.solution(self.matrix, salaun2024.residual(self._shares), ridge)
                _add(direction, factors, self.remembered)
        self._take_in(self._shares, gradients)
        if not self.is_corrected:
            _add(direction, unit * salaun2024.multipliers(self.matrix, n, ridge), self.remembered)
        return parts

    def _take_in(self, shares: Float64s, gradients: Gradient) -> None:
        """A and b of one minibatch more."""
        beta = self.settings.beta
        rate = (1 - beta) / (1 - beta ** (self.minibatches + 1))
        self.matrix += rate * (salaun2024.sampled_matrix(shares) - self.matrix)
        for old, new in zip(_parts(self.remembered, [part.shape for part in gradients]), gradients, strict=True):
            old.lerp_(new, rate)
        self.minibatches += 1

    def forget(self, numbers: int) -> None:
        """Begins anew, with room for gradients of so many numbers, T."""
        self.matrix, self.minibatches = np.zeros((self.count, self.count)), 0
        self.remembered = torch.zeros((self.remembers, numbers), device=self.device)

    def learned(self) -> dict[str, NDArray[Any]]:
        return {**super().learned(), "matrix": self.matrix.copy(), "minibatches": np.array(self.minibatches)}

    def recall(self, learned: Mapping[str, NDArray[Any]]) -> None:
        super().recall(learned)
        self.matrix, self.minibatches = learned["matrix"].copy(), int(learned["minibatches"])
        if self.minibatches < 0 or self.matrix.diagonal().min() < 0 or (self.matrix != self.matrix.T).any():
            raise ValueError("its matrix is of no minibatches")


def _parts(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """Views of flat vectors, shape (T,) or (J, T), in these shapes, whose numbers follow each other."""
    sizes = [shape.numel() // max(1, flat.numel() // flat.shape[-1]) for shape in shapes]
    return [part.view(shape) for part, shape in zip(torch.split(flat, sizes, dim=-1), shapes, strict=True)]


def _add(found: Tensor, factors: Float64s, rows: Tensor) -> None:
    """Adds so many times each row, shape (J, T), in place: faster than a product of so few rows."""
    for factor, row in zip(factors.tolist(), rows, strict=True):
        found.add_(row, alpha=factor)
