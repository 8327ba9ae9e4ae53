"""What every cluster shares: what can be seen of a run, and how its end is told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from issgd_cli.errors import RunError

WATCH_SECONDS = 0.5
GONE_STATUS = 75  # an actor's exit status: the run has left the database, and can be set back to its checkpoint


@dataclass
class Snapshot:
    """What can be seen of a run while it goes on; the screen draws nothing else.

    Attributes:
        seconds: Since the run's start, by its own clock.
        pace: Seconds of that clock in a real one: 1 but on a virtual clock; 0 before it is known.
        away: For how many seconds the database has not answered; 0 while it does.
        statuses: The newest of each actor.
        processes: Actor -> running, restarting, finished, dead.
        notices: What happened that a user should know, oldest first.
    """

    seconds: float = 0.0
    pace: float = 1.0
    away: float = 0.0
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    processes: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


Watch = Callable[[Snapshot], None]


class ActorError(RunError):
    """An actor ended otherwise than it should."""

    def __init__(self, actor: str, message: str) -> None:
        super().__init__(message)
        self.actor = actor


class Interrupted(Exception):  # noqa: N818 - no error of anybody's
    """The caller said stop."""
