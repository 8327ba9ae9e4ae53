"""Online importance sampling: its table step by step; no bias given the table, over every draw of a tiny problem."""

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch.nn import functional

from issgd_cli.actors.auditing import exact_quantities
from issgd_cli.config.config import Config
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import ConfigError, RunError
from issgd_cli.methods.adaptive import Adaptive
from issgd_cli.methods.method import Drawn
from issgd_cli.methods.online import Online
from issgd_cli.methods.proposal import FLOOR
from issgd_cli.methods.reshuffled import Reshuffled
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.runs.audits import load_audit
from tests.actors.test_auditing import examples_of, result
from tests.draws import EXAMPLES, fixed, seen_of, tiny_gradients
from tests.masters import Hired, refresh, relaxed, report, train

Configured = Callable[..., Config]

CPU = torch.device("cpu")
Kind = TypeVar("Kind", bound=Online)

IMPORTANCES = np.array([0.3, 1.1, 0.05, 0.7, 1e-6, 0.4])


def method(configured: Configured, kind: type[Online] = Online, *settings: str, examples: int = EXAMPLES) -> Online:
    name = kind.__name__.lower()
    return kind(configured(f"proposal.method={name}", "master.minibatch_size=2", *settings), examples, CPU)


def filled(one: Kind, importances: Float64s = IMPORTANCES) -> Kind:
    one.recall(one.learned() | {"importances": importances.copy(), "is_filled": np.array(True)})
    return one


def expected(one: Online, size: int, gradients: Float64s, monkeypatch: pytest.MonkeyPatch) -> Float64s:
    """Its estimate's mean over every minibatch."""
    chances = one.weights_in_use() / one.weights_in_use().sum()
    middles = chances.cumsum() - chances / 2
    total = np.zeros(gradients.shape[1])
    for minibatch in itertools.product(range(len(chances)), repeat=size):
        chosen = np.array(minibatch)
        monkeypatch.setattr("issgd_cli.methods.online.generator", lambda *key, at=chosen: fixed(middles[at]))
        drawn = one.draw(5, size)
        assert drawn.indices.tolist() == list(minibatch)
        (coefficients,) = one.weigh(drawn, seen_of(np.zeros((size, 2)))).double().numpy()
        total += chances[chosen].prod() * (coefficients @ gradients[chosen])
    return total


# Bias


