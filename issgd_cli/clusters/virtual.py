"""Actors on a virtual clock: an event queue.

An operation takes what the clock says, and its effects come at its end. Events at one instant happen in the order in
which they were scheduled, so what happens depends on nothing but the actors and the durations.

Who waits is told at once when there is something new, unlike a process that polls. Polls remain where time alone is
waited for: the monitor's, and that of one idle worker, who looks for expired leases on behalf of all.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from issgd_cli.clusters.clock import Durations
from issgd_cli.clusters.launch import ActorError
from issgd_cli.clusters.recording import Recorder
from issgd_cli.config import Config
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.errors import IssgdError, RunError
from issgd_cli.operations import Actor, Operation, Task


@dataclass(eq=False)
class Life:
    """An actor's, or that of a task beside it, as a sequence of operations.

    Attributes:
        recorder: Of the actor.
        advance: Does the operation announced last, returns the next; None: there is none.
        task: Which of the tasks; 0: the actor itself.
        announced, since: The operation under way, and when it began.
        ticket: Of its place in the queue; an older one is void.
        over: Whether it has come to its end.
    """

    recorder: Recorder
    advance: Callable[[], Operation | Task[Any] | None]
    task: int = 0
    announced: Operation | None = None
    since: float = 0.0
    ticket: int = -1
    over: bool = False

    @property
    def name(self) -> str:
        """The actor's."""
        return self.recorder.name

    @property
    def doing(self) -> str:
        """For people."""
        return "finished" if self.announced is None else self.announced.name


class VirtualTime:
    """See the module.

    Attributes:
        now: Seconds since the run's start.
        lives: Of the actors, in the order in which they came.
    """

    def __init__(
        self, config: Config, durations: Durations, now: float = 0.0, deaths: Mapping[str, float] | None = None
    ) -> None:
        """A clock that stands at `now`; a run is to be begun in `database` before anybody comes.

        Args:
            config: Of the run.
            durations: What each operation takes.
            deaths: When some actors stop for ever.
        """
        self.durations, self.now, self.deaths = durations, now, deaths or {}
        self.exact = config.master.mode == "exact"
        self.database = MemoryDatabase(lambda: self.now)
        self.lives: list[Life] = []
        self.queue: list[tuple[float, int, Life]] = []
        self.tickets = self.tasks = self.seen = 0
        self.news: tuple[object, object] = (None, None)
        self.poller: Life | None = None  # the idle worker who looks at the clock
        self.idle: list[Life] = []  # the other idle workers: they wait for new parameters, or the end
        self.waiting: list[Life] = []  # for whatever is new in the database

    def add(self, name: str, actor: Actor, process: int = 0) -> Life:
        """An actor whose life begins now."""
        life = Life(Recorder(name, actor, process), partial(next, actor.run(), None))
        self.lives.append(life)
        self._schedule(life, 0.0)
        return life

    def turn(self, before: Callable[[Life, Operation], None] = lambda life, operation: None) -> Operation | None:
        """Moves on to the end of the next operation, and does it.

        Args:
            before: Called with the operation when its time is over, before its effects.

        Returns:
            The operation; None where a life has just begun or ended.

        Raises:
            ActorError: The actor has failed.
            RunError: Everybody waits for somebody who is dead.
        """
        life = self._next()
        if self.is_dead(life):
            self._stop_polling(life)
            return None
        operation = life.announced
        if operation is not None:
            life.recorder.done(operation, life.since, self.now, life.task)
            before(life, operation)
        self._resume(life)
        self._tell()
        return operation

    def is_dead(self, life: Life) -> bool:
        """Whether its time has come."""
        return self.now >= self.deaths.get(life.name, float("inf"))

    def _next(self) -> Life:
        """Whose operation ends next; moves the clock there."""
        while self.queue:
            now, ticket, life = heapq.heappop(self.queue)
            if ticket == life.ticket:
                self.now = now
                return life
        raise RunError("All actors that are alive wait for others that are not; see cluster.clock.dies.")

    def _resume(self, life: Life) -> None:
        """Does what was announced, and starts what is announced next."""
        try:
            following = life.advance()
            while isinstance(following, Task):
                self.tasks += 1
                self._schedule(Life(life.recorder, following.advance, self.tasks), 0.0)
                following = life.advance()
        except IssgdError as error:
            raise ActorError(life.name, str(error)) from error
        life.announced, life.since = following, self.now
        if following is not None and following.name == "wait":
            self._wait(life, following)
            return
        self._stop_polling(life)
        if following is None:
            life.over = True
        else:
            self._schedule(life, self.durations(life.name, following))

    def _wait(self, life: Life, wait: Operation) -> None:
        worker = life.name.startswith("worker")
        newest = self.database.newest()
        if worker and newest is not None and newest.version != wait.version:
            self._stop_polling(life)  # what it would wait for is there already: it looks again, as a real one does
            self._schedule(life, self.durations(life.name, wait))
        elif worker and self.poller not in (None, life):
            self.idle.append(life)
        elif self.exact and not worker:
            self.waiting.append(life)  # for documents and records: behind barriers nobody waits for a time
        else:
            if worker:
                self.poller = life
            self._schedule(life, self.durations(life.name, wait))

    def _stop_polling(self, life: Life) -> None:
        """The next idle worker looks at the clock, if this one did."""
        if self.poller is life:
            self.poller = self.idle.pop(0) if self.idle else None
            if self.poller is not None and self.poller.announced is not None:
                self._schedule(self.poller, self.durations(self.poller.name, self.poller.announced))

    def _tell(self) -> None:
        """Wakes those who wait for what has just come."""
        if self.database.changes == self.seen:
            return
        self.seen = self.database.changes
        woken, self.waiting = self.waiting, []
        news = self.database.newest(), self.database.get("finished")
        if news != self.news:
            self.news = news
            woken += ([self.poller] if self.poller is not None else []) + self.idle
            self.idle = []
        for life in woken:
            self._schedule(life, 0.0)

    def _schedule(self, life: Life, seconds: float) -> None:
        life.ticket = self.tickets
        heapq.heappush(self.queue, (self.now + seconds, life.ticket, life))
        self.tickets += 1
