"""SGD by epochs: what training usually is."""

import numpy as np
import torch
from numpy.typing import NDArray

from issgd_cli.methods.method import Drawn, Method, Seen
from issgd_cli.methods.proposal import Proposal
from issgd_cli.methods.table import Float32s
from issgd_cli.randomness import generator


class Reshuffled(Method):
    """Every example once an epoch, in an order that each epoch draws anew; a minibatch may reach into the next epoch.

    The minibatch of a step follows from the seed and the step alone, so that a run goes on anywhere in an epoch, to the
    bit. Whatever the table says; its worker only measures.

    Bias: over the order of an epoch each of its draws is uniform, so the expected gradient at fixed parameters is the
    mean of all N, and the sum over the epoch is exactly theirs. Given the draws before it in the epoch it is not.
    """

    _last: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))  # an epoch and its order

    def propose(self, norms: Float32s, usable: NDArray[np.bool_], constant: float) -> Proposal:
        return Proposal.uniform(usable.size)

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        indices = torch.from_numpy(self.at(np.arange(step * size, (step + 1) * size)))
        return Drawn(indices.to(self.device, non_blocking=True), torch.ones(size, device=self.device))

    def at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The examples at these places of all epochs, one after the other, shape (B,)."""
        indices = np.empty(len(places), np.int64)
        for epoch in np.unique(places // self.examples):
            within = places // self.examples == epoch
            indices[within] = self.order(int(epoch))[places[within] % self.examples]
        return indices

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The examples of an epoch, shape (N,)."""
        if self._last[0] != epoch:  # drawn once an epoch, not at every step
            random = generator(self.config.seed, "reshuffling", epoch)
            self._last = epoch, random.permutation(self.examples)
        return self._last[1]
