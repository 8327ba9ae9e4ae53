"""Predicted ratios beside measured ones, from numbers that can be counted by hand."""

import json
import math
from pathlib import Path

import pytest

from tests.benchmarks.foretold import EXPERIMENT, Ratios, agreement, differing, main, medians, ratios

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
    assert found.finite == 3
    assert found.error_of_1 == pytest.approx((0.3 + 0.1 + 0.5) / 3)
    assert found.paid == pytest.approx(2 / 3)


def test_what_pays_is_what_advise_calls_so() -> None:
    """By its rule 0.98 does not pay, on either side."""
    assert agreement({"a": {"x": 0.98, "y": 0.96}}, {"a": {"x": 1.2, "y": 0.98}}).verdicts == 0.5


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
    told = {"reshuffled": 1.0, "online": 0.8, "low": "inf", "issgd-1": "inf", "mis": None, "dlis": 0.5}
    row = {name: {"ratio": ratio, "seeds": 6 * (ratio is not None)} for name, ratio in told.items()}
    # dlis is at another rate than reshuffled SGD; by validation all are at another.
    by_loss, by_validation = dict.fromkeys(told, 0.01) | {"dlis": 0.003}, dict.fromkeys(told, 0.03)
    other = "training loss, rates by validation"
    board = {
        "training loss": {"one": row, "other": row},
        other: {"one": row | {"online": {"ratio": 0.7, "seeds": 6}}},
        "test error": {"one": row},
        "learning rates": {
            "training loss": {"one": by_loss, "other": by_loss},
            other: {"one": by_validation},
            "test error": {"one": by_validation},
        },
    }
    (tmp_path / "board.json").write_text(json.dumps(board))
    assert medians(board, "one", 0.01) == {
        "reshuffled": 1.0, "online": 0.8, "low": math.inf, "issgd-1": math.inf
    }  # fmt: skip
    assert medians(board, "one", 0.03)["online"] == 0.7
    assert medians(board, "one", 0.003) == medians(board, "other", 0.03) == medians(board, "none", 0.01) == {}
    systematic = {"method": "online", "draws": "systematic"}
    methods = [
        {"label": "online", "work": 0.9, "settings": {"proposal": {"method": "online"}}},
        {"label": "issgd-1", "work": 1.9, "settings": {"worker": {"count": 1}}},
        {"label": "low", "work": 0.5, "settings": {"proposal": systematic}},
    ]
    (tmp_path / "advice.json").write_text(json.dumps({"methods": methods, "trial": {"learning_rate": 0.01}}))
    (tmp_path / "plan.toml").write_text(
        "".join(
            f"[[methods]]\nname = '{name}'\nproposal.method = '{method}'\n"
            for name, method in (("online", "online"), ("issgd-1", "issgd"), ("low", "online"))
        ).replace("'issgd'", "'issgd'\nworker.count = 1")
        + "[[datasets]]\nname = 'one'\ndata.name = 'mnist'\n"
    )
    given = [str(tmp_path / "board.json"), f"one={tmp_path / 'advice.json'}", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["foretold", *given, "--experiment", str(tmp_path / "plan.toml")])
    main()
    text = (tmp_path / "out" / "foretold.md").read_text()
    assert "| one, 0.01 | 1.90 | never | 0.90 | 0.80 |" in text
    assert "Over 2 pairs: rank correlation 1.00; mean absolute error 0.10, of the 1 that got there" in text
    assert "where always predicting 1 has 0.20" in text
    assert "Not compared: low, which the scoreboard has with another proposal.draws." in text
    written = (tmp_path / "out" / "foretold.json").read_text()
    assert json.loads(written)["pairs"] == 2
    assert "Infinity" not in written  # which no other reader takes


def test_the_scoreboards_own_methods_are_compared_with_what_they_are_set_to() -> None:
    """IS is predicted for systematic draws, which the scoreboard's has not; larger minibatches as it has them."""
    methods = [
        {"label": "online", "settings": {"proposal": {"method": "online", "draws": "systematic"}}},
        {"label": "second-moment", "settings": {"proposal": {"method": "second-moment"}}},
        {"label": "looking", "settings": {"proposal": {"method": "looking"}}},
        {
            "label": "reshuffled-256",
            "settings": {"proposal": {"method": "reshuffled"}, "master": {"minibatch_size": 256}},
        },
    ]
    assert differing({"methods": methods}, EXPERIMENT, "mnist") == {"online": ["proposal.draws"]}
