"""What actors and clusters say to each other.

An actor's `run()` is a generator. It yields an Operation *before* it does it and does it when resumed: the local
cluster resumes at once and takes the time until the next yield for the operation's; the simulated cluster resumes when
the operation would be over on its virtual clock. So the algorithm stands in one place, and no actor reads a clock.
"""

from collections.abc import Generator
from typing import Any, Literal, NamedTuple, Protocol


class Operation(NamedTuple):
    """Something that takes time."""

    name: Literal["publish", "wait", "refresh", "train", "pull", "score", "push", "sample", "audit", "checkpoint"]
    version: int = 0  # of the parameters it concerns
    examples: int = 0
    bytes: int = 0  # through the database
    seconds: float = 0.0  # of a wait: how long to sleep before looking again


class Actor(Protocol):
    """Master, worker or monitor."""

    def run(self) -> Generator[Operation]:
        """The actor's whole life."""

    def stop(self) -> None:
        """Called when the run is interrupted, between two operations: saves what can be saved."""

    def status(self) -> dict[str, Any]:
        """For the screen: a few JSON values."""
