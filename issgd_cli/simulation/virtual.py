"""Actors on a virtual clock: an event queue.

An operation takes what the clock says, and its effects come at its end: a worker's pull brings what is newest then. (A
peer's brings what was newest at its beginning, as a real one's does, since how old its gradient is depends on that; see
there.) What peers pull, and what they push, stands in line for the server's link, each way by itself, in the order in
which it was begun. Events at one instant happen in the order in
which they were scheduled, so what happens depends on nothing but the actors and the durations. A checkpoint that takes
no time comes before all else of its instant, so that nothing depends on whether there is one.

Who waits is told at once when there is something new, unlike a process that polls. Polls remain where time alone is
waited for: the monitor's, and that of one idle worker, who looks for expired leases on behalf of all.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from issgd_cli.actors.actor import Actor, Operation, Task
from issgd_cli.actors.recorder import Recorder
from issgd_cli.clusters.cluster import ActorError
from issgd_cli.config.config import Config
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.errors import IssgdError, RunError
from issgd_cli.simulation.clock import Durations

AT_ONCE = -1  # a ticket before all others
HANGING = "All actors that are alive wait for others that are not; see cluster.clock.dies."


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
    ticket: int = -2
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
        self,
        config: Config,
        durations: Durations,
        now: float = 0.0,
        deaths: Mapping[str, float] | None = None,
        on_link: Callable[[Operation], float] = lambda operation: 0.0,
    ) -> None:
        """A clock that stands at `now`; a run is to be begun in `database` before anybody comes.

        Args:
            config: Of the run.
            durations: What each operation takes.
            deaths: When some actors stop for ever.
            on_link: For how much of that a peer's transfer has the server's link for itself.
        """
        self.durations, self.now, self.deaths, self.on_link = durations, now, deaths or {}, on_link
        self.free_at = {"pull": 0.0, "push": 0.0}  # the server's link, from it and to it
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
        raise RunError(HANGING)

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
            self._schedule(life, self._in_line(life, following) + self.durations(life.name, following))

    def _in_line(self, life: Life, operation: Operation) -> float:
        """How long a peer's transfer stands in line for the link, which then is its own for a while."""
        if not life.name.startswith("peer") or operation.name not in self.free_at:
            return 0.0
        begins = max(self.now, self.free_at[operation.name])
        self.free_at[operation.name] = begins + self.on_link(operation)
        return begins - self.now

    def _wait(self, life: Life, wait: Operation) -> None:
        worker = life.name.startswith("worker")
        newest = self.database.newest()
        if worker and newest is not None and newest.version != wait.version:
            self._stop_polling(life)  # what it would wait for is there already: it looks again, as a real one does
            self._schedule(life, self.durations(life.name, wait))
        elif worker and self.poller not in (None, life):
            self.idle.append(life)
        elif (self.exact and not worker) or life.name.startswith(("server", "peer")):
            # For documents and records: behind barriers nobody waits for a time, and peers and server for each other.
            self.waiting.append(life)
        else:
            if worker:
                self.poller = life
            elif self.waiting and self.database.changes == self.seen and not self._is_anything_to_come():
                raise RunError(HANGING)  # peers, server: for each other, and nobody would ever tell them
            self._schedule(life, self.durations(life.name, wait))

    def _is_anything_to_come(self) -> bool:
        """Whether the end of an operation of anybody's is awaited."""
        return any(ticket == life.ticket for _, ticket, life in self.queue)

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
        at_once = seconds == 0 and life.announced is not None and life.announced.name == "checkpoint"
        self._queue(life, self.now + seconds, AT_ONCE if at_once else self.tickets)

    def _queue(self, life: Life, at: float, ticket: int) -> None:
        life.ticket = ticket
        heapq.heappush(self.queue, (at, ticket, life))
        self.tickets += 1

    def state(self) -> dict[str, Any]:
        """Who does what until when, and who waits for what, but for the life that is being resumed right now."""
        queued = [
            (at, life) for at, ticket, life in sorted(self.queue, key=lambda entry: entry[:2]) if ticket == life.ticket
        ]
        ends = {id(life): at for at, life in queued}
        lives = [*(life for _, life in queued), *self.idle, *self.waiting]
        return {
            "names": [life.name for life in lives],
            "tasks": [life.task for life in lives],
            "operations": [_operation(life)[0] for life in lives],
            "details": [_operation(life)[1:] for life in lives],
            "since": [life.since for life in lives],
            "ends": [ends.get(id(life), math.inf) for life in lives],
            "idle": len(self.idle),
            "waiting": len(self.waiting),
            "poller": lives.index(self.poller) if self.poller is not None else -1,
            "is_told": self.seen == self.database.changes,
            "free_at": dict(self.free_at),
        }

    def restore(self, state: Mapping[str, Any], going_on: Life, tasks: Iterable[Task[Any]]) -> None:
        """Goes on from `state()`: lives that were added, their actors restored, come back to where they were.

        Args:
            state: What `state` gave.
            going_on: The life that was being resumed then.
            tasks: Those under way, one an actor at most, in the order of the actors.
        """
        self.queue.clear()
        own, beside = {life.name: life for life in self.lives}, iter(tasks)
        lives = []
        for number, name in enumerate(map(str, state["names"])):
            task, word, since = (
                int(state["tasks"][number]),
                str(state["operations"][number]),
                float(state["since"][number]),
            )
            life = own[name]
            if task:
                life = Life(own[name].recorder, next(beside).advance, task)
                self.tasks = max(self.tasks, task)
            operation: Operation | Task[Any] | None = Operation("wait")
            if word != "wait":  # from a wait an actor goes on as it begins; to any other operation it must come first
                operation = life.advance()
            if not isinstance(operation, Operation) or operation.name != word:
                raise ValueError(f"{name} was at a {word}, and comes to {operation}")
            version, examples, size, seconds = state["details"][number].tolist()
            life.announced = operation._replace(
                version=int(version), examples=int(examples), bytes=int(size), seconds=seconds
            )
            life.since = since
            if math.isfinite(ends := float(state["ends"][number])):
                self._queue(life, ends, self.tickets)
            lives.append(life)
        idle, waiting = int(state["idle"]), int(state["waiting"])
        self.idle, self.waiting = (
            lives[len(lives) - idle - waiting : len(lives) - waiting],
            lives[len(lives) - waiting :],
        )
        self.poller = lives[int(state["poller"])] if state["poller"] >= 0 else None
        self.free_at |= {way: float(at) for way, at in state.get("free_at", {}).items()}  # of an older version none
        self.news = self.database.newest(), self.database.get("finished")
        self.seen = self.database.changes - (not state["is_told"])
        self._resume(going_on)
        self._tell()


def _operation(life: Life) -> Operation:
    if life.announced is None:
        raise RuntimeError(f"{life.name} has not begun.")
    return life.announced
