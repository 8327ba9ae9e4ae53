"""How the master's parameters go out (figure 1, left), each set under a version of its own."""

from collections.abc import Generator

import torch
from torch import Tensor

from issgd_cli.actors.actor import Operation
from issgd_cli.config.config import Config
from issgd_cli.database import Database, Published

BARRIER_POLL_SECONDS = 0.005


class Publishing:
    """See the module.

    Attributes:
        version: Of the next publication.
        outgoing: What is being published, shape (P,): a copy of the parameters, since training goes on.
    """

    def __init__(self, config: Config, database: Database, parameters: Tensor, version: int) -> None:
        """Of these parameters, which training changes in place, shape (P,)."""
        self.database, self.parameters, self.version = database, parameters, version
        self.exact = config.master.mode == "exact"
        self.outgoing = torch.empty(parameters.shape, pin_memory=parameters.device.type == "cuda")

    def next(self, step: int) -> Published:
        """Takes a copy of the parameters of now, and gives it a version."""
        self.outgoing.copy_(self.parameters)
        self.version += 1
        return Published(self.version - 1, step)

    def publish(self, published: Published) -> Generator[Operation]:
        """Publishes the copy; in exact mode waits until all records carry its version."""
        outgoing = self.outgoing.numpy()
        yield Operation("publish", published.version, bytes=outgoing.nbytes)
        self.database.publish(published, outgoing)
        while self.exact and not self.is_everywhere(published):
            yield Operation("wait", published.version, seconds=BARRIER_POLL_SECONDS)

    def is_everywhere(self, published: Published) -> bool:
        """The barrier of figure 1: every record carries this version, and the monitor has sampled them."""
        acknowledged = self.database.get("acknowledged") or {"version": 0}
        return acknowledged["version"] >= published.version and self.database.behind(published.version) == 0
