"""Pruning: who leaves, how many, and that what is left is drawn without bias."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from issgd_cli.config.config import Config
from issgd_cli.errors import ConfigError
from issgd_cli.methods.method import Drawn
from issgd_cli.methods.online import Online
from issgd_cli.methods.pruning import Pruning, leaving
from tests.draws import EXAMPLES, seen_of, tiny_gradients
from tests.methods.test_online import expected, filled

Configured = Callable[..., Config]

CPU = torch.device("cpu")
IMPORTANCES = np.array([0.3, 1.1, 0.05, 0.7, 0.01, 0.4])  # sum 2.56


def method(configured: Configured, *settings: str) -> Pruning:
    base = "proposal.method=pruning", "master.minibatch_size=2", "pruning.alpha=1"
    return Pruning(configured(*base, *settings), EXAMPLES, CPU)


def steps(one: Pruning, first: int, count: int) -> None:
    """Steps that teach nothing: their alpha is 1."""
    for step in range(first, first + count):
        one.learn(step, Drawn(torch.tensor([1, 1]), torch.ones(2)), seen_of(np.zeros((2, 2))), None)


@pytest.mark.parametrize(
    ("reduction", "keep", "count"),
    [(0.0, 0, 0), (0.003, 0, 0), (0.004, 0, 1), (0.05, 0, 2), (0.2, 0, 3), (1.0, 0, 5), (0.2, 4, 2), (0.2, 6, 0)],
)
def test_as_many_leave_as_hold_so_little_together(reduction: float, keep: int, count: int) -> None:
    assert leaving(IMPORTANCES, reduction, keep) == count


def test_the_least_important_leave_at_an_epochs_end_and_epochs_get_shorter(configured: Configured) -> None:
    one = filled(method(configured, "pruning.reduction=0.05", "pruning.epsilon=0.1"), IMPORTANCES)
    steps(one, 0, 2)
    assert (one.weights_in_use() > 0).all()
    steps(one, 2, 1)  # six draws
    np.testing.assert_allclose(one.weights_in_use(), np.where(IMPORTANCES > 0.05, IMPORTANCES + 0.1, 0))
    assert one.drawable == 4
    steps(one, 3, 2)  # four
    np.testing.assert_allclose(one.weights_in_use(), np.where(IMPORTANCES > 0.05, IMPORTANCES + 0.2, 0))
    assert (one.began, one.made) == (5, 2)
    assert not {2, 4} & set(torch.cat([one.draw(step, 50).indices for step in range(20)]).tolist())


def test_it_counts_its_epochs_which_get_shorter(configured: Configured) -> None:
    one = filled(method(configured, "pruning.reduction=0.05", "pruning.epsilon=0.1"), IMPORTANCES)
    made = [one.epochs]
    for step in range(6):
        steps(one, step, 1)
        made.append(one.epochs)
    np.testing.assert_allclose(
        np.array(made, np.float64), [0, 1 / 3, 2 / 3, 1, 1.5, 2, 2.5]
    )  # of six draws, then of four
    again = method(configured, "pruning.reduction=0.05", "pruning.epsilon=0.1")
    again.recall(one.learned())
    assert again.epochs == 2.5


def test_given_who_is_left_the_expected_gradient_is_their_mean(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = filled(method(configured, "pruning.reduction=0.05"), IMPORTANCES)
    steps(one, 0, 3)
    left = np.flatnonzero(one.weights_in_use())
    gradients, numbers = tiny_gradients(), {index: number for number, index in enumerate(left)}
    draw = one.draw

    def among_the_left(step: int, size: int) -> Drawn:
        drawn = draw(step, size)
        return Drawn(torch.tensor([numbers[index] for index in drawn.indices.tolist()]), drawn.factors)

    monkeypatch.setattr(one, "draw", among_the_left)
    monkeypatch.setattr(one, "weights_in_use", lambda: one.importances.values[left].numpy())
    found = expected(one, 2, gradients[left], monkeypatch)
    np.testing.assert_allclose(found, gradients[left].mean(0), rtol=1e-6, atol=1e-6)


def test_at_random_as_many_leave_whichever(configured: Configured) -> None:
    gone = set()
    for seed in range(20):
        one = filled(method(configured, "pruning.by=random", "pruning.reduction=0.05", f"seed={seed}"), IMPORTANCES)
        steps(one, 0, 3)
        assert one.drawable == np.count_nonzero(one.weights_in_use()) == 4
        gone |= set(np.flatnonzero(one.weights_in_use() == 0).tolist())
    assert len(gone) > 4


def test_without_pruning_it_is_online_importance_sampling(configured: Configured) -> None:
    one = method(configured, "pruning.by=none", "pruning.reduction=1", "pruning.alpha=0.2")
    other = Online(configured("proposal.method=online", "master.minibatch_size=2", "online.alpha=0.2"), EXAMPLES, CPU)
    for step in range(12):
        drawn, same = one.draw(step, 2), other.draw(step, 2)
        assert torch.equal(drawn.indices, same.indices)
        assert torch.equal(drawn.factors, same.factors)
        seen = seen_of(np.random.default_rng(step).normal(0, 1, (2, 3)))
        for each in (one, other):
            each.learn(step, drawn, seen, None)


def test_a_minibatch_larger_than_what_is_left_is_drawn_with_replacement(configured: Configured) -> None:
    one = filled(method(configured, "pruning.reduction=1", "pruning.keep=0"), IMPORTANCES)
    steps(one, 0, 3)
    assert one.drawable == 1
    drawn = one.draw(3, 2)
    assert drawn.indices.tolist() == [1, 1]
    assert drawn.factors.tolist() == [1, 1]
    steps(one, 3, 2)  # an epoch is a step at least
    assert one.began == 5
    assert one.drawable == 1


@pytest.mark.parametrize("given", ["reduction=-0.1", "reduction=2", "keep=1.1", "by=chance"])
def test_settings_out_of_range_are_refused(configured: Configured, given: str) -> None:
    with pytest.raises(ConfigError, match=rf"pruning\.{given.partition('=')[0]}"):
        configured("proposal.method=pruning", f"pruning.{given}")
