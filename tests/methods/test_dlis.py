"""DLIS: when it looks, and that a minibatch drawn from what it has seen is unbiased, over every draw there is."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from issgd_cli.config.config import Config
from issgd_cli.errors import ConfigError
from issgd_cli.methods.dlis import DLIS, gain, normalised
from issgd_cli.methods.method import Seen
from issgd_cli.methods.sgd import SGD
from tests.draws import seen_of

Configured = Callable[..., Config]

CPU = torch.device("cpu")
LOGITS = np.array([[3.0, 0.0], [0.0, 1.0], [0.5, 0.0]])  # of three examples


def method(configured: Configured, *settings: str) -> DLIS:
    return DLIS(configured("proposal.method=dlis", *settings), len(LOGITS), CPU)


class Told:
    """A generator of numbers that are known."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = np.array(numbers)

    def random(self, size: int) -> NDArray[Any]:
        return self.numbers

    def integers(self, high: int, size: int) -> NDArray[Any]:
        return self.numbers


def looked_at(one: DLIS, step: int, size: int) -> tuple[NDArray[np.int64], Seen]:
    candidates = one.presample(step, size)
    assert candidates is not None
    return candidates.numpy(), seen_of(LOGITS[candidates.numpy()])


def test_over_all_presamples_and_draws_the_expected_gradient_is_the_mean_of_all(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enumerated: 27 presamples of three, and each of the three that may be drawn from them."""
    gradients = np.array([[0.1, -2.0], [3.0, 0.5], [1.0, 1.0]])
    one, total, chance_of_all = method(configured, "dlis.threshold=1e-9"), np.zeros(2), 0.0
    one.gain = 1.0
    for presample in itertools.product(range(3), repeat=3):
        chances = normalised(seen_of(LOGITS[list(presample)]).importances()).numpy()
        for place, middle in enumerate(chances.cumsum() - chances / 2):
            told = {"presample": Told(presample), "draws": Told([middle])}
            monkeypatch.setattr("issgd_cli.methods.dlis.generator", lambda seed, role, step, told=told: told[role])
            candidates, looked = looked_at(one, 0, 1)
            drawn = one.draw(0, 1, looked)
            assert drawn.indices.tolist() == [candidates[place]]
            (coefficient,) = one.weigh(drawn, seen_of(LOGITS[drawn.indices.numpy()]))[0].tolist()
            chance = chances[place] / 27
            total, chance_of_all = total + chance * coefficient * gradients[candidates[place]], chance_of_all + chance
    assert chance_of_all == pytest.approx(1)
    np.testing.assert_allclose(total, gradients.mean(0), rtol=1e-6)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1.0, 2.0, 5.0], [0.0, 0.0, 3.0]])
def test_the_gain_is_the_papers(values: list[float]) -> None:
    g = normalised(torch.tensor(values, dtype=torch.float64))
    u = torch.full_like(g, 1 / 3)
    papers = 1 / torch.sqrt(1 - (g - u).square().sum() / g.square().sum())
    assert gain(g) == pytest.approx(float(papers))


def test_it_looks_only_where_the_running_gain_exceeds_the_threshold(configured: Configured) -> None:
    one, sgd = method(configured), SGD(configured("proposal.method=sgd"), 3, CPU)
    assert one.threshold == 2  # (3 b + 3 b) / (3 b)
    assert method(configured, "dlis.presample=6").threshold == 3
    assert one.presample(0, 8) is None
    drawn, same = one.draw(0, 8), sgd.draw(0, 8)
    assert torch.equal(drawn.indices, same.indices)
    assert torch.equal(drawn.factors, same.factors)
    one_matters = seen_of(np.concatenate([[[0.0, 9.0]], np.tile([[99.0, 0.0]], (7, 1))]))  # gain sqrt 8
    expected = 0.0
    for step in range(20):
        assert (one.presample(step, 8) is None) == (expected <= 2)
        one.draw(step, 8, None)
        one.learn(step, drawn, one_matters, None)
        expected = 0.9 * expected + 0.1 * np.sqrt(8)
        assert one.gain == pytest.approx(expected)
    candidates = one.presample(20, 8)
    assert candidates is not None
    assert candidates.shape == (24,)
    # While it looks, the gain is of what it has seen, not of the minibatch.
    one.draw(20, 8, seen_of(np.zeros((24, 2))))
    one.learn(20, drawn, one_matters, None)
    assert one.gain == pytest.approx(0.9 * expected + 0.1)


def test_what_has_no_importance_is_drawn_uniformly_or_not_at_all(configured: Configured) -> None:
    one = method(configured, "dlis.threshold=1e-9")
    one.gain = 1.0
    drawn = one.draw(0, 40, seen_of(np.full((120, 2), [2000.0, 0.0])))
    assert drawn.factors.tolist() == pytest.approx([1.0] * 40)
    one_left = np.tile([[2000.0, 0.0]], (120, 1))
    one_left[7] = 0.0
    candidates = one.presample(0, 40)
    assert candidates is not None
    drawn = one.draw(0, 40, seen_of(one_left))
    assert set(drawn.indices.tolist()) == {int(candidates[7])}
    assert drawn.factors.tolist() == pytest.approx([1 / 120] * 40)


def test_a_loss_that_is_no_number_does_not_spoil_the_gain(configured: Configured) -> None:
    one = method(configured)
    drawn = one.draw(0, 2)
    one.learn(0, drawn, seen_of([[np.nan, 0.0], [1.0, 0.0]]), None)
    assert one.gain == pytest.approx(0.1)


@pytest.mark.parametrize("given", ["presample=0", "smoothing=1", "smoothing=-0.1", "threshold=-1"])
def test_settings_out_of_range_are_refused(configured: Configured, given: str) -> None:
    with pytest.raises(ConfigError, match=rf"dlis\.{given.partition('=')[0]}"):
        configured("proposal.method=dlis", f"dlis.{given}")
