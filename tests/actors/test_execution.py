"""An actor's life on a real clock: what of it the database is told, and how it ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from issgd_cli.actors.actor import Operation, Task
from issgd_cli.actors.execution import Execution
from issgd_cli.config.config import Config
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.errors import AwayError, DatabaseError, GoneError, IssgdError, RunError


class Synchronised(MemoryDatabase):
    """One in memory whose clock is read as a server's is."""

    error: DatabaseError | None = None  # what the reading raises
    readings = 0

    def synchronise(self) -> float:
        self.readings += 1
        if self.error is not None:
            raise self.error
        return 0.0


@pytest.fixture
def database(begun: Callable[[Config], MemoryDatabase], configured: Callable[..., Config]) -> Synchronised:
    """In which a run has just begun."""
    plain = begun(configured())
    synchronised = Synchronised(lambda: 0.0)
    vars(synchronised).update(vars(plain))
    return synchronised


class Player:
    """An actor that does what it is told to."""

    def __init__(self, *turns: Operation | Task[Any] | Callable[[], object]) -> None:
        self.turns = turns
        self.stopped = False

    def run(self) -> Generator[Operation | Task[Any]]:
        for turn in self.turns:
            if callable(turn):
                turn()
            else:
                yield turn

    def stop(self) -> None:
        self.stopped = True

    def status(self) -> dict[str, Any]:
        return {"step": 7}


def fail(error: IssgdError) -> Callable[[], object]:
    def turn() -> None:
        raise error

    return turn


def test_a_life_leaves_its_operations_and_its_last_word(database: Synchronised) -> None:
    train = Operation("train", version=1, examples=8, bytes=3)
    Execution("master", Player(train, train, Operation("publish", version=2)), database).run()
    events = [event for batch in database.events().values() for event in batch]
    assert [(event.actor, event.event, event.version) for event in events] == [
        ("master", "train", 1),  # both
        ("master", "publish", 2),
    ]
    status = database.statuses()["master"]
    assert (status["doing"], status["step"], status["bytes"]) == ("finished", 7, 6)
    assert status["examples"] == {"train": 16, "publish": 0}
    assert status["process"] == os.getpid()


def test_a_task_is_done_beside_the_actor(database: Synchronised) -> None:
    reached, done = threading.Event(), threading.Event()

    def operations() -> Generator[Operation, None, int]:
        assert reached.wait(20)
        yield Operation("audit", examples=5)
        done.set()
        return 3

    task = Task(operations())
    player = Player(task, Operation("train", examples=8), reached.set, lambda: done.wait(20), Operation("wait"))
    Execution("master", player, database).run()
    while not task.done:
        time.sleep(0.01)
    assert task.result() == 3
    assert database.statuses()["master"]["examples"]["train"] == 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_operation_end_and_the_actor_save(database: Synchronised, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    ended: list[str] = []
    player = Player(
        Operation("train"),
        lambda: os.kill(os.getpid(), number),
        lambda: ended.append("train"),
        Operation("wait", seconds=3600.0),
        Operation("publish"),
        lambda: ended.append("publish"),
    )
    with pytest.raises(SystemExit) as end:
        Execution("monitor", player, database).run()
    assert end.value.code == 128 + number
    assert (player.stopped, ended) == (True, ["train"])
    assert database.statuses()["monitor"]["doing"] == "stopped"
    assert signal.getsignal(number) is before


def test_a_failure_is_told_the_database_too(database: Synchronised) -> None:
    with pytest.raises(RunError):
        Execution("monitor", Player(fail(RunError("the disk\nis full"))), database).run()
    status = database.statuses()["monitor"]
    assert (status["doing"], status["notices"]) == ("failed", ["the disk is full"])


def test_what_the_system_refuses_is_told_with_what_to_do(database: Synchronised) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device", "trace.csv")

    with pytest.raises(IssgdError, match=r"^trace\.csv cannot be used: No space left on device"):
        Execution("monitor", Player(full), database).run()
    assert "No space left" in database.statuses()["monitor"]["notices"][0]


@pytest.mark.parametrize(("name", "raises"), [("worker-0", False), ("master", True)])
def test_a_worker_whose_run_is_over_need_not_find_its_records(database: Synchronised, name: str, raises: bool) -> None:
    execution = Execution(name, Player(fail(DatabaseError("no such record"))), database)
    with pytest.raises(DatabaseError):
        execution.run()
    database.put("finished", {})
    if raises:
        with pytest.raises(DatabaseError):
            execution.run()
    else:
        execution.run()


def test_a_run_that_is_gone_ends_the_actor_and_a_server_that_is_away_does_not(
    database: Synchronised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issgd_cli.actors.execution.REPORT_SECONDS", 0.005)
    database.error = AwayError("it does not answer")

    def read_twice() -> None:
        seen = database.readings
        while database.readings < seen + 2:
            time.sleep(0.005)

    def forever() -> Generator[Operation]:
        read_twice()
        database.error = GoneError("the run is gone")
        while True:
            yield Operation("wait", seconds=0.005)

    player = Player()
    monkeypatch.setattr(player, "run", forever)
    with pytest.raises(GoneError, match="the run is gone"):
        Execution("master", player, database).run()
