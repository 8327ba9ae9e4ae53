"""A peer: what its gradients promise on a quadratic problem, where everything is known; and what it hands over."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli.actors.peer import MOST_COUNTS, Peer, number_of_draw, sent
from issgd_cli.config.config import Config
from issgd_cli.database import SPLITS, Layout, Published
from issgd_cli.database import Split as SplitName
from issgd_cli.database.contributions import ExampleScores, numbers_of
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets.prepared import Prepared, Split
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.methods.method import Drawn
from issgd_cli.problem import Problem

Configured = Callable[..., Config]

CPU = torch.device("cpu")
EXAMPLES, ORDER = 6, 2
QUADRATIC = (
    "cluster.roles=peers",
    "cluster.kind=simulated",
    "worker.count=0",
    "worker.chunk_size=1",
    "master.mode=relaxed",
    "model.network=polynomial",
    f"polynomial.order={ORDER}",
    "model.loss=squared",
    "optimizer.momentum=0",
    "optimizer.nesterov=false",
    "proposal.smoothing=0.1",
    "master.publish_every_steps=1",
)


@pytest.fixture(scope="module")
def points() -> Prepared:
    """Six points of the plane, which a parabola is to pass near."""
    random = np.random.default_rng(3)
    sizes: dict[SplitName, int] = {"train": EXAMPLES, "valid": 2, "test": 2}
    splits = {
        split: Split(random.normal(0, 1, (size, 1)).astype("<f4"), random.normal(0, 1, (size, 1)).astype("<f4"))
        for split, size in sizes.items()
    }
    flat = np.zeros(1, np.float32), np.ones(1, np.float32)
    return Prepared("points", splits, *flat, 1, "points", (1,), targets="numbers")


def features(points: Prepared) -> tuple[Float64s, Float64s]:
    """The powers of each training point's x, shape (N, 3), and its y, shape (N,)."""
    examples = points.splits["train"]
    x = np.asarray(examples.inputs, np.float64)[:, 0]
    return x[:, None] ** np.arange(ORDER + 1), np.asarray(examples.targets, np.float64)[:, 0]


def mean_gradient(points: Prepared, parameters: Any) -> Float64s:
    """Of the mean of (phi . w - y)^2: 2 / N sum phi (phi . w - y), shape (3,)."""
    phi, y = features(points)
    gradient: Float64s = 2 / EXAMPLES * phi.T @ (phi @ np.asarray(parameters, np.float64) - y)
    return gradient


def begun(prepared: Prepared) -> MemoryDatabase:
    layout = Layout(**prepared.sizes, chunk_size=1)
    database = MemoryDatabase(lambda: 1.0)
    database.begin(layout, 0.0, {split: layout.empty(split) for split in SPLITS})
    return database


def published(database: MemoryDatabase, version: int, parameters: Any) -> None:
    database.publish(Published(version, version - 1), np.asarray(parameters, np.float32))


def filled(database: MemoryDatabase, version: int) -> None:
    """A table of norms that are nobody's, as old ones may be."""
    norms = np.array([0.1, 3.0, 0.7, 5.0, 0.02, 1.0], np.float32)
    rest = norms, np.zeros(EXAMPLES, np.uint8)
    database.push_examples(version, ExampleScores(np.arange(EXAMPLES), norms, *rest))


def pulled(peer: Peer) -> None:
    """It has read parameters and table."""
    operations = peer.run()
    assert next(operations).name == "pull"
    assert next(operations).name == "train"


