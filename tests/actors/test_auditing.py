"""An audit is a loop over all examples in float64."""

import copy
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn import functional

from issgd_cli.actors.actor import Operation
from issgd_cli.actors.auditing import AUDIT_DRAWS, exact_quantities, stale_weights
from issgd_cli.database import SPLITS, Split
from issgd_cli.datasets.examples import Examples
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.equations import alain2015 as equations
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.methods.proposal import Proposal
from issgd_cli.methods.smoothing import constant_in
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.randomness import generator
from tests.points import point_of

CPU = torch.device("cpu")


def result(announcing: Generator[Operation, None, dict[str, float]]) -> dict[str, float]:
    """What a generator of operations returns in the end."""
    while True:
        try:
            next(announcing)
        except StopIteration as end:
            return dict(end.value)


def examples_of(data: Prepared) -> dict[Split, Examples]:
    return {split: Examples(data, data.splits[split], CPU) for split in SPLITS}


def one_by_one(model: nn.Module, data: Prepared, split: Split) -> tuple[Float64s, Float64s, Float64s]:
    """Losses, errors and gradients, shape (N, P), of every example, by autograd in float64."""
    wide = copy.deepcopy(model).double()
    losses, errors, gradients = [], [], []
    examples = data.splits[split]
    inputs = torch.from_numpy((examples.inputs.astype(np.float64) - data.mean) / data.std)
    for number, label in enumerate(examples.targets):
        logits = wide(inputs[number : number + 1])
        loss = functional.cross_entropy(logits, torch.tensor([label]))
        parts = torch.autograd.grad(loss, list(wide.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]).numpy())
        losses.append(float(loss.detach()))
        errors.append(float(logits.argmax() != label))
    return np.array(losses), np.array(errors), np.array(gradients)


def output_norms(model: torch.nn.Sequential, data: Prepared) -> np.ndarray[Any, Any]:
    """Of each training example's gradient by its logits, by autograd in float64, shape (N,)."""
    split, wide = data.splits["train"], copy.deepcopy(model).double()
    inputs, labels = examples_of(data)["train"][slice(0, len(split.targets))]
    logits = wide(inputs.double()).detach().requires_grad_()
    losses = torch.nn.functional.cross_entropy(logits, labels.long(), reduction="sum")
    (gradients,) = torch.autograd.grad(losses, logits)
    norms: np.ndarray[Any, Any] = gradients.norm(dim=1).numpy()
    return norms


def draws(step: int = 0) -> np.random.Generator:
    return generator(0, "audit_draws", step)


