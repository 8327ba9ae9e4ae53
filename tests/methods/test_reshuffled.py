"""Reshuffled SGD: every example once an epoch; what that promises about bias; a step's draws from its key alone."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from issgd_cli.config.config import Config
from issgd_cli.methods.reshuffled import Reshuffled
from tests.draws import estimate

Configured = Callable[..., Config]

CPU = torch.device("cpu")


def method(configured: Configured, examples: int, *settings: str) -> Reshuffled:
    return Reshuffled(configured("proposal.method=reshuffled", *settings), examples, CPU)


@pytest.mark.parametrize(("examples", "size"), [(12, 4), (10, 4), (7, 7), (5, 8), (3, 10)])
def test_each_epoch_draws_every_example_once_wherever_its_minibatches_fall(
    configured: Configured, examples: int, size: int
) -> None:
    one = method(configured, examples)
    steps = examples * size  # whole epochs
    drawn = np.concatenate([one.draw(step, size).indices.numpy() for step in range(steps)])
    epochs = drawn.reshape(-1, examples)
    assert (np.sort(epochs, axis=1) == np.arange(examples)).all()
    if examples > 3:
        assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1  # not always in the same order


def test_a_steps_draws_depend_on_seed_and_step_alone(configured: Configured) -> None:
    forwards, backwards = method(configured, 10), method(configured, 10)
    steps = range(9)
    drawn = {step: forwards.draw(step, 4).indices.tolist() for step in steps}
    assert drawn == {step: backwards.draw(step, 4).indices.tolist() for step in reversed(steps)}
    other = method(configured, 10, "seed=1")
    assert drawn != {step: other.draw(step, 4).indices.tolist() for step in steps}


def test_over_all_orders_of_an_epoch_each_step_is_unbiased_and_their_sum_is_exact(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enumerated: 5 examples, minibatches of 2, two epochs, all 120 orders of each."""
    examples, size, steps = 5, 2, 5
    gradients = np.random.default_rng(0).standard_normal((examples, 3))
    one = method(configured, examples)
    orders = [np.array(order) for order in itertools.permutations(range(examples))]
    found = np.zeros((steps, 3))
    for number in range(len(orders)):
        chosen: dict[int, NDArray[np.int64]] = {0: orders[number], 1: orders[-1 - number]}
        monkeypatch.setattr(one, "order", chosen.__getitem__)
        estimates = [estimate(one, step, size, gradients) for step in range(steps)]
        # Two epochs are five minibatches: their sum is that of all examples, whatever the orders.
        np.testing.assert_allclose(np.sum(estimates, 0) * size, 2 * gradients.sum(0), rtol=1e-12)
        found += np.array(estimates) / len(orders)
    np.testing.assert_allclose(found, np.broadcast_to(gradients.mean(0), found.shape), rtol=1e-12)
