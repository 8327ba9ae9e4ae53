"""When an actor's death is noticed, and what follows; no actor here is more than a line of the test's script."""

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from issgd_cli.clusters.cluster import GONE_STATUS, ActorError, Interrupted
from issgd_cli.clusters.restarts import LONG_LIFE_SECONDS
from issgd_cli.clusters.service import Service
from issgd_cli.clusters.supervisor import GRACE_SECONDS, LOG_LINES, Supervisor
from issgd_cli.config.config import Config
from issgd_cli.database.server import Server
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.problem import Problem
from issgd_cli.runs.checkpoints import Checkpoint, save_checkpoint
from issgd_cli.runs.folder import RunFolder
from tests.clusters.conftest import OwnedMemory

WORK_SECONDS = 1000.0  # how long master and monitor live that nothing happens to


def usual_seconds(actor: str) -> float:
    """A worker lives until it is ended, since it does not hear here that the run has finished."""
    return WORK_SECONDS if actor in ("master", "server", "monitor") else math.inf


@dataclass
class Life:
    """One that is told when and how it dies; a Handle.

    Attributes:
        now: The machine's clock, a list of one.
        until: When it dies.
        status: What of.
        words: What is left in its log.
        deaf: Whether it must be killed to end.
        asked: What was asked of it.
    """

    now: list[float]
    until: float
    status: int = 0
    words: str = ""
    deaf: bool = False
    asked: list[str] = field(default_factory=list)

    def poll(self) -> int | None:
        return self.status if self.now[0] >= self.until else None

    def end(self) -> None:
        self.asked.append("end")
        if self.poll() is None and not self.deaf:
            self.until, self.status = self.now[0], 143

    def kill(self) -> None:
        if self.poll() is None:
            self.asked.append("kill")
            self.until, self.status = self.now[0], -9

    def last_words(self) -> str:
        return self.words


Script = dict[str, list[dict[str, Any]]]


@dataclass
class Stage:
    """A Launcher whose actors live as the script says: for each of them its first lives, `after` seconds each."""

    now: list[float]
    script: Script
    lives: dict[str, list[Life]] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    environments: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def start(self, actor: str, environment: Mapping[str, str]) -> Life:
        earlier = self.lives.setdefault(actor, [])
        scripted = self.script.get(actor, [])
        told = dict(scripted[len(earlier)]) if len(earlier) < len(scripted) else {}
        life = Life(self.now, self.now[0] + told.pop("after", usual_seconds(actor)), **told)
        earlier.append(life)
        self.starts.setdefault(actor, []).append(self.now[0])
        self.environments[actor] = environment
        return life


class Patience(threading.Event):
    """Waiting takes no time: the clock is moved."""

    def __init__(self, now: list[float], until: float) -> None:
        super().__init__()
        self.now, self.until = now, until

    def wait(self, timeout: float | None = None) -> bool:
        self.now[0] += timeout or 0.0
        return self.now[0] >= self.until


@dataclass
class Played:
    """A run under supervision, on a stage."""

    stage: Stage
    supervisor: Supervisor
    folder: RunFolder
    healths: list[dict[str, str]]

    @property
    def notices(self) -> list[str]:
        return self.supervisor.notices.snapshot.notices

    @property
    def restarts(self) -> dict[str, int] | None:
        return self.folder.read_manifest().get("restarts")

    def pauses(self, actor: str) -> list[float]:
        """Between each death and the next start, to a tenth of a second."""
        ends = [life.until for life in self.stage.lives[actor]]
        return [round(start - end, 1) for end, start in zip(ends, self.stage.starts[actor][1:], strict=False)]


Play = Callable[..., Played]


