"""DLIS: minibatches resampled by importance from a larger uniform one that is looked at before, where it pays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.config.values import Decay, Positive, Rate, Section
from issgd_cli.methods.method import Drawn, Needs, Seen
from issgd_cli.methods.sgd import SGD
from issgd_cli.randomness import generator


class Settings(Section):
    """The configuration's [dlis]."""

    presample: Positive = 3  # minibatches that are looked at for one that is trained on
    smoothing: Decay = 0.9  # of the running mean of the gain
    # What the gain must exceed; None: (B + 3 b) / (3 b) of a presample of B and minibatches of b, where looking pays.
    threshold: Rate | None = None


class DLIS(SGD):
    """SGD, until the importances differ so much that it pays to look at more examples than are trained on.

    1. While the gain is at most the threshold: a uniform minibatch.
    2. Else: B = 3 b uniform examples are looked at; g are their ||dL/dm||, normalised; b of them are drawn by g, with
       replacement, with factors 1 / (B g).
    3. The gain is a running mean of 1 / sqrt(1 - sum (g - u)^2 / sum g^2), u uniform, of what was looked at, or of the
       minibatch where nothing was.

    The paper's bound through the last layer, which multiplies ||dL/dm||, is the same for all examples: it cancels in g.

    Bias: given the parameters and the gain, the expected gradient is the mean of all N: a presample's mean gradient is
    unbiased, and its minibatch is for that. `trace/in_use` of its audits is that of uniform draws.

    Source: Katharopoulos and Fleuret 2018, algorithm 1.
    """

    needs: Needs = "outputs"

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        super().__init__(config, examples, device)
        self.settings = config.own(Settings)
        self.gain = 0.0
        at_least = (self.settings.presample + 3) / 3
        self.threshold = at_least if self.settings.threshold is None else self.settings.threshold
        self._looked: Seen | None = None

    def presample(self, step: int, size: int) -> Tensor | None:
        if self.gain <= self.threshold:
            return None
        random = generator(self.config.seed, "presample", step)
        return torch.from_numpy(random.integers(self.examples, size=self.settings.presample * size)).to(self.device)

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        self._looked = looked
        candidates = self.presample(step, size)
        if looked is None or candidates is None:
            return super().draw(step, size)
        chances = normalised(looked.importances())
        ends = chances.cumsum(0)
        places = torch.from_numpy(generator(self.config.seed, "draws", step).random(size)).to(self.device) * ends[-1]
        # As in Proposal.draw: never one of no chance.
        drawn = torch.searchsorted(ends, places, right=True).clamp_(max=torch.searchsorted(ends, ends[-1]))
        return Drawn(candidates[drawn], (1 / (len(chances) * chances[drawn])).float())

    def learn(self, step: int, drawn: Drawn, seen: Seen, squared_norms: Tensor | None) -> None:
        now = gain(normalised((self._looked or seen).importances()))
        self.gain = self.settings.smoothing * self.gain + (1 - self.settings.smoothing) * now

    def learned(self) -> dict[str, NDArray[Any]]:
        return {"gain": np.array(self.gain)}

    def recall(self, learned: Mapping[str, NDArray[Any]]) -> None:
        self.gain = float(learned["gain"])
        if self.gain < 0:
            raise ValueError("its gain is negative")


def normalised(importances: Tensor) -> Tensor:
    """To sum 1; uniform where all are 0, or one is no number: a loss that is none ends the run at its block's end."""
    total = importances.sum()
    uniform = torch.full_like(importances, 1 / len(importances))
    return torch.where((total > 0) & total.isfinite(), importances / total, uniform)


def gain(chances: Tensor) -> float:
    """By how much the variance of minibatches drawn so is that of larger uniform ones, from 1 on.

    1 / sqrt(1 - sum (g - u)^2 / sum g^2): as sum (g - u)^2 = sum g^2 - 1 / B, it is sqrt(B sum g^2).

    Source: Katharopoulos and Fleuret 2018, eq. 26.
    """
    return float((len(chances) * chances.square().sum()).sqrt())
