"""What each mode of drawing aims at, by listing every draw; and that every draw is where it belongs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from issgd_cli.equations.alain2015 import Float64s, trace_of_covariance
from issgd_cli.errors import WeightError
from issgd_cli.methods.proposal import FLOOR, LimitMode, Proposal, proposal, steps_along
from issgd_cli.methods.smoothing import smoothing
from issgd_cli.randomness import generator
from tests import gpus
from tests.draws import every_block, fixed

LAST_RANDOM = 1 - 2.0**-53  # the largest number that a generator's random() gives
N = 12


def drawn_by(distribution: Proposal, random: np.random.Generator, size: int) -> tuple[NDArray[np.int64], Float64s]:
    indices, factors = distribution.draw(random, size)
    return indices.numpy(), factors.numpy()


def drawn_at(distribution: Proposal, numbers: ArrayLike) -> list[int]:
    """The indices that these outcomes of random() draw."""
    return [int(i) for i in distribution.draw(fixed(numbers), np.size(numbers))[0]]


def probabilities(distribution: Proposal) -> Float64s:
    """Chance of each index: the share of [0, 1) whose numbers fall into its step of the running sums."""
    return np.asarray(np.diff(distribution.searched[0].numpy(), prepend=0.0) / distribution.searched[0].numpy()[-1])


def expected_gradient(distribution: Proposal, gradients: Float64s) -> Float64s:
    """Mean of the weighted gradient over every draw, each made by `draw` itself and weighted with its probability."""
    q = probabilities(distribution)
    drawable = np.flatnonzero(q)
    middles = distribution.searched[0].numpy()[drawable] / distribution.searched[0].numpy()[-1] - q[drawable] / 2
    indices, factors = drawn_by(distribution, fixed(middles), len(middles))
    np.testing.assert_array_equal(indices, drawable)
    return np.asarray((q[drawable] * factors) @ gradients[drawable])


def gradients_and_norms(seed: int) -> tuple[Float64s, NDArray[np.float32]]:
    """Today's gradients, and a table of norms that is stale: of other gradients, float32."""
    random = np.random.default_rng(seed)
    gradients = random.normal(0.5, 1, (N, 4)) * 10 ** random.uniform(-1, 1, (N, 1))
    stale = np.linalg.norm(random.normal(0.5, 1, (N, 4)) * 10 ** random.uniform(-1, 1, (N, 1)), axis=1)
    return gradients, stale.astype(np.float32)


ALL = np.ones(N, bool)
SOME = np.arange(N) % 3 != 1  # 8 of 12
SMOOTHINGS: list[float | str] = [0.0, 1.0, 10.0, "entropy:0.5", "entropy:0.95", "entropy:1", "variance-optimal"]


def constant_of(setting: float | str, norms: NDArray[np.float32], usable: NDArray[np.bool_], seed: int) -> float:
    newer = norms * np.random.default_rng([seed, 9]).uniform(0.5, 2, N)
    kept = np.asarray(norms[usable], np.float64)
    return smoothing(setting)(kept, kept, np.asarray(newer[usable], np.float64))


