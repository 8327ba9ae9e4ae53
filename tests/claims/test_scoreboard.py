"""Ratios of work, re-derived from made-up traces; and what is said of them."""

import math
from dataclasses import replace

import numpy as np
import pytest

from issgd_cli.claims.choice import chosen
from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.quantiles import median_ranks
from issgd_cli.claims.scoreboard import ANOTHER, board, is_ours, of_another_seed, of_method, sentences
from issgd_cli.claims.targets import TARGETS
from issgd_cli.config.validation import resolve
from tests.contests import AUDITS, WORK, diverged, falling, run_of, task

LOSS, BY_VALIDATION, ERROR = TARGETS


def test_a_method_that_falls_twice_as_fast_needs_half_the_work() -> None:
    found = board({"toy": task({"reshuffled": falling(), "dlis": falling(2.0), "low": falling(0.5)})})
    row = found.ratios["training loss"]["toy"]
    # Reshuffled SGD's end is the median of its last five audits, the third from the end; it is there then.
    assert row["reshuffled"].values == pytest.approx(np.ones(10))
    assert row["dlis"].values == pytest.approx(np.full(10, 0.5), rel=0.01)
    assert row["low"].values == pytest.approx(np.full(10, math.inf))
    assert row["dlis"].interval == pytest.approx((0.5, 0.5), rel=0.01)
    assert row["low"].interval == (math.inf, math.inf)


def test_who_takes_a_little_more_than_all_its_run_is_told_from_who_never_gets_there() -> None:
    """Reshuffled SGD's run is four fifths of the work that all do."""
    found = board({"toy": task({"reshuffled": falling(), "dlis": falling(0.85), "low": falling(0.75)})})
    row = found.ratios["training loss"]["toy"]
    assert row["dlis"].values == pytest.approx(np.full(10, 1 / 0.85), rel=0.02)
    assert row["low"].values == pytest.approx(np.full(10, math.inf))


def test_one_that_is_there_from_the_beginning_needs_none() -> None:
    loss = np.linspace(2.0, 1.0, AUDITS)
    base, other = run_of("reshuffled", 0, loss), run_of("dlis", 0, np.full(AUDITS, 0.5))
    assert list(of_method(Runs("", (base, other), 2), "dlis", LOSS).values) == [0.0]


def test_the_test_error_is_reached_where_it_is_best_not_in_the_end() -> None:
    down_and_up = np.concatenate([np.linspace(0.9, 0.2, 21), np.linspace(0.2, 0.5, 21)[1:]])
    straight = np.linspace(0.9, 0.1, AUDITS)
    loss = np.ones(AUDITS)
    runs = Runs("", (run_of("reshuffled", 0, loss, down_and_up), run_of("low", 0, loss, straight)), 2)
    level = ERROR.level(runs.runs[0])
    assert level == pytest.approx(np.median(down_and_up[18:23]))  # not the single lowest of its audits
    own = ERROR.reached(runs.runs[0], level)
    assert own == pytest.approx(WORK / 2)
    there = (0.9 - level) / 0.8 * WORK
    assert of_method(runs, "low", ERROR).values == pytest.approx([there / own])


def test_divergence_is_infinite_and_a_baseline_that_diverged_alone_is_beaten() -> None:
    good = falling()(0)
    runs = Runs(
        "",
        (
            *(run_of("reshuffled", seed, good) for seed in (0, 1)),
            diverged("reshuffled", 2),
            diverged("reshuffled", 3),
            run_of("dlis", 0, good),
            diverged("dlis", 1),
            run_of("dlis", 2, good),
            diverged("dlis", 3),
        ),
        8,
    )
    found = of_method(runs, "dlis", LOSS)
    assert (found.seeds, list(found.values)) == ((0, 1, 2), [1.0, math.inf, 0.0])


def test_seeds_without_a_partner_and_unfinished_runs_say_nothing() -> None:
    good = falling()(0)
    runs = (run_of("reshuffled", 0, good), run_of("dlis", 1, good), replace(run_of("dlis", 0, good), state="running"))
    assert len(of_method(Runs("", runs, 3), "dlis", LOSS)) == 0


def test_where_nothing_was_learned_there_is_no_ratio() -> None:
    rising = np.linspace(1.0, 2.0, AUDITS)  # best at step 0
    runs = Runs("", (run_of("reshuffled", 0, rising), run_of("dlis", 0, rising)), 2)
    assert len(of_method(runs, "dlis", ERROR)) == 0


def test_intervals_are_two_of_the_seeds_own_values() -> None:
    wobbling = task({"reshuffled": falling(wobble=0.05), "dlis": falling(1.3, wobble=0.2)})
    ratios = of_method(wobbling, "dlis", LOSS)
    low, high = median_ranks(10)
    ordered = np.sort(ratios.values)
    assert ratios.interval == (ordered[low], ordered[high])
    assert 0.5 < ratios.median < 1


