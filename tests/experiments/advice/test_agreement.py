"""Predicted ratios beside measured ones, from numbers that can be counted by hand."""

import math

import pytest

from issgd_cli.experiments.advice.agreement import Ratios, agreement, ratios

PREDICTED: Ratios = {
    "a": {"second-moment": 0.5, "online": 0.9},
    "b": {"second-moment": 1.02, "online": 1.1, "issgd-3": 3.0},
}


def test_only_what_both_have_is_compared() -> None:
    measured: Ratios = {"a": {"second-moment": 0.7, "low": 0.1}, "b": {"second-moment": 0.9, "online": 1.5}, "c": {}}
    found = agreement(PREDICTED, measured)
    assert found.pairs == 3
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.mean_absolute_error == pytest.approx((0.2 + 0.12 + 0.4) / 3)
    assert found.verdicts == pytest.approx(2 / 3)


def test_a_target_that_is_never_reached_counts_by_its_rank() -> None:
    measured: Ratios = {"a": {"second-moment": None, "online": 0.8}, "b": {"second-moment": 0.7}}
    found = agreement(PREDICTED, measured)
    assert found.rank_correlation == pytest.approx(-1.0)
    assert found.mean_absolute_error == pytest.approx((0.1 + 0.32) / 2)
    assert found.verdicts == pytest.approx(1 / 3)


def test_one_pair_ranks_nothing_and_none_finite_has_no_error() -> None:
    found = agreement(PREDICTED, {"a": {"online": math.inf}})
    assert math.isnan(found.rank_correlation)
    assert math.isnan(found.mean_absolute_error)


@pytest.mark.parametrize("measured", [{}, {"c": {"online": 1.0}}, {"a": {"online": 0.0}}, {"a": {"online": math.nan}}])
def test_nothing_in_common_and_no_ratios_are_refused(measured: Ratios) -> None:
    with pytest.raises(ValueError, match=r"both predicted|positive number"):
        agreement(PREDICTED, measured)


def test_an_advice_predicts_by_the_labels_that_experiments_list_methods_by() -> None:
    told = {"methods": [{"label": "second-moment", "work": 0.7}, {"label": "issgd-3", "work": 3.1}]}
    assert ratios(told) == {"second-moment": 0.7, "issgd-3": 3.1}
