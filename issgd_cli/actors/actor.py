"""What actors and clusters say to each other.

An actor's `run()` is a generator. It yields an Operation *before* it does it and does it when resumed: the local
cluster resumes at once and takes the time until the next yield for the operation's; the simulated cluster resumes when
the operation would be over on its virtual clock. So the algorithm stands in one place, and no actor reads a clock.

What an actor wants done beside its own work it yields as a Task: the cluster resumes both, the actor looks from time to
time whether the task is done.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

T = TypeVar("T")

HANDS = ("worker", "peer")  # of whom a run has many: each owns nothing, and may die, or join from elsewhere


class Operation(NamedTuple):
    """Something that takes time."""

    name: Literal[
        "publish",
        "wait",
        "refresh",
        "look",
        "train",
        "pull",
        "score",
        "push",
        "apply",
        "sample",
        "audit",
        "checkpoint",
    ]
    version: int = 0  # of the parameters it concerns
    examples: int = 0
    bytes: int = 0  # through the database
    seconds: float = 0.0  # of a wait: how long to sleep before looking again


@dataclass
class Task(Generic[T]):
    """Operations that an actor hands to its cluster, to be done while it goes on with others.

    Attributes:
        operations: Resumed by the cluster, which sets one of the following two when they have ended.
        outcome: What they returned, in a tuple of one; None while they last.
        error: What they raised.
    """

    operations: Generator[Operation, None, T]
    outcome: tuple[T] | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether the operations have ended, by returning or by an error."""
        return self.outcome is not None or self.error is not None

    def result(self) -> T:
        """What the operations returned. Raises what they raised."""
        if self.error is not None:
            raise self.error
        if self.outcome is None:
            raise RuntimeError("The task is not done.")
        return self.outcome[0]

    def advance(self) -> Operation | None:
        """For clusters: does the operation announced last, and returns the next, None when there is none."""
        try:
            return next(self.operations)
        except StopIteration as end:
            self.outcome = (end.value,)
        except Exception as error:
            self.error = error
        return None


class Actor(Protocol):
    """Master, worker or monitor; parameter server or peer."""

    def run(self) -> Generator[Operation | Task[Any]]:
        """The actor's whole life."""

    def stop(self) -> None:
        """Called when the run is interrupted, between two operations: saves what can be saved."""

    def status(self) -> dict[str, Any]:
        """For the screen: a few JSON values."""
