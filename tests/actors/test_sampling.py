"""Audits on a sample: unbiased over every sample there is, and as far off as their standard errors say."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli.actors.auditing import exact_quantities
from issgd_cli.actors.sampling import audit_sample, sampled_quantities
from issgd_cli.database import SPLITS, Layout, Split
from issgd_cli.datasets.examples import Examples
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.datasets.prepared import Split as PreparedSplit
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.runs.audits import Audit
from tests.actors.test_auditing import draws, examples_of, result
from tests.points import point_of

CPU = torch.device("cpu")
LAYOUT = Layout(95, 5, 23, 10)
SMOOTHINGS = (0.0, 2.0)
FEW = 7
UNESTIMATED = ("estimator/error_ratio", "rank_correlation")  # not by a mean


def network(seed: int = 3, std: float = 0.6) -> torch.nn.Sequential:
    model = mlp(16, [7, 6], 3)
    initialise(model, seed, std)
    return model


def point(model: torch.nn.Module, count: int, dropped: int = 0) -> Audit:
    random = np.random.default_rng(1)
    weights, previous = random.exponential(1.0, count) + 0.3, random.exponential(1.0, count) + 0.05
    weights[random.permutation(count)[:dropped]] = 0
    return point_of(model, weights, previous)


def few(data: Prepared) -> dict[Split, Examples]:
    """Seven examples of each split, so that all samples can be listed."""
    train = data.splits["train"]
    parts = [slice(FEW * number, FEW * (number + 1)) for number in range(3)]
    return {
        split: Examples(data, PreparedSplit(train.inputs[part], train.targets[part]), CPU)
        for split, part in zip(SPLITS, parts, strict=True)
    }


def audited(model: torch.nn.Module, examples: Mapping[Split, Examples], rows: Any, at: Audit) -> dict[str, float]:
    sample = {split: np.asarray(rows) for split in SPLITS} if not isinstance(rows, Mapping) else rows
    return result(sampled_quantities(cross_entropy, model, examples, sample, at, SMOOTHINGS))


def exactly(model: torch.nn.Module, examples: Mapping[Split, Examples], at: Audit) -> dict[str, float]:
    values = result(exact_quantities(cross_entropy, model, examples, at, SMOOTHINGS, draws()))
    return {name: value for name, value in values.items() if name not in UNESTIMATED}


def columns(found: list[dict[str, float]]) -> Iterator[tuple[str, Float64s, Float64s]]:
    """Each quantity's name, its estimates, and their standard errors."""
    for name in found[0]:
        if not name.endswith("standard_error") and name not in UNESTIMATED:
            yield (
                name,
                np.array([values[name] for values in found]),
                np.array([values[f"{name}/standard_error"] for values in found]),
            )


@pytest.mark.parametrize("size", [2, 3, 5])
def test_every_estimate_is_unbiased_over_all_samples_of_a_tiny_problem(data: Prepared, size: int) -> None:
    model, examples = network(), few(data)
    at = point(model, FEW)
    exact = exactly(model, examples, at)
    found = [audited(model, examples, rows, at) for rows in itertools.combinations(range(FEW), size)]
    names = set()
    for name, values, errors in columns(found):
        names.add(name)
        assert values.mean() == pytest.approx(exact[name], rel=1e-4), name
        if name.startswith(("loss", "error")):  # no first order: their squares are unbiased
            assert (errors**2).mean() == pytest.approx(values.var(), rel=1e-4)
    assert names == set(exact)
    assert {"trace/in_use", "trace/stale", "trace/stale+0", "trace/stale+2", "gradient_norm2"} <= names


