"""What an actor has done: its events for figure 1, its counts for the trace and the screen."""

import threading
from dataclasses import dataclass, field

from issgd_cli.actors.actor import Actor, Operation
from issgd_cli.database import Database, Document
from issgd_cli.database.records import Event


@dataclass
class Recorder:
    """Of one actor, fed by its cluster; its tasks' threads may feed it too.

    Attributes:
        name: The actor's: master, worker-0, monitor.
        process: What tells this life of the actor from others of the same name.
        examples, bytes: How many went through each kind of operation, and through the database, so far.
    """

    name: str
    actor: Actor
    process: int
    examples: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    batch: int = 0
    pending: list[Event] = field(default_factory=list)
    leaving: list[Event] = field(default_factory=list)  # the batch that is being handed over
    newest: dict[int, int] = field(default_factory=dict)  # where in `pending` the last of an actor's, or task's, stands
    lock: threading.Lock = field(default_factory=threading.Lock)  # of what is counted and pending

    def done(self, operation: Operation, start: float, end: float, task: int = 0) -> None:
        """Takes in an operation that lasted from `start` to `end`, seconds since the run's start.

        Args:
            task: Which of the actor's tasks did it; 0: itself.
        """
        with self.lock:
            self.examples[operation.name] = self.examples.get(operation.name, 0) + operation.examples
            self.bytes += operation.bytes
            place = self.newest.get(task, -1)
            last = self.pending[place] if place >= 0 else None
            if last is not None and (last.event, last.version) == (operation.name, operation.version):
                self.pending[place] = last._replace(end=end)  # 32 steps are one bar of figure 1
            else:
                self.newest[task] = len(self.pending)
                self.pending.append(Event(self.name, start, end, operation.name, operation.version))

    def status(self, seconds: float, doing: str) -> Document:
        """For the trace and the screen: what the actor says of itself, and what is counted here."""
        with self.lock:
            counts = {"examples": dict(self.examples), "bytes": self.bytes}
        return {**self.actor.status(), **counts, "process": self.process, "seconds": seconds, "doing": doing}

    def report(self, database: Database, doing: str) -> None:
        """Hands the events over to the database, and says what the actor does. What fails is done again next time."""
        if not self.leaving:
            with self.lock:
                self.leaving, self.pending, self.newest = self.pending, [], {}
        if self.leaving:
            database.push_events(f"{self.name}:{self.process}:{self.batch:08d}", self.leaving)
            self.batch, self.leaving = self.batch + 1, []
        status = self.status(database.seconds(), doing)
        notices = [*status.get("notices", []), *database.complaints()]
        database.report(self.name, {**status, "notices": notices})
