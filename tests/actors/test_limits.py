"""When training is over, and what each method's work is, by hand."""

from collections.abc import Callable

import pytest

from issgd_cli.config.config import Config
from issgd_cli.registries import METHODS
from tests.masters import Hired, refresh, relaxed, score_everything, train

Configured = Callable[..., Config]

LAYERS = ((16, 7), (7, 6), (6, 3))  # of the tests' network
FORWARD = sum(2 * d * p for d, p in LAYERS)
NORMS = sum(2 * (d + p) for d, p in LAYERS) / FORWARD  # but for a few operations a layer

STEPS, SIZE, EPOCH = 30, 8, 12  # steps of an epoch of 95


def by_hand(method: str, trained: int) -> float:
    """In examples."""
    if method == "second-moment":  # a norm for each example
        return trained * (1 + NORMS / 3)
    if method == "omis":  # the first epoch plain; then one pass back to the outputs, and 3 products for the weights
        return EPOCH * SIZE + (trained - EPOCH * SIZE) * (1 + 1 + 3) / 3
    if method == "dlis":  # at every step but the first it looks at 3 times as many examples before
        return trained + (STEPS - 1) * 3 * SIZE / 3
    return trained


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_work_is_what_is_counted_by_hand(hired: Hired, configured: Configured, method: str) -> None:
    master = hired(relaxed(configured, f"proposal.method={method}", "master.steps=1000", "dlis.threshold=0.05"))
    if METHODS.parts[method].by_scores:
        score_everything(master.database, 1)
    refresh(master)
    trained = 0
    for step in range(STEPS):
        trained += SIZE
        if method == "infobatch":
            trained += len(master.method.draw(step, SIZE).indices) - SIZE  # of an epoch's last minibatch
        train(master)
    few = 4 * len(LAYERS) / FORWARD / 3 * trained if method == "second-moment" else 1e-6 * trained
    assert by_hand(method, trained) <= master.learner.passes / 3 + 1e-6 * trained
    assert master.learner.passes / 3 <= by_hand(method, trained) + few


def test_several_gradients_one_after_the_other_are_as_many_passes_back(
    hired: Hired, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issgd_cli.actors.learner.is_linear", lambda model: False)
    master = hired(relaxed(configured, "proposal.method=omis", "master.steps=1000"))
    refresh(master)
    for _ in range(STEPS):
        train(master)
    assert master.learner.passes == 3 * EPOCH * SIZE + (STEPS - EPOCH) * SIZE * (1 + 3 + 3)


def test_it_is_over_by_whichever_limit_is_reached_first(hired: Hired, configured: Configured) -> None:
    settings = "master.steps=20", "master.seconds=50", "master.work=40"
    limits = hired(relaxed(configured, "proposal.method=sgd", *settings)).limits
    assert not limits.are_reached()
    assert not limits.are_over(49.9)
    assert limits.are_over(50.0)
    limits.learner.step = 20
    assert limits.are_reached()
    limits.learner.step, limits.learner.passes = 5, 119.0
    assert not limits.are_reached()
    limits.elsewhere = 1.0
    assert limits.are_reached()


def test_others_work_is_heard_of_but_not_ones_own_twice(hired: Hired, configured: Configured) -> None:
    master = hired(relaxed(configured, "proposal.method=issgd"))
    told = {"before": 100.0, "master:17": 50.0, "worker-0:18": 7.0, "worker-1:19": 8.0}
    work = {life: {"work/passes": count} for life, count in told.items()}
    master.database.put("work", {**work, "monitor:3": {"work/bytes_sent": 5.0}})
    master.limits.hear(master.database)
    master.learner.passes = 3.0
    assert master.limits.passes == 100 + 7 + 8 + 3
