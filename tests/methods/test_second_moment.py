"""The second moment's proposal: its table block by block; no bias given what a block begins with; it saves variance."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from issgd_cli.config.config import Config
from issgd_cli.errors import ConfigError
from issgd_cli.methods.drift import Drift
from issgd_cli.methods.method import Drawn
from issgd_cli.methods.reshuffled import Reshuffled
from issgd_cli.methods.second_moment import SecondMoment, effective_size
from tests.draws import estimate, every_block, seen_of, tiny_gradients
from tests.masters import Hired, refresh, relaxed, report, train

Configured = Callable[..., Config]

CPU = torch.device("cpu")


def method(configured: Configured, examples: int, *settings: str) -> SecondMoment:
    config = configured("proposal.method=second-moment", "master.minibatch_size=2", *settings)
    return SecondMoment(config, examples, CPU)


def learn(one: SecondMoment, step: int, drawn: Drawn, norms: ArrayLike) -> None:
    squares = torch.from_numpy(np.square(np.asarray(norms, np.float32)))
    one.learn(step, drawn, seen_of(np.zeros((len(squares), 2))), squares)


def steps(one: SecondMoment, which: range, seed: int = 0) -> None:
    """Takes these, with norms by chance."""
    for step in which:
        drawn = one.draw(step, 2)
        learn(one, step, drawn, np.random.default_rng([seed, step]).lognormal(0, 1, len(drawn.indices)))


# Bias


def test_given_what_a_block_begins_with_each_minibatch_has_the_mean_of_all(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed: every block of four draws from three examples, whose weights differ."""
    one, gradients, found, total = method(configured, 3), tiny_gradients()[:3], np.zeros((2, 3)), 0.0
    one.drift.add([0.1, 0.1, 1.0, 9.0], [1, 2, 1, 2], [0.1, 0.2, 1.0, 20.0])
    for step in range(2):
        drawn = one.draw(step, 2)
        learn(one, step, drawn, 10.0 ** drawn.indices.numpy())
    weights = one.weights_in_use()
    assert weights.max() > 1.5 * weights.min()
    learned, (_, _, end) = one.learned(), (2, 3, 4)
    for chance, random in every_block(weights, 4):
        one.recall({name: array.copy() for name, array in learned.items()})
        one.blocks.until = 0
        monkeypatch.setattr("issgd_cli.methods.blocks.generator", lambda *key, chosen=random: chosen)
        found += chance * np.array([estimate(one, step, 2, gradients) for step in range(2, end)])
        total += chance
    assert total == pytest.approx(1)
    np.testing.assert_allclose(found, np.broadcast_to(gradients.mean(0), found.shape), rtol=1e-5, atol=1e-6)


# The table


def test_the_first_epoch_is_reshuffled_and_gives_each_example_a_norm(configured: Configured) -> None:
    one = method(configured, 5)
    plain = Reshuffled(one.config, 5, CPU)
    norms = np.zeros(5)
    for step in range(3):
        drawn, same = one.draw(step, 2), plain.draw(step, 2)
        assert torch.equal(drawn.indices, same.indices)
        assert drawn.factors.tolist() == [1, 1]
        np.testing.assert_array_equal(one.weights_in_use(), 1)
        norms[drawn.indices] = [step + 1, step + 1.5]
        learn(one, step, drawn, [step + 1, step + 1.5])
    np.testing.assert_allclose(one.norms, norms)
    assert (one.seen > 0).all()
    assert one.drift.counts.sum() == 0  # the one that is there twice, beyond the epoch's end, had no norm in the table


