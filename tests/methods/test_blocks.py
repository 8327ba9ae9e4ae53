"""Blocks of draws: one proposal to a block's end, whatever is learned meanwhile; each example as often as it should."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from issgd_cli.config.config import Config
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import ConfigError
from issgd_cli.methods.blocks import Blocks
from issgd_cli.methods.issgd import ISSGD
from issgd_cli.methods.online import Online
from issgd_cli.methods.proposal import Proposal
from issgd_cli.methods.pruning import Pruning
from tests.draws import EXAMPLES, seen_of

Configured = Callable[..., Config]

CPU = torch.device("cpu")
SYSTEMATIC = "proposal.draws=systematic"


def blocks(configured: Configured, examples: int, *settings: str) -> Blocks:
    return Blocks(configured(SYSTEMATIC, "master.minibatch_size=4", *settings), examples, CPU)


def drawn(of: Blocks, steps: range, weights: Float64s) -> tuple[list[int], list[float]]:
    """All that these steps draw, of proposals that stay the same."""
    indices, factors = zip(*(of.draw(step, lambda: Proposal.of(weights)) for step in steps), strict=True)
    return torch.cat(indices).tolist(), torch.cat(factors).tolist()


@pytest.mark.parametrize(("block", "steps"), [(1.0, 6), (0.5, 3), (0.3, 2), (0.01, 1)])
def test_a_block_is_so_much_of_an_epoch_in_whole_minibatches(configured: Configured, block: float, steps: int) -> None:
    assert blocks(configured, 25, f"proposal.block={block}").steps == steps


def test_an_epoch_of_equal_weights_is_reshuffled(configured: Configured) -> None:
    one = blocks(configured, 24)
    indices, factors = drawn(one, range(18), np.full(24, 0.3))
    epochs = np.reshape(indices, (3, 24))
    assert (np.sort(epochs, 1) == np.arange(24)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    assert set(factors) == {1.0}


def test_an_epoch_that_minibatches_do_not_divide_misses_some_at_equal_weights(configured: Configured) -> None:
    indices, _ = drawn(blocks(configured, 25), range(6), np.ones(25))
    assert len(set(indices)) == len(indices) == 24


def test_a_block_is_the_draws_of_its_proposal_in_their_order(configured: Configured) -> None:
    weights = np.random.default_rng(0).lognormal(0, 1, 24)
    indices, factors = drawn(blocks(configured, 24), range(6), weights)
    assert len(set(zip(indices, factors, strict=True))) == len(set(indices)) < 24
    np.testing.assert_allclose(factors, weights.mean() / weights[indices], rtol=1e-6)
    counts, expected = np.bincount(indices, minlength=24), 24 * weights / weights.sum()
    assert (np.abs(counts - expected) < 1).all()


def test_draws_depend_on_seed_block_and_proposal_alone(configured: Configured) -> None:
    weights = np.random.default_rng(0).lognormal(0, 1, 24)
    whole = drawn(blocks(configured, 24), range(12), weights)
    assert drawn(blocks(configured, 24), range(6, 12), weights) == (whole[0][24:], whole[1][24:])
    assert drawn(blocks(configured, 24, "seed=1"), range(12), weights)[0] != whole[0]


def test_a_block_stands_until_its_end_and_tells_what_the_next_minibatch_is_of(configured: Configured) -> None:
    one, first, second = ISSGD(configured(SYSTEMATIC, "master.minibatch_size=2"), EXAMPLES, CPU), *np.eye(EXAMPLES)[:2]
    for step in range(9):
        one.proposal = Proposal.of(first + 1 if step < 2 else second + 1)  # adopted within the first block of three
        weights = (first if step < 3 else second) + 1
        if step > 2 or step == 0:
            np.testing.assert_array_equal(one.weights_in_use(), weights)  # before it is drawn, too
        minibatch = one.draw(step, 2)
        np.testing.assert_array_equal(one.weights_in_use(), weights)
        expected = weights.mean() / weights[minibatch.indices.numpy()]
        np.testing.assert_allclose(minibatch.factors.numpy(), expected, rtol=1e-6)
        one.learn(step, minibatch, seen_of(np.zeros((2, 3))), None)
        if step == 1:
            np.testing.assert_array_equal(one.weights_in_use(), first + 1)
        if step == 2:
            np.testing.assert_array_equal(one.weights_in_use(), second + 1)


def test_online_importances_of_a_blocks_beginning_stand_after_a_reshuffled_epoch(configured: Configured) -> None:
    config = configured("proposal.method=online", SYSTEMATIC, "master.minibatch_size=2", "proposal.block=0.7")
    one = Online(config, EXAMPLES, CPU)
    first = [one.draw(step, 2).indices for step in range(3)]
    assert sorted(torch.cat(first).tolist()) == list(range(EXAMPLES))
    random = np.random.default_rng(0)
    for step in range(9):
        if step in (3, 5, 7):
            before = one.weights_in_use()
        minibatch = one.draw(step, 2)
        if step >= 3:
            np.testing.assert_array_equal(one.weights_in_use(), before)
            expected = before.mean() / before[minibatch.indices.numpy()]
            np.testing.assert_allclose(minibatch.factors.numpy(), expected, rtol=1e-6)
        one.learn(step, minibatch, seen_of(random.normal(0, 3, (2, 3))), None)


def test_who_leaves_within_a_block_stays_away(configured: Configured) -> None:
    settings = ["pruning.reduction=0.5", "pruning.by=random", "pruning.keep=0.3", "pruning.epsilon=0.001"]
    one = Pruning(
        configured("proposal.method=pruning", SYSTEMATIC, "master.minibatch_size=2", *settings), EXAMPLES, CPU
    )
    random, gone, came_back = np.random.default_rng(0), np.zeros(EXAMPLES, bool), False
    for step in range(30):
        minibatch = one.draw(step, 2)
        came_back |= bool(gone[minibatch.indices.numpy()].any())
        one.learn(step, minibatch, seen_of(random.normal(0, 3, (2, 3))), None)
        if one.is_filled:
            assert not one.now()[gone].any()
            gone = one.now() == 0
            assert one.drawable == EXAMPLES - gone.sum()
    assert came_back
    assert gone.any()


@pytest.mark.parametrize("method", ["sgd", "reshuffled", "dlis", "low", "infobatch"])
def test_methods_that_draw_otherwise_refuse_them(configured: Configured, method: str) -> None:
    with pytest.raises(
        ConfigError, match=r"proposal\.draws.*'issgd', 'online', 'adaptive', 'pruning', 'second-moment'"
    ):
        configured(f"proposal.method={method}", SYSTEMATIC)


@pytest.mark.parametrize("given", ["draws=even", "block=0", "block=1.5", "block=-1", "block=nan"])
def test_settings_out_of_range_are_refused(configured: Configured, given: str) -> None:
    with pytest.raises(ConfigError, match=rf"proposal\.{given.partition('=')[0]}"):
        configured(f"proposal.{given}")
