"""Importance sampled SGD whose importances come from its own minibatches, without workers and without a price."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.config.values import Fraction, Rate, Section
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.methods.importances import Importances
from issgd_cli.methods.method import Drawn, Needs, Seen, epoch_of
from issgd_cli.methods.proposal import FLOOR, Proposal
from issgd_cli.methods.reshuffled import Reshuffled
from issgd_cli.methods.self_taught import SelfTaught
from issgd_cli.randomness import generator


class Settings(Section):
    """The configuration's [online]."""

    alpha: Fraction = 0.1  # how much of an importance stays when its example is seen again; the paper: 0, .1, .2, .3
    epsilon: Rate = 0.01  # added to all at every epoch's end; ours


class Online(SelfTaught):
    """Examples drawn in proportion to q, what is known of the norms of their losses' gradients by the outputs.

    1. The first epoch is reshuffled SGD, which fills q.
    2. Then p = q / sum q; minibatches are drawn by p, with replacement, with factors 1 / (N p).
    3. Each example that was drawn: q <- alpha q + (1 - alpha) ||dL/dm||, once.
    4. At every epoch's end: q <- q + epsilon, so that no example is forgotten.

    An epoch is N draws; one that ends within a minibatch ends with it. Ours: no q falls below a floor, so that every
    example can always be drawn.

    Bias: given the parameters and q, with systematic draws as the block began, the expected gradient is the mean of all
    N; in the first epoch as of `reshuffled`.

    Source: Salaun et al. 2023, algorithm 1.
    """

    needs: Needs = "outputs"

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        super().__init__(config, examples, device)
        self.settings = self.own_settings()
        self.importances = Importances(torch.zeros(examples, dtype=torch.float64, device=device))
        self.is_filled = False
        self.drawable = examples  # how many can be drawn
        self.first_epoch = Reshuffled(config, examples, device)

    def own_settings(self) -> Settings:
        """From the section of the method's name."""
        return self.config.own(Settings)

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        if not self.is_filled:
            return self.first_epoch.draw(step, size)
        if self.blocks is not None:
            return Drawn(*self.blocks.draw(step, lambda: Proposal.of(self.now())))
        places = torch.from_numpy(generator(self.config.seed, "draws", step).random(size))
        indices, inverse = self.importances.draw(places.to(self.device, non_blocking=True))
        return Drawn(indices, (inverse / self.drawable).float())  # 1 / (N p)

    def learn(self, step: int, drawn: Drawn, seen: Seen, squared_norms: Tensor | None) -> None:
        super().learn(step, drawn, seen, squared_norms)
        alpha = self.settings.alpha if self.is_filled else 0.0
        floor = FLOOR * self.settings.epsilon
        self.importances.renew(drawn.indices, self.found(seen), alpha, floor, fills=not self.is_filled)
        if (epochs := self.ended(step)) > 0:
            self.end(step, epochs)

    def found(self, seen: Seen) -> Tensor:
        """What a minibatch shows of its examples' importances, float64, shape (B,)."""
        return seen.importances()

    def ended(self, step: int) -> int:
        """How many epochs end with this step."""
        size = self.config.master.minibatch_size
        return epoch_of(step + 1, size, self.examples) - epoch_of(step, size, self.examples)

    def end(self, step: int, epochs: int) -> None:
        """So many epochs end with this step."""
        self.importances.add(epochs * self.settings.epsilon)
        self.is_filled = True

    def weights_in_use(self) -> Float64s:
        return self.now() if self.blocks is None else self.blocks.weights_or(self.now())

    def now(self) -> Float64s:
        """q, or what the first epoch draws by."""
        return self.importances.values.cpu().numpy().copy() if self.is_filled else np.ones(self.examples)

    def learned(self) -> dict[str, NDArray[Any]]:
        values = self.importances.values.cpu().numpy().copy()
        return super().learned() | {"importances": values, "is_filled": np.array(self.is_filled)}

    def recall(self, learned: Mapping[str, NDArray[Any]]) -> None:
        super().recall(learned)
        values = learned["importances"]
        if values.min() < 0 or (learned["is_filled"] and not values.sum(-1).min() > 0):
            raise ValueError("its importances define no proposal")
        self.importances = Importances(torch.from_numpy(values).to(self.device))
        self.is_filled = bool(learned["is_filled"])
