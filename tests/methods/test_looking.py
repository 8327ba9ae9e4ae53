"""Looking: how many it looks at and trains on, that it is unbiased, over all that chance can do, and when it looks."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from issgd_cli.config.config import Config
from issgd_cli.methods import looking
from issgd_cli.methods.looking import Looking
from issgd_cli.methods.method import Seen
from issgd_cli.methods.reshuffled import Reshuffled
from issgd_cli.methods.trials import Trials
from tests.draws import every_block, seen_of

Configured = Callable[..., Config]

CPU = torch.device("cpu")
LOGITS = np.array([[3.0, 0.0], [0.0, 1.0], [0.5, 0.0], [-1.0, 1.0]])  # of four examples
GRADIENTS = np.array([[0.1, -2.0], [3.0, 0.5], [1.0, 1.0], [-2.0, 0.25]])
ORDERS = list(itertools.permutations(range(4)))


def method(configured: Configured, *settings: str, examples: int = len(LOGITS)) -> Looking:
    return Looking(configured("proposal.method=looking", *settings), examples, CPU)


def in_order(one: Looking, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one, "order", lambda epoch: np.array(order))


def gradient_of(one: Looking, step: int, size: int, looked: Seen | None) -> NDArray[np.float64]:
    drawn = one.draw(step, size, looked)
    (coefficients,) = one.weigh(drawn, seen_of(LOGITS[drawn.indices.numpy()])).double().numpy()
    return np.asarray(coefficients @ GRADIENTS[drawn.indices.numpy()])


@pytest.mark.parametrize(("looked_at", "trained"), [(2, 1), (3, 2), (4, 2)])
def test_given_what_was_looked_at_the_expected_gradient_is_its_mean(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, looked_at: int, trained: int
) -> None:
    """Enumerated: each systematic draw of so many from the first of an epoch."""
    one = method(configured)
    one.trials.under_way = True
    monkeypatch.setattr(one, "sizes", lambda size: (looked_at, trained))
    in_order(one, (2, 0, 3, 1), monkeypatch)
    candidates = one.presample(0, 4)
    assert candidates is not None
    looked = seen_of(LOGITS[candidates.numpy()])
    weights = looked.importances().numpy()
    weights = 0.9 * weights / weights.mean() + 0.1
    expected, chances = np.zeros(2), 0.0
    for chance, random in every_block(weights, trained):
        monkeypatch.setattr("issgd_cli.methods.looking.generator", lambda *key, random=random: random)
        expected, chances = expected + chance * gradient_of(one, 0, 4, looked), chances + chance
    assert chances == pytest.approx(1)
    np.testing.assert_allclose(expected, GRADIENTS[candidates.numpy()].mean(0), rtol=1e-6)


def test_sizes_that_depend_on_what_was_seen_leave_a_later_step_unbiased_over_the_orders(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next in an epoch are worth, in expectation, what is left of it, which changes by nothing but chance."""
    expected, looks = np.zeros(2), 0
    for order in ORDERS:
        one = method(configured)
        in_order(one, order, monkeypatch)
        drawn = one.draw(0, 1)
        one.learn(0, drawn, seen_of(LOGITS[drawn.indices.numpy()]), None)
        one.trials.under_way = order[0] in (1, 3)  # and so does whether it looks
        monkeypatch.setattr(one, "sizes", lambda size, order=order: (1 + order[0] // 2, 1))
        candidates = one.presample(1, 1)
        if candidates is None:
            expected += gradient_of(one, 1, 1, None) / len(ORDERS)
            continue
        looks += 1
        looked = seen_of(LOGITS[candidates.numpy()])
        weights = looked.importances().numpy()
        for chance, random in every_block(0.9 * weights / weights.mean() + 0.1, 1):
            monkeypatch.setattr("issgd_cli.methods.looking.generator", lambda *key, random=random: random)
            expected += chance * gradient_of(one, 1, 1, looked) / len(ORDERS)
    assert 0 < looks < len(ORDERS)
    np.testing.assert_allclose(expected, GRADIENTS.mean(0), rtol=1e-6)


@pytest.mark.parametrize("unevenness", [0.001, 0.01, 0.05, 0.18, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("size", [64, 128, 500])
def test_of_its_work_no_other_sizes_have_less_variance(configured: Configured, unevenness: float, size: int) -> None:
    one = method(configured)
    one.moments = torch.tensor([1.0, np.sqrt(unevenness), 1.0], dtype=torch.float64)
    assert one.unevenness == pytest.approx(unevenness)
    looked_at, trained = one.sizes(size)

    def variance(looked_at: float, trained: float) -> float:  # in that of a plain step
        return size * (1 / looked_at + unevenness / trained)

    work = looked_at + 3 * trained
    if trained > looking.FEWEST:
        fewer = np.linspace(0.001, work - 3, 999)
        least = min(variance(each, (work - each) / 3) for each in fewer)
        assert variance(looked_at, trained) <= 1.02 * least
    # Half of a plain step's, or as little as twice its work can bring.
    assert work <= 1.02 * 2 * 3 * size
    if work < 0.98 * 2 * 3 * size:
        assert variance(looked_at, trained) <= 1.03 * 0.5
        assert trained <= looking.FEWEST or variance(looked_at, trained) >= 0.95 * 0.5
    assert looking.variance_at_cost_1(unevenness) == pytest.approx((1 + np.sqrt(3 * unevenness)) ** 2 / 3)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("unevenness", [0.001, 0.1, 1.0])
@pytest.mark.parametrize("cost", [0.4, 2.0])
def test_small_minibatches_are_not_made_larger(
    configured: Configured, size: int, unevenness: float, cost: float
) -> None:
    one = method(configured, f"looking.cost={cost}")
    one.moments = torch.tensor([1.0, np.sqrt(unevenness), 1.0], dtype=torch.float64)
    looked_at, trained = one.sizes(size)
    assert 1 <= trained <= looked_at
    assert trained <= max(size, round(cost * size))
    assert looked_at + 3 * trained <= 3 * size * max(cost, 1) + 3 * min(8, size) + 1


def test_until_something_is_tried_it_is_reshuffled_sgd(configured: Configured) -> None:
    one, other = method(configured, examples=10), Reshuffled(configured("proposal.method=reshuffled"), 10, CPU)
    random = np.random.default_rng(0)
    for step in range(7):
        assert one.presample(step, 4) is None
        drawn, same = one.draw(step, 4), other.draw(step, 4)
        assert torch.equal(drawn.indices, same.indices)
        assert drawn.factors.tolist() == [1.0] * 4
        losses = np.full(4, 0.5**step)  # falls fast
        one.learn(step, drawn, seen_of(random.normal(0, 1, (4, 2)), losses), None)
    assert one.epochs == 2.8
    assert one.place == 28


def test_it_looks_for_good_where_that_brings_a_loss_down_that_hardly_fell(configured: Configured) -> None:
    one, found, loss = method(configured, examples=400), list[tuple[int, int]](), 1.0
    for step in range(120):
        candidates, looked = one.presample(step, 20), None
        logits = np.random.default_rng(step).normal(0, 1, (200, 2))
        logits[:, 0] += np.where(np.arange(200) % 5 > 0, 6, -9)  # one in five matters
        loss *= 0.999 if candidates is None else 0.9
        if candidates is not None:
            looked = seen_of(logits[: len(candidates)], np.full(len(candidates), loss))
        drawn = one.draw(step, 20, looked)
        count = len(drawn.indices)
        one.learn(step, drawn, seen_of(logits[:count], np.full(count, loss)), None)
        found.append((0 if candidates is None else len(candidates), count))
    assert found[:80] == [(0, 20)] * 80  # four epochs
    assert all(looked_at > trained >= looking.FEWEST for looked_at, trained in found[80:])
    assert one.trials.succeeded


def test_epochs_are_told_to_the_trials_with_their_losses_and_their_work(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[float, float]] = []
    monkeypatch.setattr(Trials, "epoch_over", lambda self, loss, work, promises: told.append((loss, work)))
    one = method(configured, examples=10)
    for step, losses in enumerate(([1.0, 2, 3, 4], [5.0, 6, 7, 8], [9.0, 10, 0, 0])):
        one.learn(step, one.draw(step, 4), seen_of(np.ones((4, 2)), losses), None)
    assert told == [(55 / 12, 12 / 10)]  # with what reaches into the next
    one.trials.under_way = True
    looked = seen_of(np.ones((10, 2)), np.full(10, 2.0))
    monkeypatch.setattr(one, "sizes", lambda size: (10, 5))
    drawn = one.draw(3, 4, looked)  # all alike: of factor 1
    one.learn(3, drawn, seen_of(np.ones((5, 2)), np.full(5, 9.0)), None)
    assert told[1] == pytest.approx((9.0, (10 + 3 * 5) / 30))  # by what was trained on, as in plain epochs
    nothing = seen_of(np.ones((5, 2)), np.full(5, np.nan))
    one.learn(4, one.draw(4, 4, looked), nothing, None)
    assert len(told) == 2  # an epoch of which nothing is known
    assert one.passes == 0


def test_a_loss_that_is_no_number_spoils_nothing(configured: Configured) -> None:
    one = method(configured)
    drawn = one.draw(0, 2)
    one.learn(0, drawn, seen_of([[np.nan, 0.0], [1.0, 0.0]]), None)
    assert torch.cat([one.moments, one.sums]).isfinite().all()
    assert one.place == 2
    one.trials.under_way = True
    candidates = one.presample(1, 8)
    assert candidates is not None
    looked = seen_of(np.full((len(candidates), 2), np.nan))
    assert one.draw(1, 8, looked).factors.isfinite().all()
