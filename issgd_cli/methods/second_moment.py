"""Importance sampled SGD by how large a gradient is to be expected now, which its own minibatches teach it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.config.values import Fraction, Rate, Section, Share
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.methods.blocks import Blocks
from issgd_cli.methods.drift import UNIFORM, Drift, with_uniform
from issgd_cli.methods.method import Drawn, Needs, Refreshed, Seen
from issgd_cli.methods.proposal import Proposal
from issgd_cli.methods.reshuffled import Reshuffled
from issgd_cli.methods.self_taught import SelfTaught
from issgd_cli.methods.table import Table


class Settings(Section):
    """The configuration's [second-moment]."""

    # Of uniform draws in the proposal: no factor exceeds 1 / uniform, however wrong the table is; ours.
    uniform: Share = UNIFORM
    memory: Rate = 1.0  # epochs after which a pair of norms counts 1 / e; ours
    rate_power: Fraction = 0.0  # the learning rate is multiplied by (n_eff / n)^rate_power; see `SecondMoment`, 4
    # A control of that: draws stay reshuffled, and the rate alone is what the proposal would have it be.
    rate_alone: bool = False


class SecondMoment(SelfTaught):
    """Examples drawn in proportion to sqrt(E[||g||^2 | their last norm, its age]); no workers.

    1. The first epoch is reshuffled, and gives each example a norm, which comes with the backward pass.
    2. Then by blocks (blocks.py). Before each, the block that is over is taken in: each of its draws is a pair, of the
       norm that its example had in the table and the one that it has brought; from these w(norm, age) is learned
       (drift.py), and the table gets the new norms.
    3. The block is drawn by q_i = (1 - u) w_i / sum w + u / N, with each norm's age in the middle of the block. w is
       the best there is if it is right, and u costs then at most a factor 1 / (1 - u) of the second moment (0.3 costs
       2 to 10% on synthetic tables: drift.py); where it is wrong, since a step has changed all, factors stay within
       1 / u, and the second moment within that of uniform draws times 1 / u.

    4. A minibatch of n of its draws is worth n_eff = n E_uniform ||g||^2 / E_q ||g / (N q)||^2 uniform ones, by what w
       foretells. With `rate_power` p its step is (n_eff / n)^p times as long as the learning rate r says. The
       noise of a step has the variance r^2 Tr(Sigma) / n_eff, which p = 1/2 leaves what it is with uniform draws; the
       loss that noise holds up goes with r / n_eff, which p = 1 leaves. Nothing else bounds the factor: where a few
       norms are far above the others it has been 12, and steps so long may be more than the loss's curvature bears.

    A block costs O(N), all of it between two steps, on the thread that trains: one core takes 7 ms to fit w, and at
    N = 570,000 0.1 to 0.2 s to weigh all examples and draw a block. A step of its own costs that it keeps its norms.

    Bias: given the parameters and what its block began with, the expected gradient is the mean of all N; in the first
    epoch, and with `rate_alone` in all, as of `reshuffled`.

    Source: ours; of 4, the scaling of learning rates with minibatches by their square root, as in Hoffer et al. 2017,
    "Train longer, generalize better", and linearly, as in Goyal et al. 2017, "Accurate, large minibatch SGD".
    """

    needs: Needs = "norms"
    blocks: Blocks

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        super().__init__(config, examples, device)
        self.settings = config.own(Settings)
        self.blocks = Blocks(config, examples, device)
        self.reshuffled = Reshuffled(config, examples, device)
        self.first_steps = -(-examples // config.master.minibatch_size)
        self.norms = np.zeros(examples, np.float32)
        self.seen = np.zeros(examples, np.int64)  # how many steps were taken when it was trained on; 0: never
        self.rate, self.rate_until = 1.0, 0  # what the learning rate is multiplied by, in the block that ends there
        self.told_rate = 1.0
        self.drift = Drift.none()
        self.pending: list[tuple[Tensor, Tensor]] = []  # indices and norms of the last steps, not taken in yet

    def adopt(self, refreshed: Refreshed) -> None:
        self.in_use = refreshed  # told of, not drawn from

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        if step < self.first_steps:
            return self.reshuffled.draw(step, size)
        indices, factors = self.blocks.draw(step, lambda: self.proposal)
        if self.rate_until != self.blocks.until:
            self.rate_it()
        if self.settings.rate_alone:
            return self.reshuffled.draw(step, size)._replace(rate=self.rate)
        return Drawn(indices, factors, self.rate)

    def rate_it(self) -> None:
        """Finds the rate of the block under way, or of that before the first, in O(N)."""
        gain = effective_size(self.blocks.proposal.weights, self.settings.uniform)
        self.rate, self.rate_until = gain**self.settings.rate_power, self.blocks.until

    def settle(self, version: int, seconds: float) -> None:
        super().settle(version, seconds)
        self.told_rate = self.rate

    def refreshed(self, table: Table) -> Refreshed:
        found = super().refreshed(table)
        return replace(found, values={**found.values, "proposal/rate": self.told_rate})

    def weights_in_use(self) -> Float64s:
        return np.ones(self.examples) if self.settings.rate_alone else super().weights_in_use()

    def learn(self, step: int, drawn: Drawn, seen: Seen, squared_norms: Tensor | None) -> None:
        super().learn(step, drawn, seen, squared_norms)
        assert squared_norms is not None
        self.pending.append((drawn.indices, squared_norms.sqrt()))
        if step + 1 >= max(self.first_steps, self.blocks.until):
            self.take_in()
            self.proposal = self.proposed()

    def take_in(self) -> None:
        """Learns of the pending steps, oldest first: what became of norms, and the new ones."""
        indices, norms = (torch.cat(parts).cpu().numpy() for parts in zip(*self.pending, strict=True))
        after = self.blocks.next - len(self.pending) + 1 + np.arange(len(indices)) // self.blocks.size
        known = np.isfinite(norms)  # one that is no number ends the run at the end of its block
        indices, norms, after = indices[known], norms[known], after[known]
        pair = self.seen[indices] > 0
        unit = float(self.norms.mean(dtype=np.float64))
        self.drift.fade(np.exp(-len(self.pending) / (self.settings.memory * self.first_steps)))
        if unit > 0 and pair.any():
            old = indices[pair]
            self.drift.add(self.norms[old] / unit, after[pair] - self.seen[old], norms[pair] / unit)
        self.norms[indices], self.seen[indices] = norms, after  # of one that is there twice, the last
        self.pending = []

    def proposed(self) -> Proposal:
        """What the next block is drawn from."""
        unit = float(self.norms.mean(dtype=np.float64))
        if not unit > 0:
            return Proposal.uniform(self.examples)
        # In the middle of the block, less half a step: its first draw is of age next + 1 - seen, as pairs are counted.
        # Half a step changes no weight by 1% where a block has 50 steps.
        ages = self.blocks.next + self.blocks.steps / 2 - self.seen
        weights = self.drift.weights(self.norms / unit, ages)
        weights[self.seen == 0] = weights.mean()  # its norms were no numbers
        return Proposal.of(with_uniform(weights, self.settings.uniform))

    def learned(self) -> dict[str, NDArray[Any]]:
        indices, norms = np.zeros((2, self.first_steps, self.blocks.size))
        for number, (of_step, found) in enumerate(self.pending):
            indices[number], norms[number] = of_step.cpu().numpy(), found.cpu().numpy()
        return super().learned() | {
            "norms": self.norms.copy(),
            "seen": self.seen.copy(),
            "drift": np.stack([self.drift.counts, self.drift.squares]),
            "pending": np.array(len(self.pending)),
            "pending_indices": indices.astype(np.int64),
            "pending_norms": norms.astype(np.float32),
        }

    def state(self, about_to: Refreshed | None = None) -> dict[str, Any]:
        return super().state(about_to) | {"told_rate": self.told_rate}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.told_rate = float(state.get("told_rate", 1.0))  # older ones had none

    def recall(self, learned: Mapping[str, NDArray[Any]]) -> None:
        super().recall(learned)
        self.rate_it()
        if min(array.min() for array in learned.values()) < 0:
            raise ValueError("norms, steps, counts and sums of squares are none of them negative")
        count, indices = int(learned["pending"]), learned["pending_indices"]
        if count > min(self.blocks.next, self.first_steps) or indices.max() >= self.examples:
            raise ValueError("it cannot have taken the steps that are pending")
        self.norms, self.seen = learned["norms"], learned["seen"]
        self.drift = Drift(*learned["drift"])
        parts = zip(indices[:count], learned["pending_norms"][:count], strict=True)
        self.pending = [
            (torch.from_numpy(one).to(self.device), torch.from_numpy(found).to(self.device)) for one, found in parts
        ]
        if self.blocks.next >= max(self.first_steps, self.blocks.until):
            self.proposal = self.proposed()


def effective_size(weights: Float64s, share: float) -> float:
    """n_eff / n: how many uniform draws one by these weights is worth, if they are right.

    E_uniform g^2 / E_q (g / (N q))^2, where g is in proportion to w, and q to (1 - u) w / mean w + u. These are second
    moments; variances are less by ||g_TRUE||^2, which is little where gradients scatter widely: it is rather too small.

    Args:
        weights: In proportion to q, shape (N,).
        share: u, of uniform draws among them.
    """
    q = weights / weights.mean()  # N q
    expected = q - share  # in proportion to w
    if not expected.max() > 0:
        return 1.0  # all draws are uniform
    squares = np.square(expected)
    return float(squares.mean() / (squares / q).mean())