def test_given_the_table_the_expected_gradient_is_the_mean_of_all(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed: all 36 minibatches of two, one of whose examples is next to never drawn."""
    gradients = tiny_gradients()
    found = expected(filled(method(configured)), 2, gradients, monkeypatch)
    np.testing.assert_allclose(found, gradients.mean(0), rtol=1e-6, atol=1e-6)


def test_adaptive_sampling_is_off_by_n_times_a_covariance(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = tiny_gradients()
    found = expected(filled(method(configured, Adaptive)), 2, gradients, monkeypatch)
    chances = IMPORTANCES / IMPORTANCES.sum()
    centred = (chances - 1 / EXAMPLES)[:, None] * (gradients - gradients.mean(0))
    bias = found - gradients.mean(0)
    np.testing.assert_allclose(bias, EXAMPLES * centred.mean(0), rtol=1e-5)
    assert np.linalg.norm(bias) > 0.1 * np.linalg.norm(gradients.mean(0))
    even = expected(filled(method(configured, Adaptive), np.full(EXAMPLES, 0.7)), 2, gradients, monkeypatch)
    np.testing.assert_allclose(even, gradients.mean(0), rtol=1e-6, atol=1e-6)


# The table


def learn(one: Online, step: int, indices: list[int], outputs: Any) -> Float64s:
    """It learns of these examples' logits; their importances."""
    seen = seen_of(outputs)
    one.learn(step, Drawn(torch.tensor(indices), torch.ones(len(indices))), seen, None)
    return seen.importances().numpy()


def test_the_first_epoch_is_reshuffled_and_fills_the_table(configured: Configured) -> None:
    one = method(configured, Online, "online.alpha=0.3", "online.epsilon=0.25", examples=5)
    plain, expected_values = Reshuffled(one.config, 5, CPU), np.zeros(5)
    for step in range(3):  # the third minibatch ends the epoch, and reaches beyond it
        drawn, same = one.draw(step, 2), plain.draw(step, 2)
        assert drawn.indices.tolist() == same.indices.tolist()
        assert drawn.factors.tolist() == [1, 1]
        assert one.weights_in_use().tolist() == [1] * 5
        expected_values[drawn.indices] = learn(one, step, drawn.indices.tolist(), [[step, 0.0], [0.5, step]])
    np.testing.assert_allclose(one.weights_in_use(), expected_values + 0.25)  # no alpha: there was nothing to keep
    assert (expected_values > 0).all()


def test_what_is_drawn_moves_its_importance_once_and_an_epochs_end_lifts_all(configured: Configured) -> None:
    one = filled(method(configured, Online, "online.alpha=0.3", "online.epsilon=0.25"))
    found = learn(one, 3, [1, 1], [[2.0, 0.0], [2.0, 0.0]])
    moved = IMPORTANCES.copy()
    moved[1] = 0.3 * IMPORTANCES[1] + 0.7 * found[0]
    np.testing.assert_allclose(one.weights_in_use(), moved)
    learn(one, 4, [1, 1], [[0.0, 2.0]] * 2)
    before = one.weights_in_use()
    after = np.array([0.3 * before[0] + 0.7 * learn(one, 5, [0, 0], [[0.0, 1.0]] * 2)[0], *before[1:]]) + 0.25
    np.testing.assert_allclose(one.weights_in_use(), after)  # 12 draws: the second epoch of 6 is over


def test_a_minibatch_larger_than_the_data_ends_several_epochs(configured: Configured) -> None:
    one = method(configured, Online, "master.minibatch_size=7", "online.epsilon=0.25", examples=3)
    drawn = one.draw(0, 7)
    found = learn(one, 0, drawn.indices.tolist(), [[1.0, 0.0]] * 7)
    np.testing.assert_allclose(one.weights_in_use(), found[:3] + 2 * 0.25)


def test_an_importance_of_zero_can_still_be_drawn(configured: Configured) -> None:
    one = filled(method(configured, Online, "online.alpha=0", "online.epsilon=0.5"))
    assert learn(one, 3, [2, 3], [[2000.0, 0.0], [1.0, 0.0]])[0] == 0
    assert one.weights_in_use()[2] == FLOOR * 0.5


def test_a_loss_that_is_no_number_leaves_the_table_alone(configured: Configured) -> None:
    one = filled(method(configured))
    learn(one, 3, [2, 3], [[np.nan, 0.0], [np.inf, 0.0]])
    np.testing.assert_array_equal(one.weights_in_use(), IMPORTANCES)


@pytest.mark.parametrize("name", ["online", "mis", "omis"])
def test_a_loss_that_is_no_number_ends_the_run(hired: Hired, configured: Configured, name: str) -> None:
    master = hired(relaxed(configured, f"proposal.method={name}"))
    refresh(master)
    for _ in range(15):
        loss = train(master)
    master.learner.parameters[0] = float("nan")
    loss = train(master)
    with pytest.raises(RunError, match="not finite at step 16"):
        master._refuse_diverged(loss[None])
    assert np.isfinite(master.method.weights_in_use()).all()


@pytest.mark.parametrize("given", ["alpha=-0.1", "alpha=1.1", "alpha=nan", "epsilon=0", "epsilon=-1", "epsilon=inf"])
def test_settings_out_of_range_are_refused_by_their_name(configured: Configured, given: str) -> None:
    for name in ("online", "adaptive", "pruning"):
        with pytest.raises(ConfigError, match=rf"{name}\.{given.partition('=')[0]}"):
            configured(f"proposal.method={name}", f"{name}.{given}")


# What is told and saved of it


def test_reports_and_audits_are_of_the_table_of_their_moment(hired: Hired, configured: Configured) -> None:
    """95 examples by 8: the first epoch ends with the 12th step."""
    master = hired(relaxed(configured, "proposal.method=online", "monitor.audit_every_steps=1"))
    refresh(master)
    for step in range(1, 17):
        train(master)
        before = report(master)
        in_use = master.method.weights_in_use()
        assert (np.ptp(in_use) > 0) == (step >= 12)
        refresh(master)  # as of the last publication: the table may change meanwhile
        assert report(master) == before
        master.method.settle(step, float(step))
        refresh(master)
        assert report(master)["proposal/effective_sample_size"] == pytest.approx(in_use.sum() ** 2 / (in_use**2).sum())


def test_the_audited_trace_is_eq_6_with_the_table_of_its_step(
    hired: Hired, configured: Configured, data: Prepared
) -> None:
    """Against each example's gradient by torch alone, though training has gone on since."""
    master = hired(relaxed(configured, "proposal.method=online"))
    refresh(master)
    for _ in range(15):
        train(master)
    master.saving.audit(master.learner, master.method, master.limits.passes)
    weights, learner = master.method.weights_in_use(), master.learner
    parameters, chances = list(learner.model.parameters()), weights / weights.sum()
    inputs, labels = master.examples[torch.arange(95)]
    gradients = np.stack(
        [
            torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters, retain_graph=True)]).double()
            for loss in functional.cross_entropy(learner.model(inputs), labels, reduction="none")
        ]
    )
    estimates = gradients / (95 * chances[:, None])
    trace = chances @ np.square(estimates).sum(1) - np.square(gradients.mean(0)).sum()
    for _ in range(5):
        train(master)
    assert not np.array_equal(master.method.weights_in_use(), weights)
    (path,) = master.saving.folder.audits.iterdir()
    point, model = load_audit(path), learner.problem.network(CPU)
    flatten_parameters(model).copy_(torch.from_numpy(point.parameters))
    of = learner.problem.loss, model, examples_of(data)
    values = result(exact_quantities(*of, point, (), np.random.default_rng(0)))
    assert values["trace/in_use"] == pytest.approx(trace, rel=1e-4)


def test_both_sections_may_be_there(configured: Configured) -> None:
    settings = ["online.alpha=0.1", "adaptive.alpha=0.2", "pruning.alpha=0.3"]
    config = configured("proposal.method=adaptive", *settings)
    assert Adaptive(config, 5, CPU).settings.alpha == 0.2
    assert Online(config, 5, CPU).settings.alpha == 0.1
