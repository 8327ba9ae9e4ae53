"""Methods that draw by what their own minibatches have shown, not by a table that others fill."""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from issgd_cli.config.config import Config
from issgd_cli.methods.method import Method, Refreshed
from issgd_cli.methods.proposal import Proposal
from issgd_cli.methods.table import Float32s


class SelfTaught(Method):
    """A method whose proposal changes from step to step: reports are told of it as of the last publication.

    Attributes:
        told: What they are told.
    """

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        super().__init__(config, examples, device)
        self.told = self.proposal

    def settle(self, version: int, seconds: float) -> None:
        self.told = Proposal.of(self.weights_in_use())

    def propose(self, norms: Float32s, usable: NDArray[Any], constant: float) -> Proposal:
        return self.told  # told of, not drawn from

    def state(self, about_to: Refreshed | None = None) -> dict[str, Any]:
        return super().state(about_to) | {"told": self.told.weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.told = Proposal.of(state["told"])
