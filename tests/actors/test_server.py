"""The parameter server: what it makes of gradients in time, late and wrong; delays on a quadratic problem."""

import json
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli.actors import receiving, saving
from issgd_cli.actors.actor import Task
from issgd_cli.actors.peer import Peer
from issgd_cli.actors.server import Server
from issgd_cli.config.config import Config
from issgd_cli.database import SPLITS, Layout
from issgd_cli.database.contributions import TYPES, Contribution
from issgd_cli.database.documents import read_status
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.server import serving
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import ConfigError, RunError
from issgd_cli.problem import Problem
from issgd_cli.runs.checkpoints import load_checkpoint
from issgd_cli.runs.folder import RunFolder

Configured = Callable[..., Config]
Hired = Callable[..., Server]

CPU = torch.device("cpu")
PEERS = (
    "cluster.roles=peers",
    "cluster.kind=simulated",
    "worker.count=0",
    "worker.chunk_size=1",
    "master.mode=relaxed",
    "master.publish_every_steps=1",
    "optimizer.momentum=0",
    "optimizer.nesterov=false",
    "optimizer.learning_rate=0.1",
    "master.checkpoint_every_seconds=1000",
    "peers.count=3",
)


@pytest.fixture
def hired(data: Prepared, configured: Configured, new_folder: Callable[[str], RunFolder]) -> Hired:
    """A server at step 0 that has published version 1."""

    def of(*settings: str) -> Server:
        config = configured(*PEERS, "master.steps=1000", *settings)
        database, layout = MemoryDatabase(lambda: 1.0), Layout(**data.sizes, chunk_size=1)
        database.begin(layout, 0.0, {split: layout.empty(split) for split in SPLITS})
        server = Server.of(config, Problem(config, data), database, new_folder("run"), CPU)
        play(server)
        return server

    return of


def play(server: Server) -> None:
    """Until it waits; its life begins anew each time, as after a checkpoint."""
    for operation in server.run():
        if getattr(operation, "name", "") == "wait":
            return


def parameters(server: Server) -> Float64s:
    return server.learner.parameters.double().numpy().copy()


def hand_over(server: Server, peer: int, number: int, version: int, value: Any, size: int | None = None) -> None:
    """The way that no peer of ours would go: past what refuses a version that never was."""
    database = server.database
    assert isinstance(database, MemoryDatabase)
    gradient = np.full(len(server.learner.trained) if size is None else size, value, np.float32)
    database._waiting[peer] = Contribution(peer, number, version, 0.5, gradient)
    play(server)
    assert database.is_taken(peer)


def test_gradients_are_applied_as_they_come_however_old(hired: Hired) -> None:
    server = hired()
    before = parameters(server)
    for number, value in enumerate((1.0, 2.0, 4.0), 1):
        hand_over(server, 0, number, 1, value)
        assert server.published == (number + 1, number)
    np.testing.assert_allclose(parameters(server), before - 0.1 * 7, atol=1e-6)
    assert server.receiving.ages.counts == {0: 1, 1: 1, 2: 1}
    found = server.database.parameters()
    assert found is not None
    np.testing.assert_allclose(found[1], parameters(server))


@pytest.mark.parametrize(("mode", "applied"), [("drop", [1.0, 1.0, 0.0, 0.0]), ("damp", [1.0, 1.0, 1 / 2, 1 / 3])])
def test_what_is_older_than_the_limit_is_dropped_or_damped(hired: Hired, mode: str, applied: list[float]) -> None:
    server = hired("peers.staleness_limit_versions=1", f"peers.limit_mode={mode}")
    for number, weight in enumerate(applied, 1):
        before = parameters(server)
        hand_over(server, 0, number, 1, 3.0)
        np.testing.assert_allclose(parameters(server), before - 0.1 * 3 * weight, atol=1e-6)
    assert server.learner.step == sum(weight > 0 for weight in applied)


def test_a_synchronous_step_is_the_mean_of_one_gradient_of_each_peer(hired: Hired) -> None:
    server = hired("peers.mode=synchronous")
    before = parameters(server)
    hand_over(server, 2, 1, 1, 1.0)
    hand_over(server, 0, 1, 1, 2.0)
    hand_over(server, 2, 2, 1, 50.0)  # it has died, and come back
    np.testing.assert_array_equal(parameters(server), before)
    hand_over(server, 1, 1, 1, 6.0)
    np.testing.assert_allclose(parameters(server), before - 0.1 * 3, atol=1e-6)
    assert server.published == (2, 1)
    hand_over(server, 1, 2, 1, 50.0)  # of a step that has been taken
    assert server.receiving.round == {}
    assert server.receiving.ages.dropped == 2