def test_what_is_said_is_computed() -> None:
    tasks = {
        "one": task({"reshuffled": falling(), "second-moment": falling(1.25), "infobatch": falling(1.6)}),
        "two": task({"reshuffled": falling(), "second-moment": falling(2.0), "infobatch": falling(1.1)}),
        "three": task({"reshuffled": falling(), "second-moment": falling(0.5), "dlis": falling(0.8)}),
    }
    found = board(tasks)
    assert found.ours == ("second-moment",)
    assert found.over_tasks("training loss", found.ours).median == pytest.approx(0.8, rel=0.01)
    assert found.above("training loss", "second-moment") == ["three"]
    assert found.behind("training loss") == {"infobatch": ["one"]}  # dlis wins nowhere
    text = "\n".join(sentences(found))
    assert (
        "To reach reshuffled SGD's training loss at 80% of the work, work relative to its own, the median over tasks: "
        "0.80 (0.80 to 0.80; 10) with second-moment, on 3 tasks (aimed at: 0.8 at most)" in text
    )
    assert (
        "of 3 tasks with seeds enough for an interval, it lies wholly above 1.03 on 1 (three), the median on 1" in text
    )
    assert "infobatch takes less work than ours to reach the training loss on: one." in text
    assert "dlis" not in text


def test_the_best_of_ours_is_taken_task_by_task_and_said_beside_each() -> None:
    ours = {"reshuffled": falling(), "second-moment": falling(2.0), "second-moment:quarter": falling(1.0)}
    other = {"reshuffled": falling(), "second-moment": falling(1.0), "second-moment:quarter": falling(1.6)}
    found = board({"one": task(ours), "two": task(other)})
    assert found.over_tasks("training loss", found.ours).values == pytest.approx((0.5 + 1 / 1.6) / 2, rel=0.01)
    text = "\n".join(sentences(found))
    assert "0.56 (0.56 to 0.56; 10) with the better of these on each, in hindsight, on 2 tasks" in text


@pytest.mark.parametrize(
    ("settings", "ours"),
    [
        ({"proposal": {"method": "second-moment"}}, True),
        ({"proposal": {"method": "second-moment"}, "second-moment": {"rate_power": 0.5}}, True),
        ({"proposal": {"method": "second-moment"}, "second-moment": {"rate_alone": True}}, False),
        ({"proposal": {"method": "looking"}, "second-moment": {"rate_alone": True}}, True),
        ({"proposal": {"method": "issgd", "smoothing": "second-moment"}}, True),
        ({"proposal": {"method": "issgd"}}, False),
        ({"proposal": {"method": "reshuffled"}}, False),
    ],
)
def test_ours_are_those_that_draw_as_nobody_else_does(settings: dict[str, dict[str, object]], ours: bool) -> None:
    assert is_ours(resolve({"data": {"name": "mnist"}, **settings}, "test")) == ours


def test_a_method_is_counted_on_the_tasks_that_it_was_run_on() -> None:
    one = task({"reshuffled": falling(), "looking": falling(2.0), "second-moment": falling(1.25)})
    found = board({"one": one, "two": task({"reshuffled": falling(), "looking": falling(1.0)})})
    text = "\n".join(sentences(found))
    assert "0.75 (0.75 to 0.75; 10) with looking, on 2 tasks" in text
    assert "0.80 (0.80 to 0.80; 10) with second-moment, on 1 task" in text


def test_over_tasks_is_a_median_of_each_seed_that_all_of_them_have() -> None:
    tasks = {
        name: task({"reshuffled": falling(), "looking": falling(pace, wobble=0.1)}, seeds)
        for name, pace, seeds in (("one", 1.25, range(8)), ("two", 2.0, range(1, 9)), ("three", 1.1, range(8)))
    }
    found = board(tasks)
    over = found.over_tasks("training loss", ["looking"])
    rows = [row["looking"] for row in found.ratios["training loss"].values()]
    assert over.seeds == tuple(range(1, 8))
    for seed, ratio in zip(over.seeds, over.values, strict=True):
        assert ratio == np.median([dict(zip(row.seeds, row.values, strict=True))[seed] for row in rows])
    assert len(found.over_tasks("training loss", ["dlis"])) == 0
    assert found.plain()["over tasks"]["training loss"]["looking"]["seeds"] == 7


def test_another_seed_of_the_baseline_shows_what_chance_makes_of_a_ratio() -> None:
    alike = board({"one": task({"reshuffled": falling(), "low": falling()})}).ratios["training loss"]["one"][ANOTHER]
    assert alike.values == pytest.approx(np.ones(10))
    paces = [1.0, 1.25, 0.8, 1.0]
    runs = tuple(run_of("reshuffled", seed, falling(pace)(0)) for seed, pace in enumerate(paces))
    found = of_another_seed(Runs("", runs, 4), LOSS)
    assert found.seeds == (0, 1, 2, 3)
    # The next seed's run is 1.25 times as fast, far too slow, 1.25 times as fast again, and the last one's as fast.
    assert found.values == pytest.approx([0.8, math.inf, 0.8, 1.0], rel=0.01)
    assert len(of_another_seed(Runs("", runs[:1], 1), LOSS)) == 0