@pytest.mark.parametrize("dropped", [0, 40])
def test_an_audit_equals_a_loop_over_all_examples_in_float64(data: Prepared, dropped: int) -> None:
    model = mlp(16, [7, 6], 3)
    initialise(model, 3, 0.6)
    random = np.random.default_rng(0)
    weights, previous = random.exponential(1.0, 95) + 0.1, random.exponential(1.0, 95)
    weights[random.permutation(95)[:dropped]] = 0
    values = result(
        exact_quantities(
            cross_entropy, model, examples_of(data), point_of(model, weights, previous), (0.0, 1.0), draws()
        )
    )
    for split in SPLITS:
        losses, errors, _ = one_by_one(model, data, split)
        assert values[f"loss/{split}"] == pytest.approx(losses.mean(), rel=1e-5)
        assert values[f"error/{split}"] == pytest.approx(errors.mean())
    _, _, gradients = one_by_one(model, data, "train")
    s, g2 = (gradients**2).sum(1), float((gradients.mean(0) ** 2).sum())
    drawn = weights > 0
    own_g2 = float((gradients[drawn].mean(0) ** 2).sum())
    assert values["gradient_norm2"] == pytest.approx(g2, rel=1e-5)
    assert values["trace/ideal"] == pytest.approx(equations.ideal_trace(s, g2), rel=1e-5)
    assert values["trace/uniform"] == pytest.approx(equations.uniform_trace(s, g2), rel=1e-5)
    outputs = output_norms(model, data)
    assert values["trace/by_outputs"] == pytest.approx(equations.trace_of_covariance(s, outputs, g2), rel=1e-5)
    assert values["rank_correlation"] == pytest.approx(scipy.stats.spearmanr(outputs, s).statistic, abs=1e-3)
    for name, constant in (("", 0.25), ("+0", 0.0), ("+1", 1.0)):
        stale = np.asarray(np.float32(previous), np.float64) + constant
        assert values[f"trace/stale{name}"] == pytest.approx(equations.stale_trace(s, stale, g2), rel=1e-5)
    # In use: the covariance trace of the very estimator, listed draw by draw, about what it estimates.
    q = weights[drawn] / weights.sum()
    estimates = gradients[drawn] / drawn.sum() / q[:, None]
    target = gradients[drawn].mean(0)
    np.testing.assert_allclose(q @ estimates, target, atol=1e-12)
    in_use = float(q @ ((estimates - target) ** 2).sum(1))
    assert values["trace/in_use"] == pytest.approx(in_use, rel=1e-5)
    assert values["trace/in_use"] == pytest.approx(
        equations.trace_of_covariance(s[drawn], weights[drawn], own_g2), rel=1e-5
    )
    assert (own_g2 == g2) == (dropped == 0)
    assert ("trace/uniform_in_use" in values) == (dropped > 0)
    if dropped:
        assert values["trace/uniform_in_use"] == pytest.approx(equations.uniform_trace(s[drawn], own_g2), rel=1e-5)
    assert values["trace/ideal"] <= values["trace/uniform"]


def test_the_error_ratio_is_that_of_the_very_draws_about_the_mean_gradient_of_all(data: Prepared) -> None:
    model = mlp(16, [7, 6], 3)
    initialise(model, 3, 0.6)
    weights = np.random.default_rng(0).exponential(1.0, 95)
    weights[:30] = 0
    point = point_of(model, weights, np.ones(95))
    values = result(exact_quantities(cross_entropy, model, examples_of(data), point, (0.0,), draws(4)))
    _, _, gradients = one_by_one(model, data, "train")
    indices, factors = (part.numpy() for part in Proposal.of(weights).draw(draws(4), AUDIT_DRAWS))
    estimate = (factors[:, None] * gradients[indices]).mean(0)
    error_norm2 = float(((estimate - gradients.mean(0)) ** 2).sum())
    expected = error_norm2 * AUDIT_DRAWS / values["trace/in_use"]
    assert values["estimator/error_ratio"] == pytest.approx(expected, rel=1e-4)


def test_the_error_ratio_is_1_on_average_for_any_positive_weights_and_shows_the_bias_of_left_out_ones(
    data: Prepared,
) -> None:
    model = mlp(16, [7, 6], 3)
    initialise(model, 3, 0.6)
    weights = np.random.default_rng(0).exponential(1.0, 95) + 0.05
    dropping = weights.copy()
    dropping[:30] = 0
    off = []
    for omega in (weights, dropping):
        point = point_of(model, omega, np.ones(95))
        ratios = [
            result(exact_quantities(cross_entropy, model, examples_of(data), point, (0.0,), draws(step)))[
                "estimator/error_ratio"
            ]
            for step in range(30)
        ]
        off.append((np.mean(ratios) - 1) / (np.std(ratios) / 30**0.5))  # in standard errors
    assert abs(off[0]) < 3
    assert off[1] > 10


