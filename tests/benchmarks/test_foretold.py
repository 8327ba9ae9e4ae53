"""Predicted ratios beside measured ones, from numbers that can be counted by hand."""

import json
import math
from pathlib import Path

import pytest

from tests.benchmarks.foretold import Ratios, agreement, main, medians, ratios

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


@pytest.mark.parametrize("measured", [{}, {"c": {"online": 1.0}}, {"a": {"online": -0.1}}, {"a": {"online": math.nan}}])
def test_nothing_in_common_and_no_ratios_are_refused(measured: Ratios) -> None:
    with pytest.raises(ValueError, match=r"both predicted|number from 0 on"):
        agreement(PREDICTED, measured)


def test_an_advice_predicts_by_the_labels_that_experiments_list_methods_by() -> None:
    works = {"reshuffled": 1.0, "second-moment": 0.7, "issgd-1": 1.9, "issgd-3": 3.1}
    told = {"methods": [{"label": label, "work": work} for label, work in works.items()]}
    assert ratios(told) == {"second-moment": 0.7, "issgd-1": 1.9, "issgd-3": 3.1}


def test_the_command_writes_both_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"online": {"ratio": 0.8}, "low": {"ratio": "inf"}, "issgd-1": {"ratio": "inf"}, "mis": {"ratio": None}}
    (tmp_path / "board.json").write_text(json.dumps({"training loss": {"one": row, "other": row}}))
    assert medians({"training loss": {"one": row}}) == {"one": {"online": 0.8, "low": math.inf, "issgd-1": math.inf}}
    methods = [{"label": "online", "work": 0.9}, {"label": "issgd-1", "work": 1.9}]
    (tmp_path / "advice.json").write_text(json.dumps({"methods": methods}))
    given = [str(tmp_path / "board.json"), f"one={tmp_path / 'advice.json'}", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["foretold", *given])
    main()
    text = (tmp_path / "out" / "foretold.md").read_text()
    assert "| one | 1.90 | never | 0.90 | 0.80 |" in text
    assert "Over 2 pairs: rank correlation 1.00; mean absolute error 0.10" in text
    written = (tmp_path / "out" / "foretold.json").read_text()
    assert json.loads(written)["pairs"] == 2
    assert "Infinity" not in written  # which no other reader takes
