"""The table: which norms are fresh, how old they are, shuffled ones, and a minibatch's own above them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli.actors.master import Master
from issgd_cli.config.config import Config
from issgd_cli.database import Layout, Published, Weights
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.methods.drift import UNIFORM
from issgd_cli.methods.smoothing import variance_optimal_constant
from issgd_cli.methods.table import Table
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from tests.masters import Hired, in_use, own_norms, refresh, relaxed, report, score_chunk, score_everything
from tests.methods.laws import Forgetting, Jumping, Law, Learned, above_the_least

CPU = torch.device("cpu")

Configured = Callable[..., Config]
Begun = Callable[[Config], MemoryDatabase]
NewFolder = Callable[[str], RunFolder]


@pytest.mark.parametrize("mode", ["drop", "fill"])
def test_weights_older_than_the_limit_in_seconds_are_not_used(
    hired: Hired, configured: Configured, clock: list[float], mode: str
) -> None:
    settings = ["proposal.staleness_limit_seconds=4", f"proposal.limit_mode={mode}", "proposal.smoothing=0"]
    master = hired(relaxed(configured, *settings))
    for number in range(10):
        score_chunk(master.database, number, 1, 1.0 + number)
        clock[0] += 1
    refresh(master)  # the ages are now 10, 9, ..., 1 seconds
    omega = master.method.proposal.weights
    np.testing.assert_allclose(omega[60:90], np.repeat([7.0, 8, 9], 10))
    np.testing.assert_allclose(omega[90:], 10.0)
    mean = (70 + 80 + 90 + 50) / 35
    np.testing.assert_allclose(omega[:60], 0.0 if mode == "drop" else mean)
    assert report(master)["proposal/kept_fraction"] == pytest.approx(35 / 95)
    assert report(master)["staleness/max_seconds"] == pytest.approx(4.0)


@pytest.mark.parametrize("mode", ["drop", "fill"])
def test_weights_older_than_the_limit_in_versions_are_not_used(hired: Hired, configured: Configured, mode: str) -> None:
    settings = ["proposal.staleness_limit_versions=2", f"proposal.limit_mode={mode}", "proposal.smoothing=0"]
    master = hired(relaxed(configured, *settings))
    for number in range(10):
        score_chunk(master.database, number, number + 1, 2.0)
    master.publishing.version = 11  # version 10 was published last
    refresh(master)
    used = master.method.proposal.weights > 0
    np.testing.assert_array_equal(used, np.arange(95) >= (70 if mode == "drop" else 0))
    assert report(master)["proposal/kept_fraction"] == pytest.approx(25 / 95)


def test_ages_are_means_over_examples_not_chunks(hired: Hired, configured: Configured, clock: list[float]) -> None:
    master = hired(relaxed(configured))
    score_chunk(master.database, 9, 1, 1.0)
    clock[0] += 4
    score_chunk(master.database, 0, 2, 1.0)
    master.publishing.version = 3
    refresh(master)
    # The last chunk has 5 examples, the first 10.
    assert report(master)["staleness/mean_seconds"] == pytest.approx(4 * 5 / 15)
    assert report(master)["staleness/mean_versions"] == pytest.approx(1 * 5 / 15)


def test_variance_optimal_pairs_come_from_fresh_chunks_with_two_versions_only(
    hired: Hired, configured: Configured
) -> None:
    master = hired(relaxed(configured, "proposal.smoothing=variance-optimal", "proposal.staleness_limit_versions=3"))
    database: Any = master.database
    score_chunk(database, 0, 1, 100.0)  # a pair, but too old
    score_chunk(database, 0, 2, 1.0)
    score_chunk(database, 1, 9, 7.0)  # one version only
    score_chunk(database, 2, 4, np.arange(1.0, 11))  # a pair whose newer half is fresh
    score_chunk(database, 2, 9, np.arange(10.0, 0, -1))
    master.publishing.version = 10
    refresh(master)
    expected = variance_optimal_constant(np.arange(1.0, 11), np.arange(10.0, 0, -1))
    assert in_use(master).smoothing == pytest.approx(expected)


# The norms before those in use, for audits


@pytest.mark.parametrize(
    "settings", [[], ["proposal.method=sgd"], ["master.reuse_own_norms=true"], ["proposal.source=shuffled"]]
)
def test_the_previous_norms_are_the_records_own_whatever_the_weights_are_made_of(
    hired: Hired, configured: Configured, settings: list[str]
) -> None:
    master = hired(relaxed(configured, "proposal.limit_mode=fill", *settings))
    for version in (1, 3, 4):
        score_chunk(master.database, 0, version, version + np.arange(10.0))
    score_chunk(master.database, 1, 4, 7.0)  # at one version only
    master.publishing.version = 5
    refresh(master)
    expected = np.full(95, np.nan)
    expected[:10] = 3 + np.arange(10.0)
    np.testing.assert_array_equal(in_use(master).previous, expected)


@pytest.mark.parametrize(
    ("cluster", "smoothing", "size"),
    [("simulated", "1.0", 4), ("simulated", "variance-optimal", 8), ("local", "1.0", 8)],
)
def test_previous_norms_for_audits_alone_travel_free_of_charge(
    hired: Hired, configured: Configured, cluster: str, smoothing: str, size: int
) -> None:
    """On a virtual clock, where audits take no time; what the smoothing itself looks at takes its time."""
    settings = [f"cluster.kind={cluster}", f"proposal.smoothing={smoothing}", "monitor.audit_every_steps=2"]
    master = hired(relaxed(configured, *settings))
    refreshing = next(master._refreshing(Published(1, 0)))
    assert (refreshing.name, refreshing.bytes) == ("refresh", size * 95)


# Shuffled weights


@pytest.mark.parametrize("mode", ["drop", "fill"])
def test_shuffled_weights_are_the_same_values_at_other_examples(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder, mode: str
) -> None:
    settings = ["proposal.staleness_limit_versions=1", f"proposal.limit_mode={mode}"]
    masters = []
    for source in ("workers", "shuffled"):
        config = relaxed(configured, *settings, f"proposal.source={source}")
        masters.append(master := Master.of(config, Problem(config, data), begun(config), new_folder(source), CPU))
        for number in range(10):
            score_chunk(master.database, number, 3 if number < 6 else 1, np.arange(1.0, 11)[: 10 if number < 9 else 5])
        master.publishing.version = 4
        refresh(master)
    plain, shuffled = masters
    ours, theirs = shuffled.method.proposal.weights, plain.method.proposal.weights
    np.testing.assert_array_equal(np.sort(ours[:60]), np.sort(theirs[:60]))
    np.testing.assert_array_equal(ours[60:], theirs[60:])  # which are not in use
    assert not np.array_equal(ours, theirs)
    assert report(shuffled)["proposal/entropy"] == pytest.approx(report(plain)["proposal/entropy"], rel=1e-12)
    np.testing.assert_array_equal(np.unique(shuffled.database.weights().norms), np.arange(1.0, 11))


def test_how_weights_are_shuffled_depends_on_seed_and_step_alone(
    data: Prepared, configured: Configured, begun: Begun, new_folder: NewFolder
) -> None:
    def order(seed: int, step: int, scale: float) -> list[int]:
        config = relaxed(configured, "proposal.source=shuffled", f"seed={seed}", "proposal.smoothing=0")
        master = Master.of(config, Problem(config, data), begun(config), new_folder(f"{seed}-{step}-{scale}"), CPU)
        for number, size in enumerate(master.database.layout().sizes("train")):
            score_chunk(master.database, number, 1, scale * (1 + 10 * number + np.arange(size)))
        master.learner.step, master.publishing.version = step, 5
        refresh(master)
        return [int(place) for place in np.argsort(master.method.proposal.weights)]

    first = order(0, 3, 1.0)
    assert order(0, 3, 7.0) == first
    assert order(0, 4, 1.0) != first
    assert order(1, 3, 1.0) != first


# The norms of the master's own minibatches


def test_own_norms_stand_above_the_tables_until_a_newer_version_is_scored(hired: Hired, configured: Configured) -> None:
    master = hired(
        relaxed(configured, "proposal.limit_mode=fill", "master.reuse_own_norms=true", "proposal.smoothing=0")
    )
    own = own_norms(master)
    score_everything(master.database, 2)
    table = master.database.weights()
    own.pending = [(torch.tensor([0, 1]), torch.tensor([50.0, 60.0]))]
    own.settle(1, 0.0)  # older than the table
    own.pending = [(torch.tensor([2, 3]), torch.tensor([70.0, 80.0]))]
    own.settle(2, 0.0)  # of the same version's block: younger
    master.publishing.version = 4
    refresh(master)
    expected = table.norms.astype(np.float64)
    expected[2:4] = 70, 80
    np.testing.assert_allclose(master.method.proposal.weights, expected)
    records = master.database.weights()
    np.testing.assert_array_equal(records.norms, table.norms)  # the overlay stays private
    assert report(master)["staleness/mean_versions"] == pytest.approx(1)
    score_chunk(master.database, 0, 3, 5.0)
    refresh(master)
    np.testing.assert_allclose(master.method.proposal.weights[:4], 5.0)


# What norms are expected to be


def scored_twice(law: Law, scale: float) -> tuple[Table, Float64s]:
    """20,000 examples, whose norms became so many times as large from one sweep to the next; and their next squares."""
    random, layout = np.random.default_rng(0), Layout(20_000, 1, 1, 10)
    chunks = layout.chunks("train")
    between, since = (1 + random.exponential(80, (2, chunks)) + random.integers(0, 58, (2, chunks))).astype(np.int32)
    old = np.exp(law.fresh(random, layout.train))
    new = law.after(old, layout.spread("train", between), random)
    newest = 10_000
    versions = (newest + 1 - since).astype(np.int32)
    arrays = (scale * new).astype(np.float32), old.astype(np.float32), versions, versions - between, np.zeros(chunks)
    return (
        Table.of(Weights(*arrays), layout, Published(newest, 0), now=1.0),
        law.squares(new, layout.spread("train", since)),
    )


@pytest.mark.parametrize("law", [Forgetting(), Jumping(), Learned()], ids=lambda law: type(law).__name__)
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_expected_norms_are_near_the_best_function_of_norm_and_age_though_all_grow_or_shrink(
    configured: Configured, law: Law, scale: float
) -> None:
    settings = configured("proposal.smoothing=second-moment").proposal
    table, squares = scored_twice(law, scale)
    weights = table.expected(table.norms, np.ones(len(squares), bool), table.pairs(settings)).astype(np.float64)
    assert weights.min() >= UNIFORM
    assert weights.mean() == pytest.approx(1)
    assert above_the_least(squares, weights - UNIFORM) < 0.02


def test_what_is_expected_does_not_depend_on_the_unit_of_either_sweep(configured: Configured) -> None:
    settings = configured("proposal.smoothing=second-moment").proposal
    found = []
    for scale in (1.0, 4.0, 0.125):
        table, _ = scored_twice(Jumping(), scale)
        found.append(table.expected(table.norms, table.norms > 0, table.pairs(settings)))
    assert np.ptp(found[0]) > 0.1
    np.testing.assert_allclose(found, [found[0]] * 3, rtol=1e-5)


def test_expected_norms_are_learned_from_the_table_and_fill_it(hired: Hired, configured: Configured) -> None:
    master = hired(relaxed(configured, "proposal.smoothing=second-moment", "proposal.limit_mode=fill"))
    random = np.random.default_rng(0)
    for number in range(9):  # the last chunk stays unknown, the one before it has no old norms
        for version in (1, 2 + number) if number < 8 else (3,):
            score_chunk(master.database, number, version, random.lognormal(0, 1, 10))
    master.publishing.version = 13  # version 12 was published last
    refresh(master)
    weights = master.method.proposal.weights
    assert all(np.ptp(weights[10 * number : 10 * number + 10]) > 0.1 for number in range(9))
    np.testing.assert_allclose(weights[90:], weights[:90].mean(), rtol=1e-5)
    assert report(master)["proposal/smoothing"] == in_use(master).smoothing == 0


@pytest.mark.parametrize("norms", [0.0, 3.0])
def test_without_pairs_to_learn_from_expected_norms_are_alike(
    hired: Hired, configured: Configured, norms: float
) -> None:
    master = hired(relaxed(configured, "proposal.smoothing=second-moment"))
    for number in range(10):
        score_chunk(master.database, number, 1, norms * np.arange(5 if number == 9 else 10))
    refresh(master)
    np.testing.assert_allclose(master.method.proposal.weights, 1, rtol=1e-6)
