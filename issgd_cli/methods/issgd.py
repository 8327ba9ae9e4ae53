"""Importance sampled SGD, its table kept fresh by workers: the paper's method."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from issgd_cli.config.config import Config
from issgd_cli.methods.method import Drawn, Method, Refreshed, Seen
from issgd_cli.methods.proposal import Proposal, proposal
from issgd_cli.methods.table import Float32s, OwnNorms, Table
from issgd_cli.randomness import generator


class ISSGD(Method):
    """Examples drawn in proportion to their gradient norms, smoothed, whatever these norms' age.

    Bias: given the parameters and the table, the expected gradient is the mean of all N, whatever the staleness and the
    smoothing; under a staleness limit with `drop`, the mean of the usable ones.

    Source: Alain et al. 2015, section 4.1.
    """

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        """With the norms of its own minibatches where `master.reuse_own_norms` says so."""
        super().__init__(config, examples, device)
        self.own = OwnNorms.none(examples) if config.master.reuse_own_norms else None
        self.needs = "nothing" if self.own is None else "norms"

    def refreshed(self, table: Table) -> Refreshed:
        return super().refreshed(table if self.own is None else self.own.over(table))

    def propose(self, norms: Float32s, usable: NDArray[np.bool_], constant: float) -> Proposal:
        settings = self.config.proposal
        return proposal(norms, usable, constant, settings.limit_mode, settings.minimum_usable_fraction)

    def draw(self, step: int, size: int, looked: Seen | None = None) -> Drawn:
        if self.blocks is not None:
            return Drawn(*self.blocks.draw(step, lambda: self.proposal))
        indices, factors = self.proposal.draw(generator(self.config.seed, "draws", step), size)
        return Drawn(indices.to(self.device), factors.float().to(self.device))

    def learn(self, step: int, drawn: Drawn, seen: Seen, squared_norms: Tensor | None) -> None:
        super().learn(step, drawn, seen, squared_norms)
        if self.own is not None and squared_norms is not None:
            self.own.pending.append((drawn.indices, squared_norms.sqrt()))

    def settle(self, version: int, seconds: float) -> None:
        if self.own is not None:
            self.own.settle(version, seconds)

    def state(self, about_to: Refreshed | None = None) -> dict[str, Any]:
        state = super().state(about_to)
        if (own := self.own) is not None:
            state["own_norms"] = {"norms": own.norms, "versions": own.versions, "seconds": own.seconds}
            state["own_norms_since"] = own.since
            if own.pending:
                drawn, norms = (torch.cat(parts).cpu().numpy() for parts in zip(*own.pending, strict=True))
                state |= {"drawn": drawn, "drawn_norms": norms}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        if "own_norms" in state:
            self.own = OwnNorms(**state["own_norms"], since=float(state["own_norms_since"]))
            if "drawn" in state:
                drawn, norms = (torch.from_numpy(state[name]).to(self.device) for name in ("drawn", "drawn_norms"))
                self.own.pending = [(drawn, norms)]
