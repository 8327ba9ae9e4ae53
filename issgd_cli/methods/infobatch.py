"""InfoBatch: epochs in which examples of small loss are left out at random, and the others of them count for more."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.config.values import Decay, Fraction, Section
from issgd_cli.errors import ConfigError
from issgd_cli.methods.method import Drawn, Method, Seen
from issgd_cli.methods.proposal import Proposal
from issgd_cli.methods.table import Float32s
from issgd_cli.randomness import generator


class Settings(Section):
    """The configuration's [infobatch]."""

    drop: Decay = 0.5  # r: the chance of an example below the mean to be left out
    until: Fraction = 0.875  # of the steps; from then on all examples are trained on


class InfoBatch(Method):
    """Reshuffled epochs of those examples that were not left out.

    1. An epoch begins: each example whose last loss is below the mean is left out with chance r; if it stays, its loss
       counts 1 / (1 - r) times.
    2. The others come once, in a random order; the epoch's last minibatch holds what is left of them.
    3. In the first epoch, and after so much of the training, none is left out.

    Every minibatch is divided by the size that was asked for, the short one too.

    Bias: given the losses that an epoch begins with, the sum of its gradients at fixed parameters is in expectation
    that of all N. A step alone has no such promise, as in `reshuffled`, nor has the mean over those that stayed.
    `trace/in_use` of its audits is that of uniform draws.

    Source: Qin et al. 2024, "InfoBatch: Lossless training speed up by unbiased dynamic data pruning".
    """

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        """Raises ConfigError where nobody knows when it has to stop leaving out."""
        super().__init__(config, examples, device)
        self.settings = config.own(Settings)
        self.most_steps = config.master.most_steps
        if self.most_steps is None and self.settings.until < 1:
            raise ConfigError(
                "infobatch.until is a fraction of all steps, of which nobody says how many they are. Set master.steps "
                "or master.work, or infobatch.until = 1 to leave examples out to the end."
            )
        self.losses = np.zeros(examples, np.float32)
        self.epoch, self.began = 0, 0  # which, and at what step
        self.factors = np.ones(examples, np.float32)  # of this epoch, 0: left out
        self.order = self._order()

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        first = (step - self.began) * size
        indices = self.order[first : first + size]
        factors = torch.from_numpy(self.factors[indices])
        return Drawn(torch.from_numpy(indices).to(self.device), factors.to(self.device))

    def weigh(self, drawn: Drawn, seen: Seen) -> Tensor:
        return drawn.factors[None] / self.config.master.minibatch_size

    def learn(self, step: int, drawn: Drawn, seen: Seen, squared_norms: Tensor | None) -> None:
        losses, indices = seen.losses.float().cpu().numpy(), drawn.indices.cpu().numpy()
        known = np.isfinite(losses)  # one that is no number ends the run at the end of its block
        self.losses[indices[known]] = losses[known]
        if (step + 1 - self.began) * self.config.master.minibatch_size >= len(self.order):
            self.begin(step + 1)

    def begin(self, step: int) -> None:
        """The next epoch, at this step."""
        self.epoch, self.began = self.epoch + 1, step
        self.factors = np.ones(self.examples, np.float32)
        if step < self.settings.until * (self.most_steps or np.inf):
            mean = self.losses.mean(dtype=np.float64)
            low = self.losses < min(mean, self.losses.max())  # never all of them, however the mean is rounded
            left_out = generator(self.config.seed, "pruning", self.epoch).random(self.examples) < self.settings.drop
            self.factors[low] = 1 / (1 - self.settings.drop)
            self.factors[low & left_out] = 0
        self.order = self._order()

    def _order(self) -> NDArray[np.int64]:
        order = generator(self.config.seed, "reshuffling", self.epoch).permutation(self.examples)
        return order[self.factors[order] > 0]

    def propose(self, norms: Float32s, usable: NDArray[np.bool_], constant: float) -> Proposal:
        return Proposal.uniform(usable.size)

    def learned(self) -> dict[str, NDArray[Any]]:
        place = np.array([self.epoch, self.began], np.int64)
        return {"losses": self.losses.copy(), "factors": self.factors.copy(), "epoch_and_its_step": place}

    def recall(self, learned: Mapping[str, NDArray[Any]]) -> None:
        self.losses, self.factors = learned["losses"], learned["factors"]
        self.epoch, self.began = learned["epoch_and_its_step"].tolist()
        if min(self.factors.min(), self.losses.min()) < 0 or not self.factors.any() or min(self.epoch, self.began) < 0:
            raise ValueError("its epoch holds no examples")
        self.order = self._order()
