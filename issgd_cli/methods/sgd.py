"""Plain SGD: the paper's baseline."""

import numpy as np
from numpy.typing import NDArray

from issgd_cli.methods.method import Drawn, Method, Seen
from issgd_cli.methods.proposal import Proposal
from issgd_cli.methods.table import Float32s
from issgd_cli.randomness import generator


class SGD(Method):
    """Examples drawn uniformly, with replacement, whatever the table says; its worker only measures.

    Bias: given the parameters, the expected gradient is the mean of all N.
    """

    def propose(self, norms: Float32s, usable: NDArray[np.bool_], constant: float) -> Proposal:
        return Proposal.uniform(usable.size)

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        indices, factors = self.proposal.draw(generator(self.config.seed, "draws", step), size)
        return Drawn(indices.to(self.device), factors.float().to(self.device))