# The target of each mode


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("setting", SMOOTHINGS)
@pytest.mark.parametrize("mode", ["drop", "fill"])
def test_without_a_limit_stale_weights_of_any_smoothing_aim_at_the_mean_gradient_of_all(
    seed: int, setting: float | str, mode: LimitMode
) -> None:
    gradients, norms = gradients_and_norms(seed)
    distribution = proposal(norms, ALL, constant_of(setting, norms, ALL, seed), mode)
    np.testing.assert_allclose(expected_gradient(distribution, gradients), gradients.mean(0), rtol=1e-10, atol=1e-12)
    assert not distribution.fallback
    assert distribution.support == N


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("setting", SMOOTHINGS)
def test_drop_aims_at_the_usable_examples_mean_gradient_only(seed: int, setting: float | str) -> None:
    gradients, norms = gradients_and_norms(seed)
    distribution = proposal(norms, SOME, constant_of(setting, norms, SOME, seed), "drop")
    expected = expected_gradient(distribution, gradients)
    np.testing.assert_allclose(expected, gradients[SOME].mean(0), rtol=1e-10, atol=1e-12)
    assert not np.allclose(expected, gradients.mean(0), rtol=0.01)
    assert distribution.support == SOME.sum()
    np.testing.assert_array_equal(probabilities(distribution)[~SOME], 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("setting", SMOOTHINGS)
def test_fill_aims_at_the_mean_gradient_of_all(seed: int, setting: float | str) -> None:
    gradients, norms = gradients_and_norms(seed)
    distribution = proposal(norms, SOME, constant_of(setting, norms, SOME, seed), "fill")
    np.testing.assert_allclose(expected_gradient(distribution, gradients), gradients.mean(0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(distribution.weights[~SOME], distribution.weights[SOME].mean(), rtol=1e-12)


@pytest.mark.parametrize("mode", ["drop", "fill"])
def test_below_the_minimum_usable_fraction_draws_are_uniform_over_all_and_unbiased(mode: LimitMode) -> None:
    gradients, norms = gradients_and_norms(0)
    usable = np.arange(N) < 3
    distribution = proposal(norms, usable, 1.0, mode, minimum_usable_fraction=0.26)
    assert distribution.fallback
    np.testing.assert_allclose(probabilities(distribution), 1 / N, rtol=1e-12)
    np.testing.assert_array_equal(distribution.draw(np.random.default_rng(0), 50)[1], np.ones(50))
    np.testing.assert_allclose(expected_gradient(distribution, gradients), gradients.mean(0), rtol=1e-12)


def test_at_the_minimum_usable_fraction_there_is_no_fallback() -> None:
    _, norms = gradients_and_norms(0)
    distribution = proposal(norms, np.arange(N) < 3, 0.0, minimum_usable_fraction=0.25)
    assert not distribution.fallback
    assert distribution.support == 3


def test_with_nothing_usable_draws_are_uniform_even_where_no_fraction_is_asked_for() -> None:
    distribution = proposal(np.zeros(N), np.zeros(N, bool), 0.0, minimum_usable_fraction=0.0)
    assert distribution.fallback
    assert distribution.support == N


def test_the_constant_is_added_after_the_filter() -> None:
    norms = np.array([1.0, 2.0, 99.0])
    usable = np.array([True, True, False])
    np.testing.assert_allclose(proposal(norms, usable, 10.0, "drop").weights, [11, 12, 0])
    np.testing.assert_allclose(proposal(norms, usable, 10.0, "fill").weights, [11, 12, 11.5])


def test_an_infinite_constant_draws_uniformly_over_the_usable() -> None:
    norms = np.array([1.0, 2.0, 99.0, 0.0])
    usable = np.array([True, True, False, True])
    np.testing.assert_allclose(probabilities(proposal(norms, usable, np.inf, "drop")), [1 / 3, 1 / 3, 0, 1 / 3])


# Draws


def test_the_probability_of_each_index_is_its_weight_over_the_sum() -> None:
    weights = np.array([3.0, 0.0, 1.0, 4.0])
    np.testing.assert_array_equal(probabilities(Proposal.of(weights)), weights / 8)


def test_a_number_on_a_boundary_draws_the_example_that_begins_there() -> None:
    distribution = Proposal.of([1.0, 1.0, 2.0, 4.0])
    assert drawn_at(distribution, [0.0, 0.125, 0.25, 0.5]) == [0, 1, 2, 3]
    just_below = np.nextafter([0.125, 0.25, 0.5], 0)
    assert drawn_at(distribution, [*just_below, LAST_RANDOM]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "weights",
    [
        [0, 0, 3, 1, 4],
        [3, 0, 0, 1, 4],
        [3, 1, 4, 0, 0],
        [0, 3, 0, 1, 0, 4, 0],
        [0, 0, 8],
        [8, 0, 0],
        [0.1, 0, 0.2, 0, 0.3, 0],
    ],
)
def test_examples_of_weight_zero_are_never_drawn_wherever_they_stand(weights: list[float]) -> None:
    distribution = Proposal.of(weights)
    boundaries = distribution.searched[0].numpy() / distribution.searched[0].numpy()[-1]
    numbers = np.concatenate(
        [[0.0, LAST_RANDOM], np.linspace(0, LAST_RANDOM, 1001), boundaries, np.nextafter(boundaries, 0)]
    )
    drawn = set(drawn_at(distribution, numbers[numbers < 1]))
    assert drawn == set(np.flatnonzero(weights).tolist())
    # Even where the product of the number and the sum rounds up to the sum.
    assert drawn_at(distribution, [1.0]) == [int(np.flatnonzero(weights)[-1])]


def test_600_000_float32_norms_of_any_size_can_all_be_drawn() -> None:
    random = np.random.default_rng(0)
    norms = (10 ** random.uniform(-30, 0, 600_000)).astype(np.float32)
    distribution = proposal(norms, np.ones(norms.size, bool), 0.0)
    q = probabilities(distribution)
    assert q.min() > 2.0**-53  # finer than random()'s own steps none need be
    middles = distribution.searched[0].numpy() / distribution.searched[0].numpy()[-1] - q / 2
    indices, _ = distribution.draw(fixed(middles), norms.size)
    np.testing.assert_array_equal(indices, np.arange(norms.size))


def test_ten_million_weights_are_drawn_in_proportion() -> None:
    random = np.random.default_rng(1)
    weights = random.exponential(1.0, 10_000_000)
    distribution = Proposal.of(weights)
    some = random.integers(0, weights.size, 2000)
    middles = (distribution.searched[0].numpy()[some] - weights[some] / 2) / weights.sum()
    assert np.mean(np.array(drawn_at(distribution, middles)) == some) > 0.999
    indices, factors = drawn_by(distribution, random, 200_000)
    np.testing.assert_allclose(factors, weights.mean() / weights[indices], rtol=1e-9)
    tenth = np.bincount(indices // 1_000_000, minlength=10)
    expected = 200_000 * weights.reshape(10, -1).sum(1) / weights.sum()
    assert ((tenth - expected) ** 2 / expected).sum() < 27.9  # chi squared, 9 degrees of freedom, p = 0.001


def test_a_zero_among_usable_norms_gets_a_counted_floor_and_the_target_stays() -> None:
    gradients, norms = gradients_and_norms(0)
    norms[[2, 5]] = 0
    distribution = proposal(norms, ALL, 0.0)
    assert distribution.floored == 2
    np.testing.assert_allclose(distribution.weights[[2, 5]], FLOOR * norms.mean(dtype=np.float64))
    np.testing.assert_allclose(expected_gradient(distribution, gradients), gradients.mean(0), rtol=1e-6)
    assert proposal(norms, ALL, 1.0).floored == 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -0.1, 2.0], "negative"),
        ([1.0, float("nan")], "NaN or infinite"),
        ([1.0, float("inf")], "NaN or infinite"),
        ([1.0, float("-inf")], "NaN or infinite"),
        ([0.0, 0.0], "nothing can be drawn"),
        ([1e308, 1e308], "nothing can be drawn"),
        ([], "shape"),
        ([[1.0, 2.0]], "shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in accumulate:RuntimeWarning")
def test_weights_that_define_no_proposal_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(WeightError, match=message):
        Proposal.of(weights)


@pytest.mark.parametrize(
    ("bad", "message"), [(-1.0, "negative"), (float("nan"), "NaN or inf"), (float("inf"), "NaN or inf")]
)
def test_a_bad_usable_norm_is_refused_and_an_unusable_one_is_not_looked_at(bad: float, message: str) -> None:
    norms = np.array([1.0, bad, 2.0])
    with pytest.raises(WeightError, match=message):
        proposal(norms, np.array([True, True, True]), 1.0)
    modes: list[LimitMode] = ["drop", "fill"]
    for mode in modes:
        assert np.isfinite(proposal(norms, np.array([True, False, True]), 1.0, mode).weights).all()


def test_usable_norms_that_are_all_zero_are_refused_with_a_remedy() -> None:
    with pytest.raises(WeightError, match=r"Set `smoothing` \(of a run: `proposal\.smoothing`\) to a positive number"):
        proposal(np.zeros(5), np.ones(5, bool), 0.0)
    np.testing.assert_allclose(probabilities(proposal(np.zeros(5), np.ones(5, bool), 1.0)), 0.2)


def test_the_table_of_norms_is_left_as_it_was() -> None:
    norms = np.array([0.0, 1.0, 2.0])
    proposal(norms, np.ones(3, bool), 0.0)
    np.testing.assert_array_equal(norms, [0, 1, 2])


# Monte Carlo


@pytest.mark.parametrize("constant", [0.0, 0.5, np.inf])
def test_the_covariance_trace_of_drawn_minibatches_agrees_with_eq_6_divided_by_m(constant: float) -> None:
    random = np.random.default_rng(3)
    examples, size, minibatches = 40, 16, 20_000
    gradients = random.normal(0.2, 1, (examples, 5)) * 10 ** random.uniform(-1, 1, (examples, 1))
    norms = np.linalg.norm(gradients, axis=1) * random.uniform(0.5, 2, examples)  # stale
    distribution = proposal(norms, np.ones(examples, bool), constant)
    indices, factors = drawn_by(distribution, np.random.default_rng(4), size * minibatches)
    weighted = (factors[:, None] * gradients[indices]).reshape(minibatches, size, 5).mean(1)
    distances = ((weighted - gradients.mean(0)) ** 2).sum(1)
    eq_6 = trace_of_covariance((gradients**2).sum(1), distribution.weights, (gradients.mean(0) ** 2).sum())
    standard_error = distances.std() / np.sqrt(minibatches)
    assert abs(distances.mean() - eq_6 / size) < 4 * standard_error
    assert standard_error < 0.02 * eq_6 / size


def test_the_running_sums_are_numpys_to_the_bit() -> None:
    """They are computed by torch, which is faster; draws must not depend on that."""
    omega = np.random.default_rng(2).lognormal(0, 3, 100_001)
    np.testing.assert_array_equal(Proposal.of(omega).searched[0].numpy(), np.cumsum(omega))


def test_a_proposal_does_not_change_with_the_array_that_it_was_made_from() -> None:
    omega = np.array([1.0, 2.0])
    proposal = Proposal.of(omega)
    omega[:] = 7
    assert proposal.weights.tolist() == [1.0, 2.0]


# Where the search runs


def test_a_random_number_that_rounds_up_to_the_end_lands_on_the_last_positive_weight() -> None:
    class AtTheEnd(np.random.Generator):
        def random(self, size: int) -> np.ndarray:  # type: ignore[override]
            return np.ones(size)

    indices, factors = Proposal.of(np.array([1.0, 2.0, 0.0])).draw(AtTheEnd(np.random.PCG64(0)), 4)
    assert indices.tolist() == [1] * 4
    np.testing.assert_allclose(factors.numpy(), 1.5 / 2)


def test_a_random_number_exactly_at_a_boundary_draws_the_example_above_it() -> None:
    """[0, 1) is cut into half-open steps: an example of weight 0 has none, and each its own lower end."""

    class At(np.random.Generator):
        def random(self, size: int) -> np.ndarray:  # type: ignore[override]
            return np.array([0.0, 0.25, 0.5, 0.75])

    indices, factors = Proposal.of(np.array([0.0, 1.0, 1.0, 0.0, 2.0])).draw(At(np.random.PCG64(0)), 4)
    assert indices.tolist() == [1, 2, 4, 4]
    np.testing.assert_allclose(factors.numpy(), [4 / 3, 4 / 3, 2 / 3, 2 / 3], rtol=1e-12)


def test_the_search_finds_what_numpys_finds() -> None:
    omega = np.random.default_rng(3).lognormal(0, 3, 1000)
    omega[600:] = 0
    for step in range(50):
        indices, factors = drawn_by(Proposal.of(omega), generator(0, "draws", step), 64)
        places = generator(0, "draws", step).random(64) * np.cumsum(omega)[-1]
        np.testing.assert_array_equal(indices, np.searchsorted(np.cumsum(omega), places, side="right"))
        np.testing.assert_array_equal(factors, np.cumsum(omega)[-1] / 600 / omega[indices])


@gpus.needed
def test_on_gpu_are_the_draws_of_the_cpu() -> None:
    here = Proposal.of(np.random.default_rng(3).lognormal(0, 3, 100_000))
    there = here.on(torch.device(gpus.DEVICE))
    for step in range(20):
        for one, other in zip(
            here.draw(generator(0, "draws", step), 128), there.draw(generator(0, "draws", step), 128), strict=True
        ):
            assert torch.equal(one, other.cpu())


# Systematic draws


@pytest.mark.parametrize(("weights", "size"), [([1, 2, 0, 4, 1], 3), ([1, 1, 1, 1], 4), ([0.5, 7.5, 2], 4), ([3], 2)])
def test_each_place_of_a_block_has_the_proposals_chances_and_each_example_its_share(
    weights: list[float], size: int
) -> None:
    """Listed: every order, start and shuffle."""
    distribution = Proposal.of(weights)
    share = distribution.weights / distribution.weights.sum()
    gradients = np.random.default_rng(0).normal(1, 1, (len(weights), 3))
    chances, estimates, total = np.zeros((size, len(weights))), np.zeros((size, 3)), 0.0
    for chance, random in every_block(distribution.weights, size):
        indices, factors = (drawn.numpy() for drawn in distribution.draw_systematically(random, size))
        counts = np.bincount(indices, minlength=len(weights))
        assert (np.abs(counts - size * share) < 1).all()
        chances[np.arange(size), indices] += chance
        estimates += chance * factors[:, None] * gradients[indices]
        total += chance
    assert total == pytest.approx(1)
    np.testing.assert_allclose(chances, np.broadcast_to(share, chances.shape), atol=1e-12)
    mean = gradients[share > 0].mean(0)
    np.testing.assert_allclose(estimates, np.broadcast_to(mean, estimates.shape), rtol=1e-11)


@pytest.mark.parametrize("examples", [1, 5, 1000])
def test_a_block_of_all_at_equal_weights_is_a_shuffle(examples: int) -> None:
    for seed in range(3):
        random = generator(seed, "blocks")
        indices, factors = Proposal.of(np.full(examples, 0.1)).draw_systematically(random, examples)
        assert sorted(indices.tolist()) == list(range(examples))
        np.testing.assert_allclose(factors, 1, rtol=1e-12)
        if examples == 1000:
            assert (np.diff(indices) < 0).sum() == pytest.approx(500, abs=60)


@given(
    weights=st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1e12)), min_size=1, max_size=20).filter(any),
    start=st.one_of(st.sampled_from([0.0, LAST_RANDOM]), st.floats(0, LAST_RANDOM)),
    size=st.integers(1, 5000),
)
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_steps_along_weights_land_as_often_as_they_should_and_never_on_none(
    weights: list[float], start: float, size: int
) -> None:
    counts = np.bincount(steps_along(np.array(weights), start, size), minlength=len(weights))
    assert counts.sum() == size
    assert not counts[np.array(weights) == 0].any()
    expected = size * np.array(weights) / np.sum(weights)
    assert (np.abs(counts - expected) < 1 + 1e-9 * size).all()
