"""What tests and benchmarks do with a master by hand."""

import torch

from issgd_cli.actors.master import Master, take_step
from issgd_cli.database import Published


def refresh(master: Master) -> None:
    """Reads the table for the steps to come, as of the last publication."""
    master.method.adopt(master.refreshed(Published(master.publishing.version - 1, master.learner.step)))


def train(master: Master) -> torch.Tensor:
    """Takes a step; its weighted loss."""
    return take_step(master.learner, master.method, master.examples, master.config.master.minibatch_size)