@pytest.fixture
def play(
    now: list[float],
    service: Service,
    configured: Callable[..., Config],
    data: Prepared,
    new_folder: Callable[[str], RunFolder],
) -> Play:
    """Sets a run up, with one worker, on a stage with this script."""

    def of(script: Script, *settings: str, stopped_after: float = 1e9, server: Server | None = None) -> Played:
        folder = new_folder("run")
        folder.update_manifest(state="running")
        service.server = server
        stage, healths = Stage(now, script), list[dict[str, str]]()
        count = "peers.count=2" if "cluster.roles=peers" in settings else "worker.count=1"
        config = configured(count, *settings)
        supervisor = Supervisor(
            config,
            folder,
            Problem(config, data),
            service,
            stage,
            lambda snapshot: healths.append(dict(snapshot.processes)),
            Patience(now, now[0] + stopped_after),
        )
        return Played(stage, supervisor, folder, healths)

    return of


def test_a_run_whose_actors_do_their_work_is_left_alone(play: Play, database: OwnedMemory) -> None:
    played = play({"worker-0": [{"after": WORK_SECONDS - 1}]})
    played.supervisor.run()
    assert list(played.stage.lives) == ["monitor", "master", "worker-0"]
    assert {len(lives) for lives in played.stage.lives.values()} == {1}
    assert played.stage.environments["master"] == {"ISSGD_DATABASE": "redis://somewhere"}
    assert played.healths[-1] == dict.fromkeys(played.stage.lives, "finished")
    assert played.healths[0] == dict.fromkeys(played.stage.lives, "running")
    assert played.restarts is None
    assert (database.get("description") or {})["resumed"] is False


@pytest.mark.parametrize("status", [-9, 1, GONE_STATUS])
def test_a_dead_worker_is_started_again_alone_after_growing_pauses(play: Play, status: int) -> None:
    played = play({"worker-0": [{"after": 5.0, "status": status}] * 4})
    played.supervisor.run()
    pauses = played.pauses("worker-0")
    for pause, expected in zip(pauses, [0.5, 1, 2, 4], strict=True):
        assert expected <= pause <= expected + 0.3  # a look or two later
    assert [len(played.stage.lives[actor]) for actor in ("monitor", "master")] == [1, 1]
    assert played.restarts == {"worker-0": 4}
    assert sum(line.endswith("; starting it again") for line in played.notices) == 4
    assert {"restarting", "running"} <= {healths["worker-0"] for healths in played.healths}


def test_a_monitor_that_was_killed_is_started_again_alone(play: Play) -> None:
    played = play({"monitor": [{"after": 5.0, "status": -9}]})
    played.supervisor.run()
    assert {actor: len(lives) for actor, lives in played.stage.lives.items()} == {
        "monitor": 2,
        "master": 1,
        "worker-0": 1,
    }
    assert played.notices[1:] == ["monitor was killed by signal 9; starting it again"]


def test_a_long_life_is_forgiven_earlier_deaths(play: Play) -> None:
    short, long = {"after": 5.0, "status": -9}, {"after": LONG_LIFE_SECONDS + 5, "status": -9}
    played = play({"worker-0": [short, short, long, short]}, "cluster.restarts=2")
    played.supervisor.run()
    assert [round(pause * 2) / 2 for pause in played.pauses("worker-0")] == [0.5, 1, 0.5, 1]


def test_a_killed_master_leads_back_to_the_checkpoint(
    play: Play, database: OwnedMemory, checkpoint_of: Callable[[Config, int], Checkpoint]
) -> None:
    played = play({"master": [{"after": 50.0, "status": -9}]})
    trace = "step,seconds,quantity,value\n3,0.3,loss/train,1.0\n6,0.6,loss/train,0.5\n"
    begin = played.stage.start

    def start(actor: str, environment: Mapping[str, str]) -> Life:
        if not played.stage.lives:  # the run has just begun: what it comes to
            played.folder.trace.write_text(trace)
            save_checkpoint(played.folder.checkpoint, checkpoint_of(played.supervisor.config, 5))
        elif len(played.stage.lives.get("monitor", [])) == 2:  # and what it was set back to
            assert database.seconds() == 0.5
        return begin(actor, environment)

    played.stage.start = start  # type: ignore[method-assign]
    played.supervisor.run()
    lives = played.stage.lives
    assert {actor: len(lives[actor]) for actor in lives} == {"monitor": 2, "master": 2, "worker-0": 1}
    assert lives["monitor"][0].asked == ["kill"]  # it knows what is lost
    assert (database.get("description") or {})["resumed"] is True
    assert played.folder.trace.read_text().splitlines()[1:] == ["3,0.3,loss/train,1.0"]
    assert "master was killed by signal 9; going back to the last checkpoint" in played.notices
    assert played.restarts == {"master": 1}
    assert played.folder.read_manifest()["checkpointed"] is True