def test_each_target_is_tried_for_at_the_setting_that_is_best_for_it() -> None:
    """Of two rates one ends with the lower training loss, the other validates better."""

    def run(method: str, seed: int, setting: str, pace: float, valid: float) -> Run:
        made = run_of(method, seed, falling(pace)(seed), error=np.linspace(0.9, 0.3 / pace, AUDITS), valid=valid)
        optimizer = made.config.optimizer.model_copy(update={"learning_rate": pace / 100})
        config, path = made.config.model_copy(update={"optimizer": optimizer}), made.path.with_name(f"{setting}-{seed}")
        return replace(made, setting=setting, config=config, path=path)

    # Setting -> how fast the training loss falls, and what is right in the end of what is held out.
    rates = {"low": (1.0, 0.2), "high": (1.25, 0.1)}, {"low": (1.5, 0.1), "high": (1.0, 0.2)}
    judged, rivals = [], []
    for method, of_method_ in zip(("reshuffled", "dlis"), rates, strict=True):
        for setting, (pace, valid) in of_method_.items():
            rivals.append(run(method, 100, setting, pace, 1 - valid))
            judged += [run(method, seed, setting, pace, valid) for seed in range(6)]
    loaded = Runs("", tuple(judged), 12, tuple(rivals), tuple(judged))
    found = board({"one": chosen(loaded, "validation")})
    assert found.ratios["training loss"]["one"]["dlis"].values == pytest.approx(np.full(6, 1.25 / 1.5), rel=0.01)
    for target in ("training loss, rates by validation", "test error"):
        assert found.ratios[target]["one"]["dlis"].values == pytest.approx(np.ones(6))
    assert not any(methods for tasks in found.elsewhere.values() for methods in tasks.values())
    assert BY_VALIDATION.name not in board({"one": task({"reshuffled": falling()})}).ratios  # nothing is chosen there
    assert found.margins["validation"] == {"one": {"reshuffled": [0.8, 0.9], "dlis": [0.8, 0.9]}}
    assert found.margins["training"]["one"]["dlis"] == pytest.approx([2 * math.exp(-5.7), 2 * math.exp(-3.8)], rel=1e-3)
    assert found.rates("one", "reshuffled") == [0.0125, 0.01]
    assert found.rates("one", "dlis") == [0.015, 0.01]
    # Where a method has not been run at the rate of the lowest training loss, that is said.
    fewer = tuple(run for run in judged if (run.method, run.setting) != ("dlis", "low"))
    lacking = board({"one": chosen(Runs("", fewer, 12, tuple(rivals), fewer), "training")})
    assert lacking.elsewhere["training loss"] == {"one": ["dlis"]}
    told = replace(lacking, ours=("dlis",))
    assert "Not yet at the rate that is best for it, training loss: dlis on one." in sentences(told)
    # Its ratio there is a number of the table, and of no sentence.
    assert len(lacking.ratios["training loss"]["one"]["dlis"]) == 6
    assert "dlis" not in lacking.standings("training loss")["one"]
    assert len(told.over_tasks("training loss", ["dlis"])) == 0
    assert (told.above("training loss", "dlis", wholly=False), told.behind("training loss")) == ([], {})
    assert not any("with dlis" in line and "training loss at" in line for line in sentences(told))
    assert told.over_tasks("test error", ["dlis"]).median == 1.0
    # Nor is anything held against the baseline where that has not been run at its own best rate.
    fewer = tuple(run for run in judged if (run.method, run.setting) != ("reshuffled", "high"))
    lacking = board({"one": chosen(Runs("", fewer, 12, tuple(rivals), fewer), "validation")})
    assert list(lacking.ratios) == ["training loss, rates by validation", "test error"]
    assert lacking.seconds == {}


def test_a_task_without_reshuffled_sgd_is_on_no_board() -> None:
    found = board({"one": task({"reshuffled": falling(), "dlis": falling()}), "two": task({"dlis": falling()})})
    assert found.tasks == ["one"]
    assert list(found.plain()["training loss"]) == ["one"]
    row = found.plain()["training loss"]["one"]["dlis"]
    assert {key: row[key] for key in ("ratio", "low", "high", "seeds")} == pytest.approx(
        {"ratio": 1.0, "low": 1.0, "high": 1.0, "seeds": 10}
    )


def test_what_its_runs_were_made_on_is_said_of_each_method() -> None:
    gpu = {"state": "finished", "machine": {"cpu": "One", "gpus": ["Two"]}}
    runs = tuple(run_of("reshuffled", seed, falling()(seed), manifest={"machine": {"cpu": "One"}}) for seed in (0, 1))
    others = (run_of("low", 0, falling()(0), manifest=gpu), run_of("low", 1, falling()(1)))
    found = board({"one": Runs("", runs + others, 4)})
    assert found.machines == {"One": {"reshuffled": 2}, "Two": {"low": 1}, "": {"low": 1}}
