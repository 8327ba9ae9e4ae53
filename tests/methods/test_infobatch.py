"""InfoBatch: who is left out, when not, and that an epoch's sum is unbiased, over all that chance can do."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from issgd_cli.config.config import Config
from issgd_cli.errors import ConfigError
from issgd_cli.methods.infobatch import InfoBatch
from tests.draws import seen_of

Configured = Callable[..., Config]

CPU = torch.device("cpu")


def method(configured: Configured, examples: int, *settings: str) -> InfoBatch:
    base = "proposal.method=infobatch", "master.minibatch_size=2", "master.steps=1000"
    return InfoBatch(configured(*base, *settings), examples, CPU)


def epoch(one: InfoBatch, step: int, losses: NDArray[np.float64]) -> tuple[list[list[int]], list[list[float]]]:
    """Draws an epoch that begins with this step; minibatches, and their coefficients. Losses: of all, shape (N,)."""
    minibatches, coefficients = [], []
    number = one.epoch
    while one.epoch == number:
        drawn = one.draw(step, 2)
        seen = seen_of(np.zeros((len(drawn.indices), 2)), losses[drawn.indices])
        minibatches.append(drawn.indices.tolist())
        coefficients.append(one.weigh(drawn, seen)[0].tolist())
        one.learn(step, drawn, seen, None)
        step += 1
    return minibatches, coefficients


LOSSES = np.array([0.1, 3.0, 0.2, 0.3, 2.0])  # mean 1.12


def test_an_epoch_leaves_out_some_of_small_loss_and_weighs_the_others_of_them_more(configured: Configured) -> None:
    one = method(configured, 5, "infobatch.drop=0.6")
    minibatches, coefficients = epoch(one, 0, LOSSES)
    assert sorted(itertools.chain(*minibatches)) == [0, 1, 2, 3, 4]  # all, in the first
    assert [len(each) for each in minibatches] == [2, 2, 1]
    assert set(itertools.chain(*coefficients)) == {0.5}  # by the size that was asked for, the short one too
    step, left_out = 3, 0
    for _ in range(20):
        minibatches, coefficients = epoch(one, step, LOSSES)
        step += len(minibatches)
        drawn = dict(zip(itertools.chain(*minibatches), itertools.chain(*coefficients), strict=True))
        assert {1, 4} <= set(drawn)
        assert drawn[1] == drawn[4] == 0.5
        low = [drawn[index] for index in (0, 2, 3) if index in drawn]
        assert low == pytest.approx([0.5 / 0.4] * len(low))
        left_out += 3 - len(low)
        assert all(len(each) == 2 for each in minibatches[:-1])
    assert left_out == pytest.approx(0.6 * 60, abs=11)


@pytest.mark.parametrize("drop", [0.0, 0.3, 0.5])
def test_given_the_losses_an_epochs_sum_is_unbiased(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, drop: float
) -> None:
    """Enumerated: each of the three examples below the mean is left out or stays."""
    gradients = np.random.default_rng(0).standard_normal((5, 3))
    total, chance_of_all = np.zeros(3), 0.0
    for outs in itertools.product([True, False], repeat=3):
        one = method(configured, 5, f"infobatch.drop={drop}")
        coins = np.ones(5)
        coins[[0, 2, 3]] = np.where(outs, 0.0, 1 - 1e-9) if drop else 0.5

        class Coins:
            def random(self, size: int, given: NDArray[np.float64] = coins) -> NDArray[np.float64]:
                return given

            def permutation(self, size: int) -> NDArray[np.int64]:
                return np.arange(size)[::-1].copy()

        monkeypatch.setattr("issgd_cli.methods.infobatch.generator", lambda *key, made=Coins: made())
        epoch(one, 0, LOSSES)
        minibatches, coefficients = epoch(one, 3, LOSSES)
        sums = sum(np.array(c) @ gradients[m] for m, c in zip(minibatches, coefficients, strict=True))
        chance = float(np.prod([drop if out else 1 - drop for out in outs]))
        total, chance_of_all = total + chance * sums, chance_of_all + chance
    assert chance_of_all == pytest.approx(1)
    np.testing.assert_allclose(total, gradients.sum(0) / 2, rtol=1e-6)


def test_towards_the_end_none_is_left_out(configured: Configured) -> None:
    one = method(configured, 5, "master.steps=40", "infobatch.drop=0.99", "infobatch.until=0.5")
    step = 0
    while step < 40:
        began = step
        minibatches, _ = epoch(one, step, LOSSES)
        step += len(minibatches)
        assert (sum(map(len, minibatches)) == 5) == (began == 0 or began >= 20)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e30])
def test_equal_losses_leave_nobody_out(configured: Configured, value: float) -> None:
    one = method(configured, 7, "infobatch.drop=0.99")
    epoch(one, 0, np.full(7, value))
    minibatches, _ = epoch(one, 4, np.full(7, value))
    assert sum(map(len, minibatches)) == 7


def test_a_loss_that_is_no_number_is_left_aside(configured: Configured) -> None:
    one = method(configured, 4)
    epoch(one, 0, np.array([1.0, np.nan, np.inf, 3.0]))
    assert one.losses.tolist() == [1, 0, 0, 3]


def test_a_minibatch_larger_than_what_is_left_holds_what_is_left(configured: Configured) -> None:
    one = method(configured, 5, "master.minibatch_size=64")
    drawn = one.draw(0, 64)
    assert sorted(drawn.indices.tolist()) == [0, 1, 2, 3, 4]
    seen = seen_of(np.zeros((5, 2)))
    assert one.weigh(drawn, seen).tolist() == [[1 / 64] * 5]
    one.learn(0, drawn, seen, None)
    assert (one.epoch, one.began) == (1, 1)


def test_it_must_know_when_training_ends(configured: Configured) -> None:
    base = "proposal.method=infobatch", "master.mode=relaxed"
    config = configured(*base)
    by_seconds = config.model_copy(update={"master": config.master.model_copy(update={"steps": None, "seconds": 5.0})})
    with pytest.raises(ConfigError, match=r"infobatch\.until"):
        InfoBatch(by_seconds, 5, CPU)
    for setting in ("drop=1", "drop=-0.1", "until=1.5"):
        with pytest.raises(ConfigError, match=rf"infobatch\.{setting.partition('=')[0]}"):
            configured(*base, f"infobatch.{setting}")
