"""ISSGD: it draws in proportion to the smoothed norms, its own minibatches' among them, and what it aims at."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from issgd_cli.actors.master import Master
from issgd_cli.config.config import Config
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.methods.issgd import ISSGD
from issgd_cli.problem import Problem
from issgd_cli.randomness import generator
from issgd_cli.runs.folder import RunFolder
from tests.draws import EXAMPLES, OLD, expected_estimate, seen_of, tiny_gradients, tiny_table
from tests.masters import Hired, own_norms, refresh, relaxed, report, score_chunk, score_everything, train

CPU = torch.device("cpu")

Configured = Callable[..., Config]
Begun = Callable[[Config], MemoryDatabase]
NewFolder = Callable[[str], RunFolder]


def test_issgd_draws_in_proportion_to_the_smoothed_norms(hired: Hired, configured: Configured, begun: Begun) -> None:
    master = hired(relaxed(configured, "proposal.smoothing=0.25"))
    score_everything(master.database, 1)
    refresh(master)
    norms = master.database.weights().norms
    np.testing.assert_allclose(master.method.proposal.weights, norms.astype(np.float64) + 0.25, rtol=1e-12)
    assert report(master)["proposal/smoothing"] == 0.25


def test_before_anything_is_scored_draws_are_uniform_by_fallback(hired: Hired, configured: Configured) -> None:
    master = hired(relaxed(configured))
    refresh(master)
    values = report(master)
    assert (values["proposal/fallback"], values["proposal/kept_fraction"]) == (1, 0)
    assert values["proposal/entropy"] == pytest.approx(np.log(95))
    assert not any(name.startswith("staleness/") for name in values)


@pytest.mark.parametrize(("fraction", "fallback"), [(0.2, False), (0.3, True)])
def test_below_the_minimum_usable_fraction_the_master_draws_uniformly(
    hired: Hired, configured: Configured, fraction: float, fallback: bool
) -> None:
    master = hired(relaxed(configured, f"proposal.minimum_usable_fraction={fraction}"))
    for number in range(2):
        score_chunk(master.database, number, 1, [1.0] * 9 + [5.0])
    refresh(master)
    assert report(master)["proposal/fallback"] == fallback
    assert (len(set(master.method.proposal.weights.tolist())) == 1) == fallback


def test_draws_by_shuffled_weights_are_unbiased(hired: Hired, configured: Configured) -> None:
    """Listed draw by draw: the mean over all examples of anything comes out, as for any positive weights."""
    master = hired(relaxed(configured, "proposal.source=shuffled", "proposal.smoothing=0"))
    score_everything(master.database, 1)
    refresh(master)
    omega = master.method.proposal.weights
    anything = np.random.default_rng(0).standard_normal(95)
    expected = (omega / omega.sum() * (omega.mean() / omega) * anything).sum()
    assert expected == pytest.approx(anything.mean(), abs=1e-12)
    indices, factors = master.method.proposal.draw(np.random.default_rng(0), 50)
    np.testing.assert_allclose(factors, omega.mean() / omega[indices])


def test_a_steps_draws_depend_on_seed_and_step_alone(hired: Hired, configured: Configured, data: Prepared) -> None:
    master = hired(relaxed(configured))
    score_everything(master.database, 1)
    again, other = (
        Master.of(
            configured("master.mode=relaxed", f"seed={seed}"),
            Problem(configured("master.mode=relaxed", f"seed={seed}"), data),
            master.database,
            master.saving.folder,
            CPU,
        )
        for seed in (0, 1)
    )
    other.learner.parameters.copy_(master.learner.parameters)
    losses = []
    for one in (master, again, other):
        torch.randn(3, generator=torch.Generator())
        refresh(one)
        losses.append([float(train(one)) for _ in range(4)])
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[2][0]  # the same parameters and weights, other draws


# Bias

LIMIT = "proposal.staleness_limit_versions=2"
OWN = "master.reuse_own_norms=true"


@pytest.mark.parametrize("smoothing", ["0", "10", "entropy:0.97", "variance-optimal", "second-moment"])
@pytest.mark.parametrize(
    ("settings", "of"),
    [
        (["proposal.limit_mode=drop"], "all"),
        (["proposal.limit_mode=fill", LIMIT], "all"),
        (["proposal.limit_mode=drop", LIMIT], "usable"),
        (["proposal.limit_mode=fill", OWN], "all"),
        (["proposal.source=shuffled"], "all"),
    ],
)
def test_the_expected_gradient_is_the_mean_of_all_but_of_the_usable_where_others_are_dropped(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, smoothing: str, settings: list[str], of: str
) -> None:
    """Listed: every minibatch of two, drawn by norms that are stale."""
    method = ISSGD(relaxed(configured, f"proposal.smoothing={smoothing}", *settings), EXAMPLES, CPU)
    if method.own is not None:
        method.learn(0, method.draw(0, 3), seen_of(np.zeros((3, 2))), torch.tensor([0.1, 4.0, 90.0]))
        method.settle(6, 0.9)
    method.adopt(method.refreshed(tiny_table()))
    assert len(set(method.proposal.weights.tolist())) > 2  # no fallback
    gradients = tiny_gradients()
    targets = {"all": gradients.mean(0), "usable": gradients[~OLD].mean(0)}
    assert not np.allclose(targets["all"], targets["usable"], rtol=0.1)
    expected = expected_estimate(method, 2, gradients, monkeypatch)
    np.testing.assert_allclose(expected, targets[of], rtol=1e-6, atol=1e-6)


# The norms of its own minibatches


def test_own_norms_are_those_of_each_examples_own_loss_and_change_no_step(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder
) -> None:
    """Neither the importance weight nor 1/M stays in them."""
    masters = []
    for reuse in ("false", "true"):
        config = relaxed(configured, "proposal.limit_mode=fill", f"master.reuse_own_norms={reuse}")
        masters.append(Master.of(config, Problem(config, data), begun(config), new_folder(reuse), CPU))
        score_everything(masters[-1].database, 1)
        refresh(masters[-1])
    plain, reusing = masters
    before = copy.deepcopy(reusing.learner.model)
    indices, factors = reusing.method.proposal.draw(generator(0, "draws", 0), 8)
    assert len(set(factors.tolist())) > 1
    assert float(train(reusing)) == pytest.approx(float(train(plain)), rel=1e-6)
    torch.testing.assert_close(reusing.learner.parameters, plain.learner.parameters, rtol=1e-5, atol=1e-7)
    drawn, norms = own_norms(reusing).pending[0]
    assert torch.equal(drawn, indices)
    inputs, labels = reusing.examples[indices]
    for number in range(8):
        loss = functional.cross_entropy(before(inputs[number : number + 1]), labels[number : number + 1])
        gradients = torch.autograd.grad(loss, list(before.parameters()))
        expected = sum(float(part.double().square().sum()) for part in gradients) ** 0.5
        assert float(norms[number]) == pytest.approx(expected, rel=1e-4)


def test_own_norms_come_into_play_at_the_next_refresh_only(hired: Hired, configured: Configured) -> None:
    """The table that a minibatch is drawn from stays as it was for its correction."""
    master = hired(relaxed(configured, "proposal.limit_mode=fill", "master.reuse_own_norms=true"))
    score_everything(master.database, 1)
    master.publishing.version = 2
    refresh(master)
    before = master.method.proposal.weights.copy()
    for _ in range(3):
        train(master)
    drawn = np.unique(torch.cat([indices for indices, _ in own_norms(master).pending]).numpy())
    np.testing.assert_array_equal(master.method.proposal.weights, before)
    published = master._next()
    assert not own_norms(master).pending
    own = own_norms(master)
    np.testing.assert_array_equal(np.flatnonzero(own.versions), drawn)
    assert set(own.versions[drawn]) == {published.version - 1}
    np.testing.assert_array_equal(master.method.proposal.weights, before)
    refresh(master)
    np.testing.assert_allclose(master.method.proposal.weights[drawn], own.norms[drawn].astype(np.float64) + 0.5)
    others = np.setdiff1d(np.arange(95), drawn)
    np.testing.assert_array_equal(master.method.proposal.weights[others], before[others])