@pytest.mark.parametrize(
    ("version", "value", "size", "why"),
    [
        (1, np.nan, None, "not finite"),
        (1, np.inf, None, "not finite"),
        (1, 1.0, 3, "not of the .* numbers"),
        (1, 1.0, 100_000, "not of the .* numbers"),
        (1, 1.0, 0, "not of the .* numbers"),
        (0, 1.0, None, "never was"),
        (7, 1.0, None, "never was"),
    ],
)
def test_what_cannot_be_a_gradient_is_refused_and_told(
    hired: Hired, version: int, value: float, size: int | None, why: str
) -> None:
    server = hired()
    before = parameters(server)
    for number in (1, 2):
        hand_over(server, 0, number, version, value, size)
    np.testing.assert_array_equal(parameters(server), before)
    assert server.receiving.ages.refused == 2
    (line,) = server.status()["notices"]  # said once
    assert line.startswith("a gradient of peer 0 is refused: ")
    assert re.search(why, line)
    hand_over(server, 0, 3, 1, 1.0)
    assert server.learner.step == 1


def test_a_synchronous_run_knows_its_peers(hired: Hired) -> None:
    server = hired("peers.mode=synchronous")
    hand_over(server, 3, 1, 1, 1.0)
    assert server.receiving.ages.refused == 1
    assert server.receiving.round == {}


def test_where_nothing_else_comes_the_run_ends_and_says_why(hired: Hired) -> None:
    server = hired()
    for number in range(1, receiving.MOST_REFUSED):
        hand_over(server, 0, number, 1, np.nan)
    with pytest.raises(RunError, match=r"refused one after the other.*not finite.*optimizer\.learning_rate"):
        hand_over(server, 0, receiving.MOST_REFUSED, 1, np.nan)


def test_one_peer_that_computes_nonsense_ends_nothing_and_is_told_of(hired: Hired) -> None:
    server = hired()
    for number in range(1, 2 * receiving.MOST_REFUSED):
        hand_over(server, 2, number, 1, np.nan)
        if number % 40 == 1:  # the others are slow
            for peer in (0, 1):
                hand_over(server, peer, number, 1, 0.0)
    assert server.learner.step == 6
    assert server.status()["notices"] == [
        "a gradient of peer 2 is refused: it is not finite",
        "50 gradients of peer 2 were refused in a row: end it",
    ]


def test_who_is_gone_does_not_keep_a_run_of_nonsense_alive(hired: Hired) -> None:
    server = hired()
    now = 1.0
    assert isinstance(server.database, MemoryDatabase)
    server.database._clock = lambda: now
    hand_over(server, 1, 1, 1, 0.0)
    now += receiving.LATELY_SECONDS - 1
    for number in range(1, 2 * receiving.MOST_REFUSED):
        hand_over(server, 0, number, 1, np.nan)
    now += 2
    with pytest.raises(RunError, match="refused one after the other"):
        hand_over(server, 0, 1000, 1, np.nan)


def test_no_peer_silences_another(hired: Hired) -> None:
    """One line of each peer and kind, however often, and whatever else is in it."""
    server = hired()
    for number in range(1, 40):
        hand_over(server, 0, number, 1000 + number, 1.0)
    for number, wrong in ((1, np.nan), (2, 1.0), (3, np.inf)):
        hand_over(server, 1, number, 1, wrong, 3 if number == 2 else None)
    lines = server.status()["notices"]
    assert [line[:40] for line in lines] == [
        "a gradient of peer 0 is refused: it is o",
        "a gradient of peer 1 is refused: it is n",
        "a gradient of peer 1 is refused: it is n",
    ]
    assert "version 1001, which never was" in lines[0]
    for peer in range(2, 2 * receiving.MOST_PEERS, 37):
        hand_over(server, peer, 1, 1, np.nan)
    lines = server.status()["notices"]
    assert len(lines) == receiving.MOST_NOTICES + 1
    told = {"process": 1, "seconds": 0.0, "bytes": 0, "examples": {}, "doing": "wait", "notices": lines}
    assert read_status(json.dumps(told).encode()) == told  # no more than a status can say
    assert re.fullmatch("and [0-9]+ more such gradients, of other peers", lines[-1])


def test_what_is_remembered_of_peers_is_bounded(hired: Hired) -> None:
    server = hired()
    found = Contribution(0, 1, 1, 0.5, np.full(len(server.learner.trained), np.nan, np.float32))
    for peer in range(receiving.MOST_PEERS + 100):
        server.receiving.descent(found._replace(peer=peer), 1, 0.0)
    assert len(server.receiving.heard) == len(server.receiving.told) == receiving.MOST_PEERS


def test_a_version_from_before_this_life_and_one_that_was_only_reserved_are_refused(
    hired: Hired, new_folder: Callable[[str], RunFolder]
) -> None:
    """A run that goes on from a checkpoint publishes above all that it had reserved: what lies between never was."""
    server = hired()
    hand_over(server, 0, 1, 1, 1.0)
    assert server.receiving.first == 1
    again = Server(
        server.config, server.learner, server.method, server.database, server.saving, version=1002, resumed_at=1.0
    )
    play(again)
    assert again.published.version == 1002
    for version in (1, 2, 3, 1001, 1003):
        hand_over(again, 0, version, version, 1.0)
    assert (again.receiving.ages.refused, again.learner.step) == (5, 1)
    hand_over(again, 1, 1, 1002, 1.0)
    assert again.learner.step == 2
    assert again.receiving.ages.oldest == 0
    state = again.receiving.state()
    server.receiving.restore(state)
    assert server.receiving.state() == state
    assert server.receiving.first == 1002


