"""Looks at more examples than it trains on, by turns of the epoch, where it has found out that this pays."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.config.sections import TRAINING
from issgd_cli.config.values import Rate, Section, Share
from issgd_cli.methods.dlis import normalised
from issgd_cli.methods.method import Drawn, Needs, Seen
from issgd_cli.methods.proposal import Proposal
from issgd_cli.methods.reshuffled import Reshuffled
from issgd_cli.methods.trials import Trials
from issgd_cli.randomness import generator

MEMORY = 0.9  # a step's, of how uneven importances are
PROMISING = 0.85  # of a plain step's variance: what a look is to have to be tried
FEWEST = 8  # examples that are trained on


class Settings(Section):
    """The configuration's [looking]."""

    cost: Rate = 2.0  # plain steps' work that a step with a look may take at most
    variance: Share = 0.5  # that it is to have, of a plain step's; both ours
    uniform: Share = 0.1  # of uniform draws among what was looked at: no factor exceeds 1 / uniform


class Looking(Reshuffled):
    """Reshuffled SGD, until noise holds it up; then minibatches drawn from what was looked at. No workers, no table.

    1. Plain steps train on the next b examples of an epoch, whose order is drawn anew, as `reshuffled` does.
    2. A look is a forward pass of the epoch's next M examples, which gives their importances s = ||dL/dm||; m of them
       are trained on, drawn systematically in proportion to (1 - u) s / mean s + u, by their factors unbiased. It is
       new: no norm is stale.
    3. Of how many. With V = (E s)^2 / E s^2, the second moment of the best draws in uniform ones', the variance is
       about 1 / M + V / m, in that of one example's gradient, the work M + 3 m passes. Of one work it is least at
       m = M sqrt(V / 3), and then (1 + sqrt(3 V))^2 over the work. M is such that it is `variance` times a plain
       step's, 1 / b, unless that takes more than `cost` times a plain step's work.
    4. Whether less variance pays is tried (trials.py), once it would be less, from when the loss falls slowly: looks
       for as much work as an epoch takes. If the loss has come further down than plain epochs would have brought it,
       looks go on for good.

    Bias: in expectation over the epoch's order, at fixed parameters, a step's gradient is the mean of all N, whatever
    the sizes were made of: each is chosen before the examples that it is of are seen. Given what the epoch has shown
    it is that of those it has not, as of `reshuffled`. `trace/in_use` of its audits is that of uniform draws.

    Source: ours; looks as in Katharopoulos and Fleuret 2018, trained minibatches smaller than looks as in Jiang et al.
    2019, "Accelerating deep learning by focusing on the biggest losers", but unbiased.
    """

    needs: Needs = "outputs"

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        super().__init__(config, examples, device)
        self.settings = config.own(Settings)
        self.place = 0  # in all epochs, one after the other
        self.moments = np.zeros(3)  # running means of 1, s and s^2
        self.epoch = np.zeros(3)  # so far: examples, losses, passes
        self.trials = Trials()
        self._looked: Seen | None = None

    @property
    def unevenness(self) -> float:
        """V, from 0 to 1: the least second moment that draws could have, in that of uniform ones."""
        weight, mean, square = self.moments
        return float(mean**2 / (weight * square)) if square > 0 else 1.0

    def sizes(self, size: int) -> tuple[int, int]:
        """M and m: how many a step looks at, and how many of them it trains on."""
        fewer = math.sqrt(self.unevenness / TRAINING)  # m / M
        cost = min(self.settings.cost, self.variance_at_cost_1 / self.settings.variance)
        looked_at = cost * TRAINING * size / (1 + TRAINING * fewer)
        return round(looked_at), max(FEWEST, round(looked_at * fewer))

    @property
    def variance_at_cost_1(self) -> float:
        """Of a step with a look that takes the work of a plain one, in its variance."""
        return (1 + math.sqrt(TRAINING * self.unevenness)) ** 2 / TRAINING

    def presample(self, step: int, size: int) -> Tensor | None:
        return self.next(self.sizes(size)[0]) if self.trials.under_way else None

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        self._looked = looked
        candidates = self.presample(step, size)
        if looked is None or candidates is None:
            return Drawn(self.next(size), torch.ones(size, device=self.device))
        importances = normalised(looked.importances()).cpu().numpy() * len(candidates)
        proposal = Proposal.of((1 - self.settings.uniform) * importances + self.settings.uniform)
        places, factors = proposal.draw_systematically(generator(self.config.seed, "draws", step), self.sizes(size)[1])
        return Drawn(candidates[places.to(self.device)], factors.float().to(self.device))

    def next(self, count: int) -> Tensor:
        """The next so many examples of the epoch, and of those after it, int64, shape (count,)."""
        return torch.from_numpy(self.at(np.arange(self.place, self.place + count))).to(self.device, non_blocking=True)

    def learn(self, step: int, drawn: Drawn, seen: Seen, squared_norms: Tensor | None) -> None:
        shown = self._looked or seen  # what came by its turn of the epoch
        count, trained = len(shown.losses), len(seen.losses)
        importances, losses = shown.importances(), shown.losses.double()
        found = torch.stack([importances.mean(), importances.square().mean(), losses.sum()]).tolist()
        epoch, self.place = self.place // self.examples, self.place + count
        self.epochs = self.place / self.examples
        if not np.isfinite(found).all():
            return  # a loss that is no number ends the run at the end of its block
        self.moments = MEMORY * self.moments + (1 - MEMORY) * np.array([1.0, *found[:2]])
        passes = TRAINING * trained + (0 if self._looked is None else count)
        self.epoch += np.array([count, found[2], passes])
        if self.place // self.examples > epoch:
            examples, loss, work = self.epoch
            promises = self.variance_at_cost_1 < PROMISING * self.settings.cost
            self.trials.epoch_over(float(loss / examples), float(work / (TRAINING * examples)), promises)
            self.epoch = np.zeros(3)

    def learned(self) -> dict[str, NDArray[Any]]:
        return {
            "place": np.array(self.place, np.int64),
            "moments": self.moments.copy(),
            "epoch": self.epoch.copy(),
            "trials": self.trials.numbers(),
        }

    def recall(self, learned: Mapping[str, NDArray[Any]]) -> None:
        self.place, self.moments, self.epoch = int(learned["place"]), learned["moments"], learned["epoch"]
        count, _, passes = self.epoch  # a loss may be negative
        if (
            not min(self.place, *self.moments, count, passes) >= 0
            or not np.isfinite([*self.moments, *self.epoch]).all()
        ):
            raise ValueError("there can be no such place, moments and sums")
        self.trials = Trials.of(learned["trials"])
        self.epochs = self.place / self.examples