def test_the_stale_trace_is_that_of_todays_gradients_drawn_by_the_norms_before_the_ones_in_use(data: Prepared) -> None:
    """Listed draw by draw, in float64: the network of three publications, of which the last is audited."""
    models = []
    for number in range(3):
        models.append(model := mlp(16, [7, 6], 3))
        initialise(model, 3, 0.6)
        for parameter in model.parameters():
            parameter.data += 0.1 * number * torch.sin(torch.arange(parameter.numel())).view_as(parameter)
    before, in_use, now = (one_by_one(model, data, "train")[2] for model in models)
    previous, table = (np.sqrt((gradients**2).sum(1)) for gradients in (before, in_use))
    point = point_of(models[-1], table + 0.25, previous)
    values = result(exact_quantities(cross_entropy, models[-1], examples_of(data), point, (0.0, 2.0), draws()))
    for name, constant in (("stale", 0.25), ("stale+0", 0.0), ("stale+2", 2.0)):
        q = (previous + constant) / (previous + constant).sum()
        estimates = now / len(now) / q[:, None]
        trace = float(q @ ((estimates - now.mean(0)) ** 2).sum(1))
        assert values[f"trace/{name}"] == pytest.approx(trace, rel=1e-4)
    assert values["trace/stale"] != pytest.approx(values["trace/in_use"], rel=0.01)


def test_of_weights_that_are_no_norms_plus_a_constant_eq_9_is_told_for_other_constants_alone() -> None:
    previous = np.array([1.0, 2.0, 0.0], np.float32)
    assert set(stale_weights(previous, 0.5, (10.0,))) == {"trace/stale", "trace/stale+10"}
    assert set(stale_weights(previous, constant_in("second-moment", 0.0), (10.0,))) == {"trace/stale+10"}
    assert constant_in("variance-optimal", 3.0) == constant_in(3.0, 3.0) == 3.0


def test_an_audit_of_uniform_weights_is_eq_8(data: Prepared) -> None:
    model = mlp(16, [7], 3)
    initialise(model, 3, 0.6)
    point = point_of(model, np.ones(95), np.full(95, np.nan))
    values = result(exact_quantities(cross_entropy, model, examples_of(data), point, (0.0,), draws()))
    assert values["trace/in_use"] == pytest.approx(values["trace/uniform"], rel=1e-6)
    assert not any(name.startswith("trace/stale") for name in values)  # never all scored twice


def test_an_audit_does_not_depend_on_how_the_examples_fall_into_minibatches(
    data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mlp(16, [7], 3)
    initialise(model, 3, 0.6)
    point = point_of(model, np.linspace(0, 1, 95), np.linspace(1, 2, 95))
    found = []
    for size in (7, 30, 1000):
        monkeypatch.setattr("issgd_cli.actors.auditing.AUDIT_MINIBATCH", size)
        found.append(result(exact_quantities(cross_entropy, model, examples_of(data), point, (0.0,), draws())))
    for values in found[1:]:
        assert values == pytest.approx(found[0], rel=1e-5)


def test_systematic_draws_are_audited_by_blocks_as_they_really_come(data: Prepared) -> None:
    """Held against blocks of each example's gradient by torch alone; a reshuffled epoch's mean has no error."""
    model = mlp(16, [7, 6], 3)
    initialise(model, 3, 0.6)
    gradients = one_by_one(model, data, "train")[2]
    looked_at = cross_entropy, model, examples_of(data)
    weights = np.sqrt((gradients**2).sum(1)) + 0.1
    unknown = np.full(95, np.nan)
    proposal = Proposal.of(weights)
    random, expected = np.random.default_rng(0), []
    for _ in range(2000):
        indices, factors = (drawn.numpy() for drawn in proposal.draw_systematically(random, 95))
        error = (factors[:, None] * gradients[indices]).mean(0) - gradients.mean(0)
        expected.append(95 * float(error @ error))
    point = point_of(model, weights, unknown)
    found = [result(exact_quantities(*looked_at, point, (), np.random.default_rng(seed), 95)) for seed in range(40)]
    ours = np.array([values["trace/in_use_systematic"] for values in found])
    assert abs(ours.mean() - np.mean(expected)) < 4 * ours.std() / 40**0.5
    assert ours.mean() < 0.7 * found[0]["trace/in_use"]
    even = result(exact_quantities(*looked_at, point_of(model, np.ones(95), unknown), (), draws(), 95))
    assert even["trace/in_use_systematic"] < 1e-6 * even["trace/in_use"]
    assert "trace/in_use_systematic" not in result(exact_quantities(*looked_at, point, (), draws()))
