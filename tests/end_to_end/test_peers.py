"""Peers and a parameter server as real processes on a real server, and what becomes of them under harm."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import redis
from numpy.typing import NDArray

from issgd_cli.database.contributions import Contribution
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.errors import RecordError
from issgd_cli.runs import traces
from issgd_cli.runs.arrays import load_arrays
from issgd_cli.runs.checkpoints import load_checkpoint
from tests.chaos.run import Run
from tests.end_to_end.conftest import CommandLine
from tests.processes import eventually

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")

SETTINGS = ("cluster.roles=peers", "worker.count=0", "worker.chunk_size=1", "peers.count=2", "cluster.threads=1")
PEERS = ("--mode", "relaxed", *(word for setting in SETTINGS for word in ("--set", setting)))
LONG = ("--steps", "1000000", "--set", "monitor.every_seconds=0.2")  # however fast the machine is


def interrupt(run: Run) -> None:
    """Ctrl-C, and the end that follows."""
    run.launcher.send_signal(signal.SIGINT)
    assert run.end() == 130, run.said().read_text()
    assert (run.folder / "checkpoint" / "checkpoint.npz").exists()


def last(folder: Path, quantity: str) -> float:
    trace = traces.read(folder / "trace.csv")
    return float(trace[trace.quantity == quantity].value.iloc[-1])


def restarts_of(run: Run) -> dict[str, int]:
    """Who was started again, and how often; the manifest may just be written."""
    try:
        return dict(json.loads((run.folder / "manifest.json").read_text()).get("restarts") or {})
    except ValueError:
        return {}


def _lines_of(run: Run, actor: str, others: tuple[str, ...]) -> str:
    """Of the events, those of such actors but for the others."""
    lines = (run.folder / "events.csv").read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith(actor) and not line.startswith(others))


@pytest.mark.long
def test_peers_killed_and_frozen_lose_a_gradient_and_the_server_goes_back_to_its_checkpoint(issgd: CommandLine) -> None:
    often = ("--set", "master.checkpoint_every_seconds=0.5")
    run = Run(issgd.place, issgd.data_dir, "peers-harmed", (*PEERS, *LONG, *often))
    run.start()
    try:
        assert run.comes_to(30)
        frozen, killed = sorted(run.pids("peer"))
        os.kill(frozen, signal.SIGSTOP)
        before = run.step()
        eventually(lambda: run.step() > before + 10 or run.is_over(), "the other peer goes on")
        os.kill(frozen, signal.SIGCONT)
        run.kill(killed)
        eventually(lambda: set(run.pids("peer")) - {frozen, killed} or run.is_over(), "another peer")
        for name, victim in (("server", run.pids("server")[-1]), ("database", run.server())):
            run.kill(victim)
            eventually(lambda: name in restarts_of(run) or run.is_over(), f"{name} is started again")  # noqa: B023
            before = run.step()
            eventually(lambda: run.step() > before + 10 or run.is_over(), "it goes on from its checkpoint")  # noqa: B023
        interrupt(run)
        assert {name.partition("-")[0] for name in restarts_of(run)} == {"peer", "server", "database"}
        trace = traces.read(run.folder / "trace.csv")
        assert not trace.duplicated(["step", "seconds", "quantity"]).any()
        assert last(run.folder, "staleness/gradients/refused") == 0
    finally:
        run.abandon()


@pytest.mark.soak
def test_a_parameter_server_that_freezes_for_a_while_goes_on_where_it_was(issgd: CommandLine) -> None:
    run = Run(issgd.place, issgd.data_dir, "peers-frozen", (*PEERS, *LONG))
    run.start()
    try:
        assert run.comes_to(30)
        (server,) = run.pids("server")
        os.kill(server, signal.SIGSTOP)
        time.sleep(1.0)  # what was under way is written
        before = run.step()
        time.sleep(2.0)
        assert run.step() == before
        os.kill(server, signal.SIGCONT)
        eventually(lambda: run.step() > before + 20 or run.is_over(), "it goes on")
        assert run.pids("server") == [server]
        interrupt(run)
        assert restarts_of(run) == {}
        trace = traces.read(run.folder / "trace.csv")
        assert not trace.duplicated(["step", "seconds", "quantity"]).any()
        assert last(run.folder, "staleness/gradients/refused") == 0
    finally:
        run.abandon()


@pytest.mark.long
def test_wrong_gradients_are_refused_and_told_and_the_run_finishes(issgd: CommandLine) -> None:
    """Of a real client, with a peer's password, on a real server."""
    run = Run(
        issgd.place, issgd.data_dir, "peers-wrong", (*PEERS, "--steps", "600", "--set", "monitor.every_seconds=0.2")
    )
    run.start()
    try:
        assert run.comes_to(10)
        url = run.url("peer")
        with contextlib.closing(RedisDatabase(url, run.run_name)) as database, redis.Redis.from_url(url) as raw:
            found = database.parameters()
            assert found is not None
            (newest, _), parameters = found

            def hands_over(peer: int, values: NDArray[np.float32]) -> None:
                assert database.contribute(Contribution(peer, 1, newest, 0.5, values))
                eventually(lambda: database.is_taken(peer) or run.is_over(), f"{peer} is taken")

            hands_over(901, np.full(len(parameters), np.nan, np.float32))
            hands_over(902, np.ones(7, np.float32))
            with pytest.raises(RecordError, match="never was"):
                database.contribute(Contribution(903, 1, newest + 10**6, 0.5, parameters))
            # Past our own client, as whoever has the password can.
            told = json.dumps([10**9, newest + 10**6, 1, 0.5, "float32", 4])
            raw.hset(f"issgd:{run.run_name}:contributions", "903", told)
            eventually(lambda: database.is_taken(903) or run.is_over(), "903 is taken")
            assert not run.is_over(), "too few steps for this test"
        assert run.end() == 0, run.said().read_text()
        assert last(run.folder, "staleness/gradients/refused") == 3
        said = run.said().read_text()
        for line in (
            "901 is refused: it is not finite",
            "902 is refused: it is not of",
            "903 is refused: it is of ver",
        ):
            assert said.count(f"a gradient of peer {line}") == 1, said
        assert run.state() == "finished"
        assert "Warning" not in (run.folder / "logs" / "server.log").read_text()
    finally:
        run.abandon()


