"""What dies is started again, what is away is waited for, and what cannot be mended ends the run clearly."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import redis

from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.redis.connection import ANSWER_SECONDS
from issgd_cli.runs import traces
from tests.chaos.run import Run
from tests.end_to_end.conftest import CommandLine, comparable, undisturbed
from tests.processes import PATIENCE, eventually, servers_of
from tests.servers import administered

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")

LONG = ("--steps", "100000")


def run_of(issgd: CommandLine, name: str, *arguments: str) -> Run:
    return Run(issgd.place, issgd.data_dir, name, arguments)


def restarts_of(run: Run) -> dict[str, int]:
    return dict(json.loads((run.folder / "manifest.json").read_text())["restarts"])


@pytest.mark.parametrize(
    ("victim", "number", "how"),
    [
        (
            "master",
            signal.SIGKILL,
            "The master was killed by signal 9, by somebody or by the system for want of memory",
        ),
        ("database", signal.SIGKILL, "The database server was killed by signal 9"),
    ],
)
@pytest.mark.soak
def test_who_may_not_be_started_again_ends_the_run_clearly(
    issgd: CommandLine, victim: str, number: signal.Signals, how: str
) -> None:
    run = run_of(issgd, f"dead-{victim}", *LONG, "--set", "cluster.restarts=0")
    run.start()
    try:
        assert run.comes_to(0)
        run.kill(run.server() if victim == "database" else run.pids(victim)[-1], number)
        assert run.end() == 1
        assert how in run.said().read_text()
        manifest = json.loads((run.folder / "manifest.json").read_text())
        assert (manifest["state"], manifest["failure"]["actor"].partition("-")[0]) == ("failed", victim)
        eventually(lambda: not run.pids(""), "all are gone")
    finally:
        run.abandon()


@pytest.mark.long
def test_a_worker_is_started_again_so_often_and_no_more(issgd: CommandLine) -> None:
    run = run_of(issgd, "again", *LONG, "--workers", "1", "--set", "cluster.restarts=2")
    run.start()
    try:
        seen: list[int] = []
        for _ in range(3):
            assert run.comes_to(0)
            eventually(lambda: set(run.pids("worker")) - set(seen), "another worker")  # noqa: B023 - not kept
            seen += run.pids("worker")
            run.kill(seen[-1])
        assert run.end() == 1
        assert "(started 3 times)" in run.said().read_text()
        assert restarts_of(run) == {"worker-0": 2}
    finally:
        run.abandon()


# Longer than a client waits for an answer, so that it must try again; and so long that it must do so more than once.
@pytest.mark.parametrize("seconds", [ANSWER_SECONDS + 2, pytest.param(30, marks=pytest.mark.soak)])
@pytest.mark.long
def test_a_while_without_the_database_stops_nobody_and_is_told(issgd: CommandLine, seconds: int) -> None:
    run = run_of(issgd, "outage", "--mode", "relaxed", *LONG, "--set", "monitor.every_seconds=0.2")
    run.start()
    try:
        assert run.comes_to(64)
        everybody = {actor: run.pids(actor) for actor in ("master", "monitor", "worker")}
        server, url, name = run.server(), run.url("master"), run.run_name
        os.kill(server, signal.SIGSTOP)
        frozen = time.monotonic()
        before = run.step()
        eventually(lambda: "the database does not answer" in run.said().read_text(), "the outage is told of")
        time.sleep(max(0, frozen + seconds - time.monotonic()))
        os.kill(server, signal.SIGCONT)
        eventually(lambda: run.step() > before, "the trace goes on")
        eventually(lambda: "the database answers again, after" in run.said().read_text(), "its end is told of")
        assert {actor: run.pids(actor) for actor in everybody} == everybody
        assert "restarts" not in json.loads((run.folder / "manifest.json").read_text())
        database = RedisDatabase(url, name)
        assert database.statuses()["master"]["step"] > before
        database.close()

        def longest() -> float:
            events = traces.read_events(run.folder / "events.csv")
            trained = events[(events.actor == "master") & (events.event == "train")]
            return float((trained.end - trained.start).max())

        # The master trained through it: one block of steps, with one version. Its event comes with a later report.
        eventually(lambda: longest() > seconds / 2, "the master's steps through the outage are told of")
        assert not run.is_over()
        run.launcher.send_signal(signal.SIGINT)
        assert run.end() == 130
    finally:
        run.abandon()


@pytest.mark.long
def test_a_server_killed_while_the_monitor_audits_leaves_the_same_trace(issgd: CommandLine) -> None:
    """Training is over, its workers have left: what is lost then must be made again, and audited where it was not."""
    many = ("--set", "monitor.audit_every_steps=8")
    run = run_of(issgd, "late", *many)
    run.start()
    try:
        assert run.comes_to(0)
        trace = run.folder / "trace.csv"
        eventually(lambda: "audit/trace/in_use" in trace.read_text() or run.is_over(), "the first audit")
        assert not run.is_over()
        run.kill(run.server())
        assert run.end() == 0, run.said().read_text()
        assert comparable(run.folder).equals(undisturbed(issgd, "late", *many))
    finally:
        run.abandon()


@pytest.mark.long
def test_a_server_that_dies_while_the_run_goes_back_is_started_again(issgd: CommandLine) -> None:
    steps = ("--steps", "320")
    often = ("--set", "master.checkpoint_every_seconds=0.2", "--set", "cluster.restarts=20")
    run = run_of(issgd, "twice", *steps, *often)
    run.start()
    try:
        assert run.comes_to(64)
        killed: set[int] = set()
        for _ in range(4):  # each as soon as it is there: while it is waited for, or filled, or just done
            eventually(lambda: set(servers_of(run.launcher.pid)) - killed or run.is_over(), "another server")
            for server in set(servers_of(run.launcher.pid)) - killed:
                os.kill(server, signal.SIGKILL)
                killed.add(server)
        assert run.end() == 0, run.said().read_text()
        assert len(killed) == 4
        assert restarts_of(run)["database"] == 4
        assert comparable(run.folder).equals(undisturbed(issgd, "twice", *steps))
    finally:
        run.abandon()


@pytest.mark.long
def test_ctrl_c_is_heard_while_a_server_that_is_away_is_waited_for(issgd: CommandLine) -> None:
    run = run_of(issgd, "deaf", *LONG)
    run.start()
    try:
        assert run.comes_to(0)
        server = run.server()
        os.kill(server, signal.SIGSTOP)
        run.kill(run.pid("master"))
        eventually(lambda: "going back to the last checkpoint" in run.said().read_text(), "it goes back")
        run.launcher.send_signal(signal.SIGINT)
        assert run.launcher.wait(60) == 130
        eventually(lambda: not run.pids(""), "all are gone")
    finally:
        run.abandon()


@pytest.mark.long
def test_a_run_that_has_lost_its_checkpoints_does_not_begin_anew(issgd: CommandLine) -> None:
    run = run_of(issgd, "lost", *LONG, "--set", "master.checkpoint_every_seconds=0.1")
    run.start()
    try:
        eventually(
            lambda: run.step() >= 64 and "checkpointed" in (run.folder / "manifest.json").read_text(), "one is saved"
        )
        run.launcher.send_signal(signal.SIGINT)
        assert run.end() == 130
        rows = (run.folder / "trace.csv").read_bytes()
        for path in (run.folder / "checkpoint").glob("*.npz"):
            path.rename(run.place / path.name)
        run.start()
        assert run.end() == 1
        assert "checkpoint.npz is gone" in run.said().read_text()
        assert (run.folder / "trace.csv").read_bytes() == rows
    finally:
        run.abandon()


@pytest.mark.long
def test_a_shared_server_that_is_emptied_is_filled_again_and_a_worker_from_elsewhere_comes_back(
    issgd: CommandLine, tmp_path: Path
) -> None:
    steps = ("--steps", "320")
    often = ("--set", "master.checkpoint_every_seconds=0.2")
    with administered(tmp_path / "server.log") as (server, administrator):
        owner, invitation = tmp_path / "owner", tmp_path / "worker"
        for path, url in ((owner, server.url), (invitation, server.worker_url)):
            path.touch(0o600)
            path.write_text(url)
        run = run_of(issgd, "emptied")
        launcher = issgd.start(*issgd.train("emptied", *steps, *often, "--workers", "0", "--database-file", owner))
        eventually(lambda: list((issgd.place / "results/emptied").glob("*/seed-000/manifest.json")), "a manifest")
        eventually(lambda: "run_name" in json.loads((run.folder / "manifest.json").read_text()), "a name")
        eventually(lambda: RedisDatabase(server.url, run.run_name).get("description") is not None, "the run")
        worker = issgd.start(
            *("worker", "--database-file", invitation, "--run", run.run_name, "--data-dir", issgd.data_dir)
        )
        eventually(lambda: run.step() >= 64 or launcher.poll() is not None, "step 64")
        with redis.Redis.from_url(administrator) as client:
            client.flushall()
        eventually(lambda: run.step() >= 160 or launcher.poll() is not None, "step 160")
        server.process.kill()  # its socket refuses everybody for a while, and then it is empty
        time.sleep(4)
        server.restart()
        _, err = launcher.communicate(timeout=PATIENCE)
        assert launcher.returncode == 0, err
        out, err = worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0, err
        assert "has left the database" in out
        assert sum(restarts_of(run).values()) >= 2
        assert comparable(run.folder).equals(undisturbed(issgd, "emptied", *steps))