def test_a_block_is_taken_in_as_pairs_of_what_was_known_and_what_was_found(configured: Configured) -> None:
    one = method(configured, 6, "second-moment.memory=2", "proposal.block=0.6")
    steps(one, range(3))
    assert one.drift.counts.sum() == 0
    known, seen, expected, pending = one.norms.copy(), one.seen.copy(), Drift.none(), []
    for step in (3, 4):  # a block of two steps
        drawn = one.draw(step, 2)
        norms = np.array([0.5 + step, 7 - step], np.float32)
        pending += [(int(i), float(norm), step) for i, norm in zip(drawn.indices, norms, strict=True)]
        before = one.weights_in_use()
        learn(one, step, drawn, norms)
        assert np.array_equal(before, one.weights_in_use()) == (step == 3)
    for index, norm, step in pending:
        expected.add([known[index] / known.mean()], [step + 1 - seen[index]], [norm / known.mean()])
    np.testing.assert_allclose(one.drift.counts, expected.counts)
    np.testing.assert_allclose(one.drift.squares, expected.squares, rtol=1e-5)
    for index, norm, step in pending:
        known[index], seen[index] = norm, step + 1
    np.testing.assert_allclose(one.norms, known)
    np.testing.assert_array_equal(one.seen, seen)
    weights = expected.weights(known / known.mean(), 5 + 1 - seen)
    np.testing.assert_allclose(one.weights_in_use(), 0.7 * weights / weights.mean() + 0.3, rtol=1e-5)
    counts = one.drift.counts.sum()
    steps(one, range(5, 7))
    assert one.drift.counts.sum() == pytest.approx(counts * np.exp(-2 / 6) + 4)


def test_no_factor_exceeds_what_the_uniform_share_allows(configured: Configured) -> None:
    one = method(configured, 6, "second-moment.uniform=0.25")
    steps(one, range(3))
    one.drift.add([1e-4, 1.0, 50.0], [1, 1, 1], [1e-4, 1.0, 50.0])
    one.norms[:] = [1e-4, 1, 1, 1, 1, 50]
    one.proposal = one.proposed()
    factors = torch.cat([one.draw(step, 2).factors for step in range(3, 6)]).numpy()
    assert one.weights_in_use().min() == pytest.approx(0.25, rel=1e-3)
    assert factors.max() <= 4.0001


def test_norms_that_are_no_numbers_are_left_out(configured: Configured) -> None:
    one = method(configured, 6)
    for step in range(3):
        learn(one, step, one.draw(step, 2), [np.nan, np.inf])
    np.testing.assert_array_equal(one.weights_in_use(), 1)
    for step in range(3, 6):
        learn(one, step, one.draw(step, 2), [2.0, np.inf])
    assert np.isfinite(one.weights_in_use()).all()
    assert set(one.norms) == {0.0, 2.0}


def test_where_all_gradients_vanish_draws_are_uniform(configured: Configured) -> None:
    one = method(configured, 6)
    for step in range(9):
        learn(one, step, one.draw(step, 2), [0.0, 0.0])
    np.testing.assert_array_equal(one.weights_in_use(), 1)


@pytest.mark.parametrize("given", ["uniform=0", "uniform=1.1", "uniform=nan", "memory=0", "memory=-1", "memory=inf"])
def test_settings_out_of_range_are_refused_by_their_name(configured: Configured, given: str) -> None:
    with pytest.raises(ConfigError, match=rf"second-moment\.{given.partition('=')[0]}"):
        configured("proposal.method=second-moment", f"second-moment.{given}")


def test_its_draws_are_systematic_unless_told_otherwise(configured: Configured) -> None:
    assert configured("proposal.method=second-moment").proposal.draws == "systematic"
    one = method(configured, 6, "proposal.draws=independent")
    steps(one, range(3))
    one.proposal.weights[:] = 1
    drawn = torch.cat([one.draw(step, 2).indices for step in range(3, 6)])
    assert sorted(drawn.tolist()) != list(range(6))


# The learning rate


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_the_effective_size_is_how_many_uniform_draws_one_is_worth(share: float) -> None:
    """Listed: the second moments of one draw's g / (N q), of norms as they are expected."""
    norms = np.array([0.1, 1.0, 1.5, 7.0])
    q = ((1 - share) * norms / norms.mean() + share) / 4
    moments = [sum(chance * (norm / (4 * chance)) ** 2 for norm, chance in zip(norms, by, strict=True))
               for by in (np.full(4, 0.25), q)]  # fmt: skip
    assert effective_size(11 * q, share) == pytest.approx(moments[0] / moments[1])
    assert (effective_size(11 * q, share) > 1.05) == (share < 1)


