"""Multiple importance sampling: a minibatch drawn by several proposals, one for each of the network's outputs."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.config.values import Positive
from issgd_cli.equations import salaun2024
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import ConfigError
from issgd_cli.methods import online
from issgd_cli.methods.importances import Importances
from issgd_cli.methods.method import Drawn, Seen
from issgd_cli.randomness import generator


class Settings(online.Settings):
    """The configuration's [mis]: as [online], and these."""

    proposals: Positive = 3  # J
    counts: tuple[Positive, ...] = ()  # n_j, which make the minibatch; none: as even as can be
    # What J proposals are for, where there are more outputs than these: each for a share of all, as even as can be; or
    # for the first J alone. All is ours: who has a gradient by the others only would have next to no chance.
    outputs: Literal["all", "first"] = "all"


class Multiple(online.Online):
    """Examples drawn by J proposals, p_j in proportion to q_j, what is known of |dL/dm_j| of output j.

    1. The first epoch is reshuffled SGD, which fills all q_j.
    2. Then n_j examples of a minibatch are drawn by p_j = q_j / sum q_j, with replacement; n_j differ by one at most,
       or are `counts`.
    3. All of them have factors M / (N S), S(i) = sum_k n_k p_k(i), whoever has drawn them: the balance heuristic.
    4. q_j move and rise as in `online`, for every j of each example that was drawn.

    Of a network with fewer outputs than J that tells what its last layer is given, as a polynomial of its powers, it is
    the gradients by that layer's weights: |dL/dm| |x|^j. (Ours.)

    Bias: given the parameters and all q_j, the expected gradient is the mean of all N; in the first epoch as of
    `reshuffled`. `trace/in_use` of its audits is by its own formula, that of draws of fixed numbers.

    Source: Salaun et al. 2024, multiple importance sampling with the balance heuristic.
    """

    settings: Settings

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        """Raises ConfigError where a minibatch is too small for a draw of each proposal, or not of as many as asked."""
        super().__init__(config, examples, device)
        self.count, size = self.settings.proposals, config.master.minibatch_size
        if self.count > size:
            raise ConfigError(
                f"{config.proposal.method}.proposals = {self.count} is more than master.minibatch_size = {size}, of "
                "which each draws one at least. Lower the one or raise the other."
            )
        if self.settings.counts and (len(self.settings.counts), sum(self.settings.counts)) != (self.count, size):
            raise ConfigError(
                f"{config.proposal.method}.counts = {list(self.settings.counts)} must be {self.count} numbers, one for "
                f"each proposal, that make a minibatch of {size}; they make {sum(self.settings.counts)}."
            )
        self.importances = Importances(torch.zeros((self.count, examples), dtype=torch.float64, device=device))

    def own_settings(self) -> Settings:
        return self.config.own(Settings)

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        if not self.is_filled:
            return self.first_epoch.draw(step, size)
        places = torch.from_numpy(generator(self.config.seed, "draws", step).random(size))
        by_proposal = torch.split(places.to(self.device, non_blocking=True), self.by_proposal(size))
        indices = torch.cat([self.importances.draw(own, number)[0] for number, own in enumerate(by_proposal)])
        mixture = salaun2024.mixture(self.importances.chances(indices), self.counts(size))
        return Drawn(indices, (size * salaun2024.balance_factors(mixture, self.examples)).float())

    def by_proposal(self, size: int) -> list[int]:
        """n_j of a minibatch."""
        return list(self.settings.counts) or salaun2024.counts(size, self.count)

    def counts(self, size: int) -> Tensor:
        """The same, float64, shape (J,)."""
        return torch.tensor(self.by_proposal(size), dtype=torch.float64, device=self.device)

    def found(self, seen: Seen) -> Tensor:
        """|dL/dm_j|, of several outputs the norm, float64, shape (J, B).

        Raises:
            ConfigError: There are more proposals than outputs.
        """
        gradients = seen.output_gradients()  # (B, K)
        if gradients.shape[1] < self.count and seen.last_inputs is not None:
            gradients = (gradients[:, :, None] * seen.last_inputs[:, None]).flatten(1)  # by the last layer's weights
        if gradients.shape[1] < self.count:
            name = f"{self.config.proposal.method}.proposals"
            raise ConfigError(
                f"{name} = {self.count} is more than the network's {gradients.shape[1]} outputs, and each proposal is "
                f"for one at least. Set {name} = {gradients.shape[1]} or lower."
            )
        if self.settings.outputs == "first":
            gradients = gradients[:, : self.count]
        parts = gradients.tensor_split(self.count, dim=1)
        return torch.stack([torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in parts])

    def weights_in_use(self) -> Float64s:
        """S of all N: of which a minibatch is on average."""
        if not self.is_filled:
            return np.ones(self.examples)
        mixture = salaun2024.mixture(self.importances.chances(), self.counts(self.config.master.minibatch_size))
        return mixture.cpu().numpy()