@pytest.mark.parametrize("actor", ["master", "monitor"])
def test_an_actor_that_finds_its_run_gone_leads_back_to_the_checkpoint(play: Play, actor: str) -> None:
    played = play({actor: [{"after": 50.0, "status": GONE_STATUS}]})
    played.supervisor.run()
    assert [len(played.stage.lives[name]) for name in ("monitor", "master", "worker-0")] == [2, 2, 1]


PEERS = ("cluster.roles=peers", "master.mode=relaxed", "worker.count=0", "worker.chunk_size=1")


def test_peers_are_looked_after_as_workers_and_their_server_as_a_master(play: Play) -> None:
    played = play(
        {
            "peer-0": [{"after": 5.0, "status": -9}],
            "peer-1": [{"after": 20.0}],  # takes the run for finished
            "server": [{"after": 50.0, "status": -9}],
        },
        *PEERS,
    )
    played.supervisor.run()
    lives = {actor: len(found) for actor, found in played.stage.lives.items()}
    assert lives == {"monitor": 2, "server": 2, "peer-0": 2, "peer-1": 2}
    assert played.restarts == {"peer-0": 1, "server": 1}
    assert "server was killed by signal 9; going back to the last checkpoint" in played.notices


def test_a_server_that_ended_with_an_error_ends_the_run(play: Play) -> None:
    played = play({"server": [{"after": 5.0, "status": 1, "words": "issgd: the training has diverged\n"}]}, *PEERS)
    with pytest.raises(ActorError, match=r"The server ended with status 1(.|\n)*has diverged") as error:
        played.supervisor.run()
    assert error.value.actor == "server"


def test_a_worker_that_took_the_run_for_finished_comes_back_when_the_run_goes_back(play: Play) -> None:
    played = play(
        {
            "worker-0": [{"after": 20.0}],
            "master": [{"after": 30.0}],
            "monitor": [{"after": 40.0, "status": GONE_STATUS}],
        }
    )
    played.supervisor.run()
    assert [len(played.stage.lives[name]) for name in ("monitor", "master", "worker-0")] == [2, 2, 2]
    assert played.restarts == {"monitor": 1}  # the worker has not died


@pytest.mark.parametrize("actor", ["master", "monitor"])
def test_an_actor_that_ended_by_itself_with_an_error_ends_the_run_with_its_last_words(play: Play, actor: str) -> None:
    words = "".join(f"line {number}\n" for number in range(20)) + "issgd: the model has diverged\n"
    played = play({actor: [{"after": 5.0, "status": 1, "words": words}]})
    with pytest.raises(ActorError) as error:
        played.supervisor.run()
    assert error.value.actor == actor
    first, *lines = str(error.value).splitlines()
    assert first == f"The {actor} ended with status 1."
    assert (len(lines), lines[-2]) == (LOG_LINES + 1, "  issgd: the model has diverged")
    assert lines[-1] == f"The whole log: {played.folder.log_of(actor)}"
    assert all(life.poll() is not None for lives in played.stage.lives.values() for life in lives)
    assert played.healths[-1] == {"monitor": "dead", "master": "dead", "worker-0": "dead"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("issgd: trace.csv cannot be written\n", "issgd: trace.csv cannot be written"),
        ("", "no space for the trace"),
        ("i", "no space for the trace"),  # what else it said, the full disk had no room for
    ],
)
def test_the_last_words_are_the_logs_or_what_the_database_was_told(
    play: Play, database: OwnedMemory, monkeypatch: pytest.MonkeyPatch, words: str, expected: str
) -> None:
    played = play({"monitor": [{"after": 5.0, "status": 1, "words": words}]})
    monkeypatch.setattr(database, "statuses", lambda: {"monitor": {"notices": ["no space for the trace"]}})
    with pytest.raises(ActorError) as error:
        played.supervisor.run()
    assert str(error.value).splitlines()[1] == f"  {expected}"


