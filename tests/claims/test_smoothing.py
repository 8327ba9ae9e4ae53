"""A curve without its noise, and where it reaches a level."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from issgd_cli.claims.smoothing import reached, smoothed


def test_each_value_is_the_median_of_it_and_two_on_either_side_of_fewer_at_the_beginning() -> None:
    values = np.array([9.0, 7.0, 8.0, 1.0, 6.0, 5.0, 40.0, 3.0])
    np.testing.assert_array_equal(smoothed(values), [9.0, 8.0, 7.0, 6.0, 6.0, 5.0, 5.0, 5.0])
    np.testing.assert_array_equal(smoothed([4.0, 2.0, 3.0]), [4.0, 3.0, 3.0])
    np.testing.assert_array_equal(smoothed([4.0, 2.0]), [4.0, 2.0])
    assert len(smoothed([])) == 0


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 10), min_size=5, max_size=60))
def test_a_curve_that_only_falls_stays_where_it_is_but_at_its_end(values: list[float]) -> None:
    falling = np.sort(values)[::-1]
    np.testing.assert_array_equal(smoothed(falling)[:-2], falling[:-2])


def test_one_low_audit_reaches_nothing_and_one_spike_hides_nothing() -> None:
    positions = np.arange(20.0)
    curve = np.linspace(2, 1, 20)
    low, spike = curve.copy(), curve.copy()
    low[5], spike[12] = 0.1, 50.0
    target = 1.3
    plain = reached(positions, smoothed(curve), target)
    assert reached(positions, low, target) < 5 < plain  # as it stands
    assert reached(positions, smoothed(low), target) == pytest.approx(plain)
    assert reached(positions, smoothed(spike), target) == pytest.approx(plain)


def test_what_is_no_number_reaches_nothing() -> None:
    np.testing.assert_array_equal(smoothed([1.0, np.nan, np.nan, np.nan, 1.0]), [1.0, *[np.inf] * 4])


@pytest.mark.parametrize(
    ("values", "target", "expected"),
    [
        ([4.0, 3.0, 1.0], 2.0, 15.0),  # between two audits, straight
        ([4.0, 3.0, 1.0], 3.0, 10.0),
        ([4.0, 3.0, 1.0], 4.0, 0.0),  # there at step 0
        ([4.0, 3.0, 1.0], 0.9, math.inf),  # never
        ([4.0, 1.0, 3.0, 1.0], 2.0, 20 / 3),  # the first time
        ([math.inf, 1.0], 2.0, 10.0),
        ([], 1.0, math.inf),
    ],
)
def test_where_a_level_is_reached_first(values: list[float], target: float, expected: float) -> None:
    assert reached(10.0 * np.arange(len(values)), values, target) == pytest.approx(expected)