def test_where_some_cannot_be_drawn_their_traces_are_unbiased_given_how_many_a_sample_holds(data: Prepared) -> None:
    model, examples = network(), few(data)
    at = point(model, FEW, dropped=2)
    drawable = np.flatnonzero(at.weights)
    exact = exactly(model, examples, at)
    by_count: dict[int, list[dict[str, float]]] = {}
    for rows in itertools.combinations(range(FEW), 3):
        by_count.setdefault(len(np.intersect1d(rows, drawable)), []).append(audited(model, examples, rows, at))
    assert {count: len(found) for count, found in by_count.items()} == {1: 5, 2: 20, 3: 10}
    for count, found in by_count.items():
        for name in ("trace/in_use", "trace/uniform_in_use"):
            values = np.array([values[name] for values in found])
            if count < 2:
                assert np.isnan(values).all()
            else:
                assert values.mean() == pytest.approx(exact[name], rel=1e-4)
    for name, values, _ in columns([values for found in by_count.values() for values in found]):
        if not name.endswith("in_use"):  # all others are over all examples
            assert values.mean() == pytest.approx(exact[name], rel=1e-4), name


def test_a_sample_without_any_example_that_can_be_drawn_still_tells_the_rest(data: Prepared) -> None:
    model, examples = network(), few(data)
    at = point(model, FEW, dropped=3)
    values = audited(model, examples, np.flatnonzero(at.weights == 0), at)
    assert np.isnan(values["trace/in_use"])
    assert np.isnan(values["trace/in_use/standard_error"])
    unknown = {name for name, value in values.items() if np.isnan(value)}
    assert {name.split("/")[1] for name in unknown} == {"in_use", "uniform_in_use"}


@pytest.mark.parametrize("dropped", [0, 40])
def test_a_sample_of_all_tells_what_an_exact_audit_does(data: Prepared, dropped: int) -> None:
    model, examples = network(), examples_of(data)
    at = point(model, 95, dropped)
    values = audited(model, examples, {split: np.arange(len(examples[split])) for split in SPLITS}, at)
    exact = exactly(model, examples, at)
    told = {name for name in values if not name.endswith("standard_error")}
    assert told == {*exact, "rank_correlation"}
    for name, value in exact.items():
        assert values[name] == pytest.approx(value, rel=1e-5), name
        assert values[f"{name}/standard_error"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("dropped", "std"), [(0, 0.6), (40, 0.6), (0, 0.2)])
def test_standard_errors_are_the_spread_over_samples(data: Prepared, dropped: int, std: float) -> None:
    model, examples = network(std=std), examples_of(data)
    at = point(model, 95, dropped)
    random = np.random.default_rng(0)
    found = []
    for _ in range(200):
        rows = {split: random.permutation(len(examples[split]))[:30] for split in SPLITS}
        found.append(audited(model, examples, rows, at))
    exact = exactly(model, examples, at)
    for name, values, errors in columns(found):
        spread, told = values.std(), np.sqrt((errors**2).mean())
        high = 1.15 if name != "gradient_norm2" else 1.3  # lost in noise, where the initial weights are small
        rounding = 1e-6 * abs(exact[name])
        assert 0.85 * spread - rounding <= told <= high * spread + rounding, name
        assert abs(values.mean() - exact[name]) <= 4 * spread / 200**0.5 + 1e-6 * abs(exact[name]), name


def test_the_sample_of_a_run_depends_on_its_seed_alone_and_takes_smaller_splits_whole() -> None:
    sample = audit_sample(4, 20, LAYOUT)
    assert sample is not None
    assert {split: len(rows) for split, rows in sample.items()} == {"train": 20, "valid": 5, "test": 20}
    np.testing.assert_array_equal(sample["valid"], np.arange(5))
    for split, rows in sample.items():
        assert (np.diff(rows) > 0).all()  # in order, none twice
        assert rows[-1] < LAYOUT.examples(split)
    for seed, is_same in ((4, True), (5, False)):
        other = audit_sample(seed, 20, LAYOUT)
        assert other is not None
        assert np.array_equal(other["train"], sample["train"]) == is_same
    assert audit_sample(4, None, LAYOUT) is None
    assert audit_sample(4, 95, LAYOUT) is None


def test_any_example_is_as_likely_in_a_sample() -> None:
    layout, counts = Layout(12, 12, 12, 4), np.zeros(12)
    for seed in range(600):
        sample = audit_sample(seed, 5, layout)
        assert sample is not None
        counts[sample["train"]] += 1
    assert np.abs(counts - 250).max() < 4 * (600 * 5 / 12 * 7 / 12) ** 0.5