def test_equal_weights_are_worth_uniform_draws() -> None:
    assert effective_size(np.full(5, 3.0), 0.3) == pytest.approx(1)
    assert effective_size(np.ones(5), 1.0) == 1


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_steps_are_longer_by_a_power_of_the_effective_size_of_their_block(configured: Configured, power: float) -> None:
    one = method(configured, 6, f"second-moment.rate_power={power}")
    assert [one.draw(step, 2).rate for step in range(3)] == [1, 1, 1]  # reshuffled
    steps(one, range(3))
    one.drift.add([0.1, 0.1, 1.0, 9.0], [1, 2, 1, 2], [0.1, 0.2, 1.0, 20.0])
    one.proposal = one.proposed()
    steps(one, range(3, 4))
    rate = one.draw(4, 2).rate
    assert rate == pytest.approx(effective_size(one.weights_in_use(), 0.3) ** power)
    assert (rate > 1.01) == (power > 0)
    again = method(configured, 6, f"second-moment.rate_power={power}")
    again.recall(one.learned())
    assert again.draw(4, 2).rate == rate
    steps(one, range(4, 7))
    assert power == 0 or one.draw(7, 2).rate != rate


def test_a_control_is_reshuffled_at_the_rate_that_its_draws_would_have(configured: Configured) -> None:
    one = method(configured, 6, "second-moment.rate_power=1", "second-moment.rate_alone=true")
    plain = Reshuffled(one.config, 6, CPU)
    rates: list[float] = []
    for step in range(30):
        drawn, same = one.draw(step, 2), plain.draw(step, 2)
        assert torch.equal(drawn.indices, same.indices)
        assert torch.equal(drawn.factors, same.factors)
        learn(one, step, drawn, 10.0 ** drawn.indices.numpy())
        rates.append(drawn.rate)
        np.testing.assert_array_equal(one.weights_in_use(), 1)
    assert rates[:6] == [1] * 6  # no pairs before the first block is over
    assert min(rates[6:]) > 1.5
    assert rates[-1] == effective_size(one.blocks.proposal.weights, 0.3)


# With a master


def test_a_step_is_as_long_as_its_method_says(
    hired: Hired, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    master = hired(relaxed(configured, "proposal.method=reshuffled", "optimizer.momentum=0"))
    learner, draw, start = master.learner, master.method.draw, master.learner.parameters.clone()
    train(master)
    once = learner.parameters - start
    learner.parameters.copy_(start)
    learner.step = 0
    monkeypatch.setattr(master.method, "draw", lambda *given: draw(*given)._replace(rate=3.0))
    train(master)
    assert once.abs().max() > 1e-3
    torch.testing.assert_close(learner.parameters - start, 3 * once, rtol=1e-3, atol=1e-7)


def test_its_reports_are_of_the_last_publication(hired: Hired, configured: Configured) -> None:
    """95 examples by 8: the first epoch ends with the 12th step."""
    master = hired(relaxed(configured, "proposal.method=second-moment"))
    refresh(master)
    for step in range(1, 27):
        train(master)
        before, in_use = report(master), master.method.weights_in_use()
        assert (np.ptp(in_use) > 0) == (step >= 24)  # the first pairs are those of the first block
        refresh(master)
        assert report(master) == before
        master.method.settle(step, float(step))
        refresh(master)
        assert report(master)["proposal/effective_sample_size"] == pytest.approx(in_use.sum() ** 2 / (in_use**2).sum())


def test_its_reports_tell_how_long_its_steps_are(hired: Hired, configured: Configured) -> None:
    master = hired(relaxed(configured, "proposal.method=second-moment", "second-moment.rate_power=1"))
    for _ in range(26):
        train(master)
        refresh(master)
        assert report(master)["proposal/rate"] == 1
    rate = master.method.draw(master.learner.step, 8).rate
    master.method.settle(1, 1.0)
    refresh(master)
    assert report(master)["proposal/rate"] == rate > 1
    state = master.method.state()
    again = SecondMoment(master.config, master.method.examples, CPU)
    again.restore(state)
    assert again.state()["told_rate"] == rate