@pytest.mark.long
def test_a_run_that_is_interrupted_is_resumed(issgd: CommandLine) -> None:
    run = Run(issgd.place, issgd.data_dir, "peers-again", (*PEERS, *LONG))
    run.start()
    try:
        assert run.comes_to(30)
        interrupt(run)
        before = load_checkpoint(run.folder / "checkpoint" / "checkpoint.npz")
        run.start()
        assert run.comes_to(before.step + 20)
        interrupt(run)
        after = load_checkpoint(run.folder / "checkpoint" / "checkpoint.npz")
        assert after.version > before.version
        trace = traces.read(run.folder / "trace.csv")
        counts = trace[trace.quantity.str.startswith("staleness/gradients/count/")].groupby("step").value.sum()
        # One an applied gradient; where it was resumed, as many as there were at the last report before.
        assert ((counts.index - counts) >= 0).all()
        assert ((counts.index - counts) <= 64).all()
    finally:
        run.abandon()


@pytest.mark.long
def test_synchronous_sgd_gives_the_same_bits_on_real_processes_and_on_a_virtual_clock(issgd: CommandLine) -> None:
    """Its minibatches depend on peer and count alone, and their sum on no order."""
    same = (*PEERS, "--set", "peers.mode=synchronous", "--method", "sgd", "--steps", "40")
    parameters = []
    for cluster in ("local", "simulated"):
        done = issgd(*issgd.train(cluster, *same, "--cluster", cluster))
        assert done.returncode == 0, done.stderr
        folder = issgd.run_of(cluster)
        assert last(folder, "staleness/gradients/max_versions") == 0
        parameters.append(load_arrays(folder / "parameters.npz"))
    for name, values in parameters[0].items():
        np.testing.assert_array_equal(values, parameters[1][name])


@pytest.mark.soak
def test_a_synchronous_run_takes_no_more_peers(issgd: CommandLine) -> None:
    run = Run(issgd.place, issgd.data_dir, "peers-full", (*PEERS, *LONG, "--set", "peers.mode=synchronous"))
    run.start()
    try:
        assert run.comes_to(10)
        file = issgd.place / "url-of-synchronous"
        file.touch(0o600)
        file.write_text(run.url("peer"))
        peer = issgd("peer", "--run", run.run_name, "--data-dir", issgd.data_dir, "--database-file", file)
        assert peer.returncode == 1
        assert "takes no more peers: with peers.mode = 'synchronous'" in peer.stderr
        assert "join by" not in run.said().read_text()
        interrupt(run)
    finally:
        run.abandon()


@pytest.mark.long
def test_a_worker_cannot_join_peers_and_a_peer_can(issgd: CommandLine) -> None:
    run = Run(issgd.place, issgd.data_dir, "peers-joined", (*PEERS, *LONG))
    run.start()
    try:
        assert run.comes_to(10)
        file = issgd.place / "url"
        file.touch(0o600)
        file.write_text(run.url("peer"))
        address = ("--run", run.run_name, "--data-dir", issgd.data_dir, "--database-file", file)
        worker = issgd("worker", *address)
        assert worker.returncode == 1
        assert "has no worker: its cluster.roles are 'peers'" in worker.stderr
        peer = issgd.start("peer", *address)
        eventually(lambda: ",push," in _lines_of(run, "peer-", others=("peer-0", "peer-1")), "its gradients come")
        peer.terminate()
        assert peer.wait(60) == 143
        interrupt(run)
    finally:
        run.abandon()
