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
       step's, 1 / b, unless that takes more than `cost` times a plain step's work. (Below V = 0.18 that is less than
       a larger minibatch of the same work has, by this count, which leaves out that the epoch comes by turns.)
    4. Whether less variance pays is tried (trials.py), once it would be less, from when the loss falls slowly: looks
       for as much work as an epoch takes. If the loss has come well below where plain epochs would have brought it,
       looks go on for good. Losses are those of what is trained on, weighted, so that both are of one kind.

    Bias: a minibatch's expected gradient, given what was looked at, is the mean of that. What is looked at is the next
    of the epoch: given what the epoch has shown, in expectation the mean of those it has not, as of `reshuffled`; over
    its orders the mean of all N, whatever the sizes were made of, since they are chosen before. Not of a step that may
    reach over the epoch's end, whose part in the next then depends on what was seen. `trace/in_use` of its audits is
    that of uniform draws.

    With a schedule, a fall of the learning rate within a trial makes it succeed.

    Source: ours; looks as in Katharopoulos and Fleuret 2018, trained minibatches smaller than looks as in Jiang et al.
    2019, "Accelerating deep learning by focusing on the biggest losers", but unbiased.
    """

    needs: Needs = "outputs"

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        super().__init__(config, examples, device)
        self.settings = config.own(Settings)
        self.place, self.epochs = 0, 0.0  # in all epochs, one after the other
        self.passes = 0.0  # in this epoch
        # On the device, which nobody waits for at a plain step: running means of 1, s and s^2; and of this epoch how
        # many examples, and their losses.
        self.moments = torch.zeros(3, dtype=torch.float64, device=device)
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)
        self.trials = Trials()
        self._looked: Seen | None = None

    @property
    def unevenness(self) -> float:
        """V, from 0 to 1: the least second moment that draws could have, in that of uniform ones."""
        weight, mean, square = self.moments.tolist()
        return float(mean**2 / (weight * square)) if square > 0 else 1.0

    def sizes(self, size: int) -> tuple[int, int]:
        """M and m: how many a step looks at, and how many of them it trains on."""
        unevenness = self.unevenness
        fewer = math.sqrt(unevenness / TRAINING)  # m / M
        cost = min(self.settings.cost, variance_at_cost_1(unevenness) / self.settings.variance)
        looked_at = cost * TRAINING * size / (1 + TRAINING * fewer)
        trained = max(min(FEWEST, size), round(looked_at * fewer))
        return max(trained, round(looked_at)), trained

    def presample(self, step: int, size: int) -> Tensor | None:
        return self.next(self.sizes(size)[0]) if self.trials.under_way else None

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        self._looked = looked
        if looked is None:
            return Drawn(self.next(size), torch.ones(size, device=self.device))
        candidates, trained = self.next(len(looked.losses)), self.sizes(size)[1]
        importances = normalised(looked.importances()).cpu().numpy() * len(candidates)
        proposal = Proposal.of((1 - self.settings.uniform) * importances + self.settings.uniform)
        places, factors = proposal.draw_systematically(generator(self.config.seed, "draws", step), trained)
        return Drawn(candidates[places.to(self.device)], factors.float().to(self.device))

    def next(self, count: int) -> Tensor:
        """The next so many examples of the epoch, and of those after it, int64, shape (count,)."""
        return torch.from_numpy(self.at(np.arange(self.place, self.place + count))).to(self.device, non_blocking=True)

    def learn(self, step: int, drawn: Drawn, seen: Seen, squared_norms: Tensor | None) -> None:
        shown = self._looked or seen  # what came by its turn of the epoch
        count, trained = len(shown.losses), len(seen.losses)
        self.passes += TRAINING * trained + (0 if self._looked is None else count)
        importances, loss = shown.importances(), (drawn.factors.double() * seen.losses.double()).mean()
        found = torch.stack([torch.ones_like(loss), importances.mean(), importances.square().mean(), loss])
        # Else the run ends at the end of its block, or a look was at what isn't trained on.
        known = found.isfinite().all()
        self.moments = torch.where(known, MEMORY * self.moments + (1 - MEMORY) * found[:3], self.moments)
        self.sums += torch.where(known, count * found[[0, 3]], 0.0)
        epoch, self.place = self.place // self.examples, self.place + count
        self.epochs = self.place / self.examples
        if self.place // self.examples > epoch:
            self._epoch_over()

    def _epoch_over(self) -> None:
        examples, losses = self.sums.tolist()
        promises = variance_at_cost_1(self.unevenness) < PROMISING * self.settings.cost
        if examples:
            self.trials.epoch_over(losses / examples, self.passes / (TRAINING * self.examples), promises)
        self.sums, self.passes = torch.zeros_like(self.sums), 0.0

    def learned(self) -> dict[str, NDArray[Any]]:
        return {
            "place": np.array(self.place, np.int64),
            "passes": np.array(self.passes),
            "moments": self.moments.cpu().numpy().copy(),
            "sums": self.sums.cpu().numpy().copy(),
            "trials": self.trials.numbers(),
        }

    def recall(self, learned: Mapping[str, NDArray[Any]]) -> None:
        self.place, self.passes = int(learned["place"]), float(learned["passes"])
        moments, sums = learned["moments"], learned["sums"]
        # A loss may be negative.
        if not min(self.place, self.passes, *moments, sums[0]) >= 0 or not np.isfinite([*moments, *sums]).all():
            raise ValueError("there can be no such place, moments and sums")
        self.moments, self.sums = (torch.from_numpy(each.copy()).to(self.device) for each in (moments, sums))
        self.trials = Trials.of(learned["trials"])
        self.epochs = self.place / self.examples


def variance_at_cost_1(unevenness: float) -> float:
    """Of a step with a look that takes the work of a plain one, in its variance; see `Looking`, 3."""
    return (1 + math.sqrt(TRAINING * unevenness)) ** 2 / TRAINING
