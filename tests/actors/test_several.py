"""Audits of draws by several proposals: formula and simulation are what each example's gradient by torch says."""

import copy
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli.actors import several
from issgd_cli.actors.actor import Operation
from issgd_cli.actors.auditing import exact_quantities
from issgd_cli.actors.sampling import sampled_quantities
from issgd_cli.config.config import Config
from issgd_cli.database import SPLITS
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.equations import salaun2024
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import RunError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.methods.multiple import Multiple
from issgd_cli.methods.optimal import Optimal
from issgd_cli.registries import METHODS
from issgd_cli.runs.audits import Audit
from tests.actors.test_auditing import draws, examples_of, one_by_one
from tests.actors.test_sampling import network
from tests.points import point_of

Configured = Callable[..., Config]

CPU = torch.device("cpu")
EXAMPLES, SIZE = 95, 8
IMPORTANCES = np.random.default_rng(5).exponential(1.0, (3, EXAMPLES)) + 0.1


def result(announcing: Generator[Operation, None, Any]) -> Any:
    while True:
        try:
            next(announcing)
        except StopIteration as end:
            return end.value


def method(configured: Configured, name: str, *settings: str) -> Multiple:
    config = configured(f"proposal.method={name}", f"master.minibatch_size={SIZE}", *settings)
    one: Multiple = METHODS[name](config, EXAMPLES, CPU)
    one.recall({**one.learned(), "importances": IMPORTANCES.copy(), "is_filled": np.array(True)})
    return one


def own(
    one: Multiple, model: torch.nn.Module, data: Prepared, rows: Any, values: dict[str, float] | None = None
) -> dict[str, float]:
    values = values or {"trace/in_use": 0.0, "gradient_norm2": 0.0}
    examples = examples_of(data)["train"]
    return dict(result(several.own_quantities(cross_entropy, model, examples, one, 40, rows, values)))


def parts_of(one: Multiple) -> tuple[Float64s, Float64s, Float64s]:
    chances = IMPORTANCES / IMPORTANCES.sum(1, keepdims=True)
    counts = np.array(salaun2024.counts(SIZE, one.count), np.float64)
    return chances, counts, counts @ chances


def formula(one: Multiple, gradients: Float64s) -> float:
    chances, counts, mixture = parts_of(one)
    means = chances / mixture @ gradients / EXAMPLES
    return SIZE * salaun2024.trace_of_covariance((gradients**2).sum(1), mixture, counts, (means**2).sum(1))


def test_the_trace_of_mis_is_its_formula(configured: Configured, data: Prepared) -> None:
    model, one = network(), method(configured, "mis")
    _, _, gradients = one_by_one(model, data, "train")
    point = point_of(model, one.weights_in_use(), np.full(EXAMPLES, np.nan))
    values = result(exact_quantities(cross_entropy, model, examples_of(data), point, (), draws()))
    found = own(one, model, data, np.arange(EXAMPLES), values)
    assert set(found) == {"trace/in_use"}
    assert found["trace/in_use"] == pytest.approx(formula(one, gradients), rel=1e-4)
    assert found["trace/in_use"] <= values["trace/in_use"]
    # And what minibatches that are drawn show.
    sums = []
    for step in range(1500):
        drawn = one.draw(step, SIZE)
        sums.append((drawn.factors.double().numpy() / SIZE) @ gradients[drawn.indices.numpy()])
    shown = SIZE * ((np.array(sums) - gradients.mean(0)) ** 2).sum(1).mean()
    assert found["trace/in_use"] == pytest.approx(shown, rel=0.2)


def test_on_a_sample_what_is_taken_from_eq_6_is_unbiased(configured: Configured, data: Prepared) -> None:
    model, one = network(), method(configured, "mis")
    examples = examples_of(data)["train"]
    exact = result(several._mean_norms2(cross_entropy, model, examples, one, np.arange(EXAMPLES)))
    _, _, gradients = one_by_one(model, data, "train")
    chances, _, mixture = parts_of(one)
    np.testing.assert_allclose(exact, ((chances / mixture @ gradients / EXAMPLES) ** 2).sum(1), rtol=1e-4)
    random, found = np.random.default_rng(0), []
    for _ in range(150):
        rows = np.sort(random.choice(EXAMPLES, 20, replace=False))
        found.append(result(several._mean_norms2(cross_entropy, model, examples, one, rows)))
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, 0) - exact) < 4 * error).all()


