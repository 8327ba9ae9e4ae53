"""What is learned: data, a network and a loss. The one place that joins them."""

from functools import cached_property

import torch
from torch import nn

from issgd_cli.config.config import Config
from issgd_cli.database import Split
from issgd_cli.datasets.examples import Examples
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.losses import Loss
from issgd_cli.networks import Network, Sizes, flat
from issgd_cli.networks.own import Own
from issgd_cli.registries import LOSSES, NETWORKS


class Problem:
    """See the module.

    Attributes:
        data: The prepared dataset.
        loss: Of an example.
    """

    def __init__(self, config: Config, data: Prepared) -> None:
        """As the configuration describes it.

        Raises:
            ConfigError: The network is not for such data; or it is the user's own, and cannot or must not be imported.
        """
        self.data = data
        self.loss: Loss = LOSSES[config.model.loss]
        sizes = Sizes(data.shape, data.classes)
        self._network: Network = NETWORKS.get(config.model.network, Own)(config, sizes)

    def network(self, device: torch.device) -> nn.Module:
        """On a device, without parameters that mean anything."""
        return self._network.build().to(device)

    def initial_network(self, seed: int, device: torch.device) -> nn.Module:
        """On a device, with the parameters that a run of this seed starts from."""
        model = self._network.build()
        self._network.initialise(model, seed)
        return model.to(device)

    def examples(self, split: Split, device: torch.device) -> Examples:
        """Of a split, for a network on this device."""
        return Examples(self.data, self.data.splits[split], device)

    @cached_property
    def size(self) -> int:
        """P, the number of the network's parameters."""
        return flat.size(self._shapes)

    @cached_property
    def fingerprint(self) -> str:
        """Of the network's parameters: what a flat vector of them means."""
        return flat.fingerprint(self._shapes)

    @cached_property
    def _shapes(self) -> nn.Module:
        with torch.device("meta"):  # shapes without memory
            return self._network.build()
