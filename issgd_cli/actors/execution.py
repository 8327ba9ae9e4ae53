"""One actor's life on a real clock: its operations done, timed and told of, whatever process or thread it is in."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from issgd_cli.actors.actor import HANDS, Actor, Operation, Task
from issgd_cli.actors.recorder import Recorder
from issgd_cli.database import Database
from issgd_cli.errors import DatabaseError, GoneError, IssgdError
from issgd_cli.files import telling

REPORT_SECONDS = 0.5
FAREWELL_SECONDS = 2.0  # for the last report that is under way


class ClockedDatabase(Database, Protocol):
    """A database whose clock is another machine's, and read now and then."""

    def synchronise(self) -> float:
        """Reads the clock; by how many seconds it has been moved against this machine's since the last reading.

        Raises:
            GoneError: The run is no longer there, or has been set back to a checkpoint since.
        """


@dataclass
class Execution:
    """Resumes an actor's operations one by one, and those of its tasks beside them; times them, tells the database."""

    name: str
    actor: Actor
    database: ClockedDatabase
    recorder: Recorder = field(init=False)
    stopping: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)  # the actor's life
    doing: str = "starting"
    signal_number: int = 0
    gone: GoneError | None = None

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.name, self.actor, os.getpid())

    def run(self) -> None:
        """Until the actor's life is over, a signal says stop, or whoever started us is gone.

        Raises:
            SystemExit: With 128 + the signal's number, so that nobody takes an actor that was stopped for done.
            IssgdError: The actor failed; the database has been told, since a log on a full disk may stay empty.
        """
        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with telling():
                self._live()
        except DatabaseError:
            # A worker's or peer's run may have ended, and its records been taken away under its hands.
            if not self.name.startswith(HANDS) or not self._is_over():
                raise
        except IssgdError as error:
            self._tell(error)
            raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.signal_number:
            raise SystemExit(128 + self.signal_number)

    def _is_over(self) -> bool:
        return self.database.get("finished") is not None or self.database.get("stop") is not None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self.stopping.set()

    def _live(self) -> None:
        operations = self.actor.run()
        operation: Operation | None = None
        start = self.database.seconds()
        with contextlib.closing(operations), self._reporting():
            while not self.stopping.is_set():
                if operation is not None and operation.seconds:
                    self.stopping.wait(operation.seconds)
                following = next(operations, None)
                while isinstance(following, Task):
                    threading.Thread(target=self._beside, args=(following,), daemon=True).start()
                    following = next(operations, None)
                now = self.database.seconds()
                if operation is not None:
                    self.recorder.done(operation, start, now)
                if following is None:
                    break
                if self.gone is not None:
                    raise self.gone
                operation, start, self.doing = following, now, following.name
            else:
                self.actor.stop()
        self.recorder.report(self.database, "stopped" if self.stopping.is_set() else "finished")

    def _beside(self, task: Task[Any]) -> None:
        """Does a task, in a thread of its own."""
        operation, start = task.advance(), self.database.seconds()
        while operation is not None:
            if operation.seconds:
                self.stopping.wait(operation.seconds)
            following, now = task.advance(), self.database.seconds()
            self.recorder.done(operation, start, now, id(task))
            operation, start = following, now

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Within, the database is told twice a second what the actor does: beside it, since a database may be away."""
        reporter = threading.Thread(target=self._report, daemon=True)
        reporter.start()
        try:
            yield
        finally:
            self.over.set()
            reporter.join(FAREWELL_SECONDS)

    def _report(self) -> None:
        while not self.over.wait(REPORT_SECONDS):
            try:
                self.database.synchronise()
                self.recorder.report(self.database, self.doing)
            except GoneError as error:
                self.gone = error
                return
            except DatabaseError:
                continue  # away for longer than the client is patient; what matters to the actor, it meets itself

    def _tell(self, error: IssgdError) -> None:
        line = " ".join(str(error).split())[:1000]
        with contextlib.suppress(DatabaseError):
            status = self.recorder.status(self.database.seconds(), "failed")
            self.database.report(self.name, {**status, "notices": [line]})