def simulated(one: Optimal, gradients: Float64s, step: int, before: int, count: int) -> Float64s:
    """Its next minibatches' directions, of these gradients, shape (count, P)."""
    one, found = copy.deepcopy(one), []
    one.forget(gradients.shape[1])
    for number in range(before + count):
        drawn = one.draw(step + number, SIZE)
        rows = one.weigh(drawn, None).double().numpy()  # type: ignore[arg-type]
        gradient = torch.from_numpy((rows @ gradients[drawn.indices.numpy()]).astype(np.float32))
        found.append(one.combine([gradient])[0].double().numpy())
    return np.array(found[before:])


SETTINGS = {"plain": ["omis.beta=0"], "averaging": [], "corrected": ["omis.correction=unbiased", "omis.beta=0.3"]}


@pytest.mark.parametrize("kind", SETTINGS)
def test_omis_is_simulated_at_these_parameters(
    configured: Configured, data: Prepared, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "AUDIT_DRAWS", 80 * SIZE)
    model, one = network(), method(configured, "omis", *SETTINGS[kind])
    assert isinstance(one, Optimal)
    _, _, gradients = one_by_one(model, data, "train")
    beta = one.settings.beta
    before = 1 + (int(np.ceil(np.log(0.01) / np.log(beta))) if beta else 0)
    shown = simulated(one, gradients, 40, before, 80)
    found = own(one, model, data, np.arange(EXAMPLES))
    alike = beta if kind == "averaging" else 0.0
    worth = 80 / (1 + 2 * sum((1 - k / 80) * alike**k for k in range(1, 80)))
    spread = ((shown - shown.mean(0)) ** 2).sum() / (80 - 80 / worth)
    assert found["trace/in_use"] == pytest.approx(SIZE * spread, rel=1e-3)
    error2 = ((shown.mean(0) - gradients.mean(0)) ** 2).sum()
    assert found["estimator/error_ratio"] == pytest.approx(worth * error2 / spread, rel=1e-2)
    if kind == "corrected":
        assert found["estimator/error_ratio"] < 3
    on_a_sample = own(one, model, data, np.arange(30))
    assert on_a_sample["trace/in_use"] == pytest.approx(found["trace/in_use"])
    assert np.isnan(on_a_sample["trace/in_use/standard_error"])


def test_with_a_large_ridge_the_simulation_is_of_the_balance_heuristic(
    configured: Configured, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "AUDIT_DRAWS", 600 * SIZE)
    model, one = network(), method(configured, "omis", "omis.beta=0", "omis.ridge=1e9")
    _, _, gradients = one_by_one(model, data, "train")
    found = own(one, model, data, np.arange(EXAMPLES))
    assert found["trace/in_use"] == pytest.approx(formula(one, gradients), rel=0.2)
    assert found["estimator/error_ratio"] < 3


def point(model: torch.nn.Module, one: Multiple) -> Audit:
    return replace(point_of(model, one.weights_in_use(), np.full(EXAMPLES, np.nan)), learned=one.learned())


def test_a_point_gives_the_method_as_it_was_or_none(configured: Configured) -> None:
    model, one = network(), method(configured, "mis")
    again = several.restored(one.config, point(model, one), CPU)
    assert again is not None
    np.testing.assert_array_equal(again.weights_in_use(), one.weights_in_use())
    assert several.restored(one.config, replace(point(model, one), learned={}), CPU) is None
    fresh = Multiple(one.config, EXAMPLES, CPU)
    assert several.restored(one.config, point(model, fresh), CPU) is None
    other = method(configured, "omis").config
    with pytest.raises(RunError, match="of another run"):
        several.restored(other, point(model, one), CPU)


def test_a_sampled_audit_of_mis_is_about_the_exact_one(configured: Configured, data: Prepared) -> None:
    model, one, examples = network(), method(configured, "mis"), examples_of(data)
    at, random = point(model, one), np.random.default_rng(0)
    _, _, gradients = one_by_one(model, data, "train")
    found = []
    for _ in range(60):
        rows = np.sort(random.choice(EXAMPLES, 40, replace=False))
        sample = {split: rows if split == "train" else np.arange(5) for split in SPLITS}
        values = result(sampled_quantities(cross_entropy, model, examples, sample, at, ()))
        found.append(own(one, model, data, rows, values)["trace/in_use"])
    assert np.mean(found) == pytest.approx(formula(one, gradients), abs=4 * np.std(found) / np.sqrt(60))
