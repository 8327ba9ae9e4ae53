"""What is learned: data, a network and a loss. The one place that joins them."""

from functools import cached_property

import torch
from torch import nn

from issgd_cli.config.config import Config
from issgd_cli.database import Split
from issgd_cli.datasets.augmentation import Augmentation
from issgd_cli.datasets.examples import Examples
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import ConfigError
from issgd_cli.losses import Objective
from issgd_cli.networks import Network, Sizes, flat
from issgd_cli.networks.layers import batch_normalised
from issgd_cli.networks.own import Own
from issgd_cli.registries import LOSSES, NETWORKS


class Problem:
    """See the module.

    Attributes:
        data: The prepared dataset.
        loss: Of an example.
        augmentation: Of the examples that are trained on; those that are scored and audited stay as they are.
    """

    def __init__(self, config: Config, data: Prepared) -> None:
        """As the configuration describes it.

        Raises:
            ConfigError: The network is not for such data, or not for what is asked of its minibatches; or it is the
                user's own, and cannot or must not be imported; or the loss wants other targets than the data have, or
                what is to be augmented are no images.
        """
        self.data = data
        self.loss: Objective = LOSSES[config.model.loss]
        sizes = Sizes(data.shape, data.outputs, data.tokens)
        self._network: Network = NETWORKS.get(config.model.network, Own)(config, sizes)
        if config.master.reuse_own_norms:
            self.refuse_batch_statistics("master.reuse_own_norms")
        if config.proposal.source == "oracle":
            self.refuse_batch_statistics("proposal.source = 'oracle'")
        self.augmentation = Augmentation(config.data.augment, config.seed, data.shape, data.tokens > 0)
        _refuse_misfit(config.model.loss, self.loss, data)

    def network(self, device: torch.device) -> nn.Module:
        """On a device, for scoring: in evaluation mode, without parameters that mean anything."""
        return self._network.build().to(device).eval()

    def initial_network(self, seed: int, device: torch.device) -> nn.Module:
        """On a device, for training: in training mode, with the parameters that a run of this seed starts from."""
        model = self._network.build()
        self._network.initialise(model, seed)
        return model.to(device).train()

    def examples(self, split: Split, device: torch.device) -> Examples:
        """Of a split, for a network on this device."""
        return Examples(self.data, self.data.splits[split], device)

    @cached_property
    def size(self) -> int:
        """P, how many numbers the network's flat vector holds."""
        return flat.size(self._shapes)

    @cached_property
    def trained_size(self) -> int:
        """How many of them are trained."""
        return flat.trained_size(self._shapes)

    @cached_property
    def fingerprint(self) -> str:
        """Of the network: what a flat vector means."""
        return flat.fingerprint(self._shapes)

    def refuse_batch_statistics(self, key: str) -> None:
        """For what `key` asks for, each example must have a gradient of its own while the network is trained.

        Raises:
            ConfigError: A layer normalises over the minibatch.
        """
        if layer := batch_normalised(self._shapes):
            raise ConfigError(
                f"{key} needs each example's own gradient in the minibatches that are trained, and the network "
                f"normalises over the minibatch ({layer}), where no example has one. Set resnet18.norm, or "
                "pointnet.norm, to 'group', or give a network of your own GroupNorm instead of BatchNorm."
            )

    @cached_property
    def _shapes(self) -> nn.Module:
        with torch.device("meta"):  # shapes without memory
            return self._network.build()


def _refuse_misfit(name: str, loss: Objective, data: Prepared) -> None:
    takes_classes = loss.targets == "classes"
    if takes_classes != (data.targets == "classes"):
        fitting = [repr(other) for other in LOSSES if (LOSSES[other].targets == "classes") != takes_classes]
        raise ConfigError(
            f"model.loss = {name!r} compares with {loss.targets}, but the targets of {data.name} are {data.targets}. "
            f"Set model.loss to {' or '.join(fitting)}."
        )
    if loss.targets == "probabilities":
        for split in data.splits.values():
            if len(split) and not (split.targets.min() >= 0 and split.targets.max() <= 1):
                raise ConfigError(
                    f"model.loss = {name!r} compares with probabilities, but {data.name} has targets beyond 0 and 1. "
                    "Set model.loss = 'squared', or give targets of 0 and 1."
                )
