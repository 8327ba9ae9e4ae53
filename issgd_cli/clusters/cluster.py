"""What every cluster shares: how its actors are started and ended, what can be seen of a run, how its end is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from issgd_cli.actors.actor import HANDS
from issgd_cli.actors.devices import hands
from issgd_cli.config.config import Config
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


class Handle(Protocol):
    """One life of an actor, where its cluster has put it. Nothing here waits."""

    def poll(self) -> int | None:
        """Its exit status, negative where a signal has killed it; None while it lives."""

    def end(self) -> None:
        """Asks it to save what it can and to end."""

    def kill(self) -> None:
        """Ends it, whatever it is doing."""

    def last_words(self) -> str:
        """What it has written to its log; empty where nothing can be read."""


class Launcher(Protocol):
    """How a cluster starts actors; all else about them is the supervisor's."""

    def start(self, actor: str, environment: Mapping[str, str]) -> Handle:
        """Starts an actor of the run: master, monitor, worker-0.

        Args:
            actor: Its name; its command line is `arguments`.
            environment: What it must find in its environment beside the cluster's own.
        """


@dataclass(frozen=True)
class Standing:
    """How a job stands with its scheduler.

    Attributes:
        state: `requeued` is queued once more, after it has run.
        reason: Why it waits, in the scheduler's words; often empty.
    """

    state: Literal["queued", "requeued", "running"]
    reason: str = ""


class Submission(Protocol):
    """How a whole run is handed to a scheduler, which starts its head; the head starts the actors by a Launcher."""

    def submit(self, script: Path) -> str:
        """The id of the job that a batch script has become.

        Raises:
            RunError: The scheduler refuses it, or is not there.
        """

    def standings(self) -> Mapping[str, Standing] | None:
        """This user's jobs that wait or run, by their ids; None where the scheduler does not answer."""

    def cancel(self, job: str) -> None:
        """Ends a job, whether it waits or runs.

        Raises:
            RunError: The scheduler refuses to.
        """


def actors(config: Config) -> list[str]:
    """The names of a run's actors but for its monitor: the one that descends, then those that do its work."""
    kind = "peer" if config.cluster.roles == "peers" else "worker"
    return [config.cluster.trainer, *(f"{kind}-{index}" for index in range(hands(config)))]


def arguments(actor: str, run: str, data_dir: str, folder: Path, model: str | None = None) -> list[str]:
    """What follows `issgd` on an actor's command line, on any cluster.

    Args:
        actor: Its name.
        run: The run's name in the database.
        data_dir: Where the prepared datasets are.
        folder: The run's.
        model: The network of the user's own that the launcher's command line names, if it does.
    """
    kind, _, index = actor.partition("-")
    own = ["--index", index] if kind in HANDS else ["--folder", str(folder)]
    named = [] if model is None else ["--model", model]
    return [kind, "--run", run, "--data-dir", data_dir, *own, *named]