@pytest.mark.parametrize("method", ["issgd", "sgd"])
def test_a_gradient_is_unbiased_at_the_pulled_parameters_and_off_by_their_change_at_the_servers(
    points: Prepared, configured: Configured, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Every draw of one example listed, each with its chance, in a table that tells nothing true."""
    database = begun(points)
    config = configured(*QUADRATIC, f"proposal.method={method}", "master.minibatch_size=1")
    old, new = [0.3, -1.0, 0.5], [1.3, 0.2, -0.4]
    published(database, 1, old)
    filled(database, 1)
    peer = Peer.of(config, Problem(config, points), database, CPU, 0)
    pulled(peer)
    published(database, 2, new)  # while it computes
    weights = peer.method.proposal.weights
    assert (len(set(weights)) > 1) == (method == "issgd")
    expected = np.zeros(ORDER + 1)
    for index in range(EXAMPLES):
        one = Drawn(torch.tensor([index]), torch.tensor([weights.mean() / weights[index]]).float())
        monkeypatch.setattr(peer.method, "draw", lambda *_, one=one: one)
        gradient = peer._minibatch_again().gradient
        expected += weights[index] / weights.sum() * sent(gradient, "float32")
    np.testing.assert_allclose(expected, mean_gradient(points, old), rtol=1e-4)
    phi, _ = features(points)
    hessian = 2 / EXAMPLES * phi.T @ phi
    bias = expected - mean_gradient(points, new)
    np.testing.assert_allclose(bias, hessian @ (np.array(old) - new), rtol=1e-3)
    assert np.linalg.norm(bias) > 1


def test_what_it_pushes_is_true_of_each_example_once(points: Prepared, configured: Configured) -> None:
    database = begun(points)
    config = configured(*QUADRATIC, "master.minibatch_size=32")
    parameters = [0.3, -1.0, 0.5]
    published(database, 1, parameters)
    peer = Peer.of(config, Problem(config, points), database, CPU, 2)
    operations = peer.run()
    assert [next(operations).name for _ in range(4)] == ["pull", "train", "push", "wait"]  # until it is taken
    phi, y = features(points)
    residuals = phi @ np.array(parameters) - y
    records = database.records()["train"]
    assert records.versions.tolist() == [1] * EXAMPLES
    np.testing.assert_allclose(records.norms, np.abs(2 * residuals) * np.linalg.norm(phi, axis=1), rtol=1e-5)
    np.testing.assert_allclose(records.losses, residuals**2, rtol=1e-5)
    assert set(records.errors) == {255}  # regression knows none
    one = database.contribution(ORDER + 1)
    assert one is not None
    assert (one.peer, one.version) == (2, 1)
    database.take(one)
    assert next(operations).name == "pull"


def test_two_peers_and_two_counts_draw_differently_and_each_the_same_again(
    points: Prepared, configured: Configured
) -> None:
    config = configured(*QUADRATIC, "master.minibatch_size=32")
    drawn: dict[tuple[int, int], list[int]] = {}
    for peer_index in (0, 1, 0):
        database = begun(points)
        published(database, 5, [0.0, 1.0, 2.0])
        peer = Peer.of(config, Problem(config, points), database, CPU, peer_index)
        pulled(peer)
        assert peer.count == 5
        for count in (5, 6):
            peer.count = count
            indices = peer._minibatch_again().drawn.indices.tolist()
            assert drawn.setdefault((peer_index, count), indices) == indices
    assert len({tuple(indices) for indices in drawn.values()}) == 4
    assert number_of_draw(0, 0) == MOST_COUNTS  # above all steps of a master
    assert number_of_draw(3, MOST_COUNTS - 1) < number_of_draw(4, 0)


def test_a_peer_that_comes_back_goes_on_above_what_it_has_handed_over(points: Prepared, configured: Configured) -> None:
    database, config = begun(points), configured(*QUADRATIC, "master.publish_every_steps=16")
    published(database, 2, [0.0, 1.0, 2.0])
    numbers = []
    for _ in range(3):  # lives
        operations = Peer.of(config, Problem(config, points), database, CPU, 0).run()
        for name in ("pull", "train", "push", "wait"):
            assert next(operations).name == name
        one = database.contribution(ORDER + 1)
        assert one is not None
        database.take(one)
        numbers.append(one.number)
    assert numbers == [32, 33, 34]


def test_where_the_run_is_set_back_under_its_hands_it_waits_for_parameters(
    points: Prepared, configured: Configured
) -> None:
    database, config = begun(points), configured(*QUADRATIC, "cluster.kind=local")
    published(database, 1, [0.0, 1.0, 2.0])
    operations = Peer.of(config, Problem(config, points), database, CPU, 0).run()
    assert next(operations).name == "pull"
    database.begin(database.layout(), 0.0, {split: database.layout().empty(split) for split in SPLITS})
    assert next(operations).name == "wait"
    published(database, 1, [0.0, 1.0, 2.0])
    assert [next(operations).name for _ in range(3)] == ["pull", "train", "push"]


@pytest.mark.parametrize(("kind", "version"), [("simulated", 1), ("local", 2)])
def test_on_a_virtual_clock_it_gets_what_was_newest_when_it_asked(
    points: Prepared, configured: Configured, kind: str, version: int
) -> None:
    """A real database is asked when the operation is done, and tells what is newest before it sends it."""
    database, config = begun(points), configured(*QUADRATIC, f"cluster.kind={kind}")
    published(database, 1, [0.0, 1.0, 2.0])
    filled(database, 1)
    peer = Peer.of(config, Problem(config, points), database, CPU, 0)
    operations = peer.run()
    assert next(operations).name == "pull"
    published(database, 2, [9.0, 9.0, 9.0])
    again = Peer.of(config, Problem(config, points), database, CPU, 0)
    if kind == "simulated":
        again.restore(peer.state(), peer.parameters)
        resumed = again.run()
        assert next(resumed) == ("pull", 1, 0, 0, 0.0)  # whose bytes and time go on where they were
        assert next(resumed).name == "train"
        assert (again.version, again.pulls) == (1, 1)
        np.testing.assert_array_equal(again.method.weights_in_use(), peer.method.weights_in_use())
    assert next(operations).name == "train"
    assert (peer.version, peer.pulls) == (version, 1)
    found = peer._minibatch_again()
    assert peer.parameters is not None
    assert peer.parameters.tolist() == ([0.0, 1.0, 2.0] if version == 1 else [9.0, 9.0, 9.0])
    assert torch.isfinite(found.loss)


def test_it_leaves_when_training_is_over(points: Prepared, configured: Configured) -> None:
    for mode in ("asynchronous", "synchronous"):
        database, config = begun(points), configured(*QUADRATIC, f"peers.mode={mode}")
        peer = Peer.of(config, Problem(config, points), database, CPU, 0)
        operations = peer.run()
        assert next(operations).name == "wait"  # for the first parameters
        published(database, 1, [0.0, 1.0, 2.0])
        assert [next(operations).name for _ in range(4)] == ["pull", "train", "push", "wait"]
        database.put("finished", {"step": 1, "version": 1})
        assert next(operations, None) is None


def test_bfloat16_rounds_to_the_nearest() -> None:
    numbers = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    gradient = [torch.from_numpy(numbers[:600].reshape(20, 30)), torch.from_numpy(numbers[600:])]
    np.testing.assert_array_equal(sent(gradient, "float32"), numbers)
    received = numbers_of(sent(gradient, "bfloat16"))
    assert np.abs(received / numbers - 1).max() <= 2**-8
    assert np.abs((received / numbers - 1).mean()) < 2**-12  # neither up nor down
