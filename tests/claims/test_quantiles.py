"""Sampling of runs on a common axis, quantiles over them, and the median's exact interval."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from issgd_cli.claims.quantiles import (
    Series,
    bands,
    bands_at,
    coverage,
    examples_at,
    median_interval,
    median_ranks,
    series,
)
from issgd_cli.runs.traces import Row


def table(*rows: tuple[int, float, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(Row._fields))


def curve(values: list[float], start: float = 0.0, finished: bool = True) -> Series:
    return Series(start + np.arange(len(values), dtype=np.float64), np.array(values, np.float64), finished)


def test_the_last_observation_is_carried_forward() -> None:
    sampled = curve([5.0, 7.0]).at([0.0, 0.99, 1.0, 3.0])
    np.testing.assert_array_equal(sampled, [5, 5, 7, 7])


def test_nothing_is_extrapolated_before_the_first_observation() -> None:
    assert np.isnan(curve([5.0, 7.0], start=2.0).at([0.0, 1.99])).all()


def test_an_unfinished_run_ends_where_its_records_end() -> None:
    sampled = curve([5.0, 7.0], finished=False).at([1.0, 1.01])
    np.testing.assert_array_equal(sampled, [7, np.nan])


def test_a_series_without_records_is_nan_everywhere() -> None:
    assert np.isnan(curve([]).at([0.0, 1.0])).all()


def test_median_and_quartiles_over_runs() -> None:
    found = bands([curve([value, value]) for value in (1.0, 2.0, 3.0, 4.0, 5.0)], bins=4)
    assert found is not None
    np.testing.assert_array_equal(found.median, [3, 3, 3, 3])
    np.testing.assert_array_equal(found.lower, [2, 2, 2, 2])
    np.testing.assert_array_equal(found.upper, [4, 4, 4, 4])
    assert found.runs == 5


def test_runs_that_fail_leave_the_median_to_the_others() -> None:
    found = bands([curve([1.0, 1.0, 1.0]), curve([9.0], finished=False)], bins=3)
    assert found is not None
    np.testing.assert_array_equal(found.median, [5, 1, 1])


def test_a_value_that_is_not_finite_is_left_out_of_the_quantiles() -> None:
    found = bands([curve([1.0, np.nan]), curve([3.0, np.inf]), curve([5.0, 5.0])], bins=2)
    assert found is not None
    np.testing.assert_array_equal(found.median, [3, 5])


def test_no_records_give_no_bands() -> None:
    assert bands([curve([])], bins=3) is None
    assert bands_at([curve([])], [curve([])]) is None


def test_audits_are_taken_at_their_steps_and_placed_at_the_median_position() -> None:
    steps = [curve([1.0, 2.0]), curve([3.0, 4.0])]
    seconds = [Series(np.array([10.0, 20.0]), steps[0].values), Series(np.array([30.0, 60.0]), steps[1].values)]
    found = bands_at(steps, seconds)
    assert found is not None
    np.testing.assert_array_equal(found.positions, [20, 40])
    np.testing.assert_array_equal(found.median, [2, 3])


def test_series_by_step_seconds_and_examples() -> None:
    trace = table(
        (0, 1.0, "work/examples_trained", 0.0),
        (10, 3.0, "work/examples_trained", 100.0),
        (0, 1.0, "work/examples_scored", 50.0),
        (10, 3.0, "work/examples_scored", 150.0),
        (10, 3.0, "loss/train", 1.0),
        (5, 2.0, "loss/train", 2.0),
        (5, 2.0, "loss/valid", 9.0),
    )
    by_step = series(trace, "loss/train", "steps")
    np.testing.assert_array_equal(by_step.positions, [5, 10])  # in order of the axis, not of the file
    np.testing.assert_array_equal(by_step.values, [2, 1])
    np.testing.assert_array_equal(series(trace, "loss/train", "seconds").positions, [2, 3])
    np.testing.assert_array_equal(series(trace, "loss/train", "examples").positions, [150, 250])
    measured = series(trace, "loss/train", "examples", work=["trained"])  # a worker that only measures is not charged
    np.testing.assert_array_equal(measured.positions, [50, 100])


def test_examples_count_from_nothing_at_the_start() -> None:
    trace = table((0, 2.0, "work/examples_scored", 100.0))
    np.testing.assert_array_equal(examples_at(trace, np.array([0.0, 1.0, 2.0])), [0, 50, 100])


def test_without_counts_of_work_there_is_no_curve_over_examples() -> None:
    found = series(table((0, 1.0, "loss/train", 1.0)), "loss/train", "examples")
    assert len(found.positions) == len(found.values) == 0


def test_below_six_runs_no_interval_is_claimed() -> None:
    assert median_interval(np.arange(5.0)) is None
    found = bands([curve([float(value)]) for value in range(5)], interval=True)
    assert found is not None
    assert found.interval is None


def test_the_interval_holds_the_median_and_lies_within_the_values() -> None:
    values = np.random.default_rng(0).normal(size=40)
    limits = median_interval(values)
    assert limits is not None
    assert values.min() < limits[0] < np.median(values) < limits[1] < values.max()
    assert set(np.ravel(limits)) <= set(values)


@pytest.mark.parametrize("count", range(6, 21))
def test_the_interval_covers_what_it_says_exactly(count: int) -> None:
    low, high = median_ranks(count)
    assert low + high == count - 1  # as many values below it as above
    # The median lies within unless too few of the values, or too many, are below it: each is with a chance of a half.
    covered = stats.binom.cdf(high, count, 0.5) - stats.binom.cdf(low, count, 0.5)
    assert coverage(count) == pytest.approx(covered)
    assert coverage(count) >= 0.95
    narrower = stats.binom.cdf(high - 1, count, 0.5) - stats.binom.cdf(low + 1, count, 0.5)
    assert narrower < 0.95


def test_six_runs_are_covered_by_all_of_them_and_the_few_ways_to_miss_can_be_counted() -> None:
    ways = np.array(np.meshgrid(*[[-1.0, 1.0]] * 6)).reshape(6, -1)  # on which side of the median each run lies
    limits = median_interval(ways)
    assert limits is not None
    assert np.mean((limits[0] <= 0) & (limits[1] >= 0)) == coverage(6) == 1 - 2 / 64


def test_bins_do_not_disturb_each_other() -> None:
    values = np.random.default_rng(2).normal(size=8)
    several, one = median_interval(np.stack([values, values + 1], axis=1)), median_interval(values)
    assert several is not None
    assert one is not None
    np.testing.assert_allclose(several[0], [one[0], one[0] + 1])


def test_a_bin_without_any_value_has_no_interval_and_infinite_values_count() -> None:
    samples = np.array([[np.nan] * 8, [*range(6), np.inf, np.nan], [*range(5), np.nan, np.nan, np.nan]], np.float64).T
    limits = median_interval(samples)
    assert limits is not None
    np.testing.assert_array_equal(limits[0], [np.nan, 0.0, np.nan])
    np.testing.assert_array_equal(limits[1], [np.nan, np.inf, np.nan])


@pytest.mark.parametrize(("missing", "known"), [(1, True), (3, False)])
def test_where_runs_have_ended_the_interval_needs_six_that_have_not(missing: int, known: bool) -> None:
    values = np.arange(8.0)
    values[:missing] = np.nan
    limits = median_interval(values[:, None])
    assert limits is not None
    assert np.isfinite(limits[0][0]) == known
