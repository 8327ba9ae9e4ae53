"""Minibatches that are drawn many at once from one proposal, which stands until the last of them is trained on."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.methods.proposal import Proposal
from issgd_cli.randomness import generator


def steps_of_block(config: Config, examples: int) -> int:
    """How many a block of N examples has: whole minibatches, so that a step is of one block."""
    return max(1, round(config.proposal.block * examples / config.master.minibatch_size))


class Blocks:
    """One block after the other, each of so many steps.

    Its draws are systematic or independent, as `proposal.draws` says. Systematic ones have each example as often as the
    proposal says, but for one draw: what reshuffling does for equal weights, `Proposal.draw_systematically` does for
    others. A block of one epoch covers all examples as an epoch does where minibatches divide N; else it is rounded to
    whole ones, and of N = 20,000 by 128, 19,968 draws, 32 are missing at equal weights. A part of an epoch has younger
    weights, and covers less.

    It is drawn between two steps, on the thread that trains, in O(N): an epoch of 570,000 draws takes one core 0.05 s,
    and its proposal has come before.

    A block stands, whatever is learned or read meanwhile: its factors are those of its own proposal, so each of its
    minibatches is unbiased given what its block began with.

    Attributes:
        steps: That a block has.
        next: The step that is taken next.
        until: The step that the newest block ends before; 0: there is none yet.
        proposal: Of that block.
    """

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        """Of N examples, before the first."""
        self.seed, self.size, self.device = config.seed, config.master.minibatch_size, device
        self.draws = config.proposal.draws
        self.steps = steps_of_block(config, examples)
        self.next = self.until = 0
        self.proposal = Proposal.uniform(examples)
        self._drawn = torch.zeros(0, dtype=torch.int64), torch.zeros(0)

    def draw(self, step: int, proposal: Callable[[], Proposal]) -> tuple[Tensor, Tensor]:
        """The minibatch of a step; where it begins a block, that is of what is proposed then.

        Returns:
            Indices, int64, and importance weights, float32, on the master's device, shapes (B,).
        """
        if step >= self.until:
            self._begin(step + self.steps, proposal())
        first = (step - (self.until - self.steps)) * self.size
        indices, factors = (of_block[first : first + self.size] for of_block in self._drawn)
        return indices, factors

    def _begin(self, until: int, proposal: Proposal) -> None:
        self.until, self.proposal = until, proposal
        random = generator(self.seed, "blocks", until - self.steps)
        draw = proposal.draw_systematically if self.draws == "systematic" else proposal.draw
        indices, factors = draw(random, self.steps * self.size)
        self._drawn = indices.to(self.device), factors.float().to(self.device)

    def taken(self, step: int) -> None:
        """This step has been."""
        self.next = step + 1

    def weights_or(self, following: Float64s) -> Float64s:
        """What the next minibatch is drawn in proportion to, where the next block would be to `following`."""
        return self.proposal.weights if self.next < self.until else following

    def learned(self) -> dict[str, NDArray[Any]]:
        """The block under way, from whose proposal it can be drawn again."""
        place = np.array([self.next, self.until], np.int64)
        return {"step_and_blocks_end": place, "blocks_weights": self.proposal.weights.copy()}

    def recall(self, learned: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from `learned()`.

        Raises:
            ValueError: There can be no such block.
        """
        self.next, until = learned["step_and_blocks_end"].tolist()
        weights = learned["blocks_weights"]
        if min(self.next, until, weights.min()) < 0 or not weights.any() or 0 < until < self.steps:
            raise ValueError("there can be no such block of draws")
        if until > 0:
            self._begin(until, Proposal.of(weights))