@pytest.mark.parametrize(("actor", "restarts"), [("worker-0", 2), ("master", 2), ("monitor", 2), ("master", 0)])
def test_too_many_deaths_end_the_run(play: Play, actor: str, restarts: int) -> None:
    played = play({actor: [{"after": 1.0, "status": -9, "words": "killed\n"}] * 9}, f"cluster.restarts={restarts}")
    with pytest.raises(ActorError) as error:
        played.supervisor.run()
    often = f" (started {restarts + 1} times)" if restarts else ""
    how = "was killed by signal 9, by somebody or by the system for want of memory"
    assert str(error.value).splitlines()[:2] == [f"The {actor} {how}{often}.", "  killed"]
    assert len(played.stage.lives[actor]) == restarts + 1
    assert played.restarts == ({actor: restarts} if restarts else None)


def test_restarts_are_counted_over_the_runs_launchers(play: Play) -> None:
    played = play({"worker-0": [{"after": 5.0, "status": -9}]})
    played.folder.update_manifest(restarts={"worker-0": 3, "database": 1})
    first = played.supervisor
    Supervisor(first.config, first.folder, first.problem, first.service, first.launcher, first.watch, first.stop).run()
    assert played.restarts == {"worker-0": 4, "database": 1}


def test_a_dead_server_is_started_again_and_filled_and_master_and_monitor_begin_anew(
    play: Play, database: OwnedMemory, now: list[float]
) -> None:
    process, restarted = Life(now, now[0] + 20.0, -9), list[float]()

    def restart() -> None:
        process.until = now[0] + WORK_SECONDS * 9
        restarted.append(now[0])

    server = SimpleNamespace(
        process=process, restart=restart, limits_workers=True, invitation=None, worker_url="unix://worker"
    )
    played = play({}, server=cast(Server, server))
    played.supervisor.run()
    assert len(restarted) == 1
    assert [len(played.stage.lives[name]) for name in ("monitor", "master", "worker-0")] == [2, 2, 1]
    assert played.notices == ["database was killed by signal 9; starting it again, from the last checkpoint"]
    assert played.restarts == {"database": 1}
    assert played.stage.environments["worker-0"] == {"ISSGD_DATABASE": "unix://worker"}


def test_who_says_stop_ends_workers_at_once_and_lets_master_and_monitor_save(play: Play, now: list[float]) -> None:
    played = play({"master": [{"deaf": True}]}, stopped_after=30.0)
    with pytest.raises(Interrupted):
        played.supervisor.run()
    asked = {actor: life.asked for actor, (life,) in played.stage.lives.items()}
    assert asked == {"monitor": ["end"], "master": ["end", "kill"], "worker-0": ["kill"]}
    master, monitor = (played.stage.lives[actor][0] for actor in ("master", "monitor"))
    assert GRACE_SECONDS <= master.until - monitor.until < GRACE_SECONDS + 1
    assert json.loads(played.folder.manifest.read_text()).get("restarts") is None


def test_a_stop_is_heard_in_the_pause_before_the_run_goes_back(play: Play) -> None:
    played = play({"master": [{"after": 5.0, "status": -9}]}, stopped_after=5.3)
    with pytest.raises(Interrupted):
        played.supervisor.run()
    assert len(played.stage.lives["master"]) == 1
