"""Norms of every age at one moment: which are looked up, and what draws by them have for variance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from issgd_cli.experiments.advice.moment import Moment
from issgd_cli.methods.drift import UNIFORM
from tests.trials import EXAMPLES, forgetting, made, staying

MADE = made(forgetting, gradient_norm2=0.1)
MOMENT = Moment(MADE, MADE.moments[2])  # at step 400: ages 1, 4, ..., 256


def test_measured_ages_have_the_norms_of_their_step() -> None:
    assert MOMENT.ages.tolist() == [1, 4, 16, 64, 256]
    for row, age in enumerate(MOMENT.ages.tolist()):
        np.testing.assert_array_equal(MOMENT.norms[row], forgetting(400 - age))
        found = MOMENT.at(MOMENT.norms, np.full(EXAMPLES, float(age)), np.random.default_rng(0))
        np.testing.assert_array_equal(found, MOMENT.norms[row])


@pytest.mark.parametrize(("age", "older"), [(0.2, 0.0), (8.0, 0.5), (32 * 2**0.5, 0.75), (256.0, 0.0), (1e6, 0.0)])
def test_between_them_the_nearer_are_the_likelier(age: float, older: float) -> None:
    rows = np.repeat(np.arange(5.0)[:, None], EXAMPLES, 1)
    found = MOMENT.at(rows, np.full(EXAMPLES, age), np.random.default_rng(0))
    lower = {0.2: 0, 8.0: 1, 256.0: 4, 1e6: 4}.get(age, 2)
    assert set(found) <= {lower, lower + 1}
    assert (found > lower).mean() == pytest.approx(older, abs=0.04)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(1, 1e4))
def test_no_draws_have_less_variance_than_the_ideal_ones_or_more_than_uniform_ones_over_their_share(
    seed: int, age: float
) -> None:
    random = np.random.default_rng(seed)
    weights = MOMENT.expected(np.full(EXAMPLES, age), random)
    assert weights.mean() == pytest.approx(1.0)
    assert MOMENT.relative(MOMENT.ideal) <= MOMENT.relative(weights)
    second_moment = MOMENT.trace(weights) + 0.1
    assert second_moment <= (MOMENT.trace(MOMENT.uniform) + 0.1) / UNIFORM
    assert MOMENT.relative(MOMENT.ideal) <= MOMENT.relative(random.exponential(1.0, EXAMPLES) + 0.01)


def test_the_best_smoothing_is_never_much_worse_than_none_nor_than_uniform_draws() -> None:
    for norms in (staying, forgetting):
        trial = made(norms)
        moment = Moment(trial, trial.moments[-1])
        for age in moment.ages.tolist():
            best = moment.relative(moment.expected(np.full(EXAMPLES, float(age)), np.random.default_rng(0)))
            assert best < 1.15 * min(1.0, moment.relative(moment.unsmoothed(age)))  # three in ten are uniform draws