def test_no_version_is_used_that_a_run_that_goes_on_would_use(hired: Hired, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a checkpoint that is due waits for the database, and up to where it is saved."""
    monkeypatch.setattr(saving, "RESERVED_VERSIONS", 12)
    monkeypatch.setattr(saving, "SPARE_VERSIONS", 5)
    server = hired("cluster.kind=local")
    database = server.database
    assert isinstance(database, MemoryDatabase)
    operations, tasks, next_life = server.run(), [], 0
    gradient = np.zeros(server.receiving.size, np.float32)
    for number in range(1, 100):
        database._waiting[0] = Contribution(0, number, server.published.version, 0.5, gradient)
        waited = 0
        for operation in operations:
            if isinstance(operation, Task):
                tasks.append(operation)
            elif operation.name == "wait":
                waited += 1
                if database.is_taken(0) and not server._is_out_of_versions():
                    break
                if waited == 3:  # the database is slow
                    while not tasks[-1].done:
                        tasks[-1].advance()
            if next_life:
                assert server.published.version < next_life
            if server.saving.folder.checkpoint.exists():
                next_life = load_checkpoint(server.saving.folder.checkpoint).version
    assert server.published.version > 90
    assert len(tasks) > 5


def test_a_server_on_a_real_database_descends_without_a_warning(
    data: Prepared, configured: Configured, new_folder: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    """What is read there are bytes, which nobody may write."""
    config = configured(*PEERS, "cluster.kind=local", "master.steps=1000", "proposal.smoothing=variance-optimal")
    with serving(tmp_path / "server.log") as running, warnings.catch_warnings():
        warnings.simplefilter("error")
        database, layout = RedisDatabase(running.url, "a/peers/run"), Layout(**data.sizes, chunk_size=1)
        peers = RedisDatabase(running.worker_url, "a/peers/run")
        database.begin(layout, 0.0, {split: layout.empty(split) for split in SPLITS})
        server = Server.of(config, Problem(config, data), database, new_folder("run"), CPU)
        peer = Peer.of(config, Problem(config, data), peers, CPU, 0)
        play(server)
        for kind in ("float32", "bfloat16"):
            numbers = np.ones(server.receiving.size, TYPES[kind])
            peers.contribute(Contribution(1, 1 + (kind == "bfloat16"), server.published.version, 0.5, numbers))
            play(server)
        assert server.learner.step == 2
        for operation in peer.run():
            if operation.name == "wait":
                play(server)
                if server.learner.step == 8:
                    break
        assert database.weights().versions.max() > 0
        database.close()
        peers.close()


def test_parameters_that_are_not_finite_are_not_published(hired: Hired) -> None:
    server = hired("optimizer.learning_rate=100")
    with pytest.raises(RunError, match=r"not finite after step 1 .*no checkpoint yet"):
        hand_over(server, 0, 1, 1, 3e38)
    assert server.published.version == 1


def test_layers_that_mix_examples_are_refused(
    data: Prepared, configured: Configured, new_folder: Callable[[str], RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issgd_cli.problem.batch_normalised", lambda model: "a BatchNorm2d")
    config = configured(*PEERS)
    with pytest.raises(ConfigError, match=r"cluster\.roles = 'peers'"):
        Server.of(config, Problem(config, data), MemoryDatabase(lambda: 1.0), new_folder("run"), CPU)


@pytest.mark.parametrize("delay", [1, 3, 15])
@pytest.mark.parametrize("share", [0.8, 1.25])
def test_the_mean_gradient_of_a_parabola_so_late_converges_up_to_a_known_rate(
    hired: Hired, delay: int, share: float
) -> None:
    """Of h/2 |x|^2, gradients h x of d versions ago: stable for rates below 2 sin(pi / (4 d + 2)) / h, and not above.

    Unbiased where it was computed, each gradient is off where it is applied, and that does not average out: beyond that
    rate the iterates swing ever further, though each gradient in time would lead straight to 0 (below 2 / h).
    """
    rate = 0.1
    curvature = share * 2 * math.sin(math.pi / (4 * delay + 2)) / rate
    server = hired(f"optimizer.learning_rate={rate}")
    past = [parameters(server)] * (delay + 1)
    distances = [float(np.linalg.norm(past[0]))]
    for number in range(1, 60 * delay):
        hand_over(server, 0, number, max(1, number - delay), curvature * past[-1 - delay])
        past.append(parameters(server))
        distances.append(float(np.linalg.norm(past[-1])))
        expected = past[-2] - rate * curvature * past[-2 - delay]
        np.testing.assert_allclose(past[-1], expected, atol=1e-4 * max(1.0, distances[-1]))
    assert (max(distances[-5 * delay :]) < 0.5 * distances[0]) == (share < 1)
    assert (max(distances) > 2 * distances[0]) == (share > 1)
    assert rate * curvature < 2
