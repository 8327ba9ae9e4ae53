"""Each verdict on each claim comes out of traces made for it: nothing is hard-coded."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from issgd_cli.claims import JUDGES, Run, Runs, as_json, judge
from issgd_cli.claims.evidence import empty_trace
from issgd_cli.claims.paired import mean_difference
from issgd_cli.claims.verdicts import PerSeed
from issgd_cli.config.validation import resolve
from issgd_cli.runs.folder import State
from issgd_cli.runs.traces import Row

Curves = Mapping[str, Sequence[float]]
SETTINGS = {"a": (0.01, 10.0), "b": (0.001, 1.0)}
FALLING = [2.0, 1.0, 0.5, 0.2, 0.1]


def make(
    setting: str,
    method: str,
    seed: int,
    curves: Curves,
    state: State = "finished",
    pace: float = 1.0,
    proposal: Mapping[str, Any] | None = None,
) -> Run:
    """A run with these values of each quantity at steps 0, 10, 20, ..."""
    rate, smoothing = SETTINGS[setting]
    config = resolve(
        {
            "seed": seed,
            "optimizer": {"learning_rate": rate},
            "proposal": {"method": method.partition("-")[0], "smoothing": smoothing},
        },
        "test",
    )
    if proposal:
        config = config.model_copy(update={"proposal": config.proposal.model_copy(update=dict(proposal))})
    rows = [
        Row(10 * place, pace * 10 * place, quantity, float(value))
        for quantity, values in curves.items()
        for place, value in enumerate(values)
    ]
    path = Path("results/test") / f"{setting}-{method}-0" / f"seed-{seed:03d}"
    trace = pd.DataFrame(rows, columns=list(Row._fields)) if rows else empty_trace()
    return Run(path, setting, method, seed, state, config, {"state": state}, trace)


def experiment(curves: Callable[[str, str, int], Curves], seeds: int = 3, settings: str = "ab", **more: Any) -> Runs:
    runs = tuple(
        make(setting, method, seed, curves(setting, method, seed), **more)
        for setting in settings
        for method in ("issgd", "sgd")
        for seed in range(seeds)
    )
    return Runs("test", runs, len(runs))


def shifted(values: Sequence[float], by: float) -> list[float]:
    return [value + by for value in values]


def losses(gain: Callable[[str, int], float], floor: float = 0.0, quantity: str = "audit/loss/train") -> Any:
    """SGD's curve falls to 0.1; ISSGD's lies lower by `gain(setting, seed)` and ends at `floor`."""

    def curves(setting: str, method: str, seed: int) -> Curves:
        if method == "sgd":
            return {quantity: FALLING}
        return {quantity: [*shifted(FALLING[:-2], -gain(setting, seed)), floor, floor]}

    return curves


def outcome(claim: str, runs: Runs) -> str:
    return JUDGES[claim](runs).verdict


class TestC1:
    def test_holds_when_faster_in_both_settings_and_near_zero(self) -> None:
        verdict = JUDGES["C1"](experiment(losses(lambda setting, seed: 0.1)))
        assert verdict.verdict == "holds"
        assert "negative in 3 of 3 seeds" in verdict.evidence

    def test_fails_when_slower_in_one_setting(self) -> None:
        verdict = JUDGES["C1"](experiment(losses(lambda setting, seed: 0.1 if setting == "a" else -0.9)))
        assert verdict.verdict == "fails"
        assert "[holds]" in verdict.evidence.splitlines()[0]
        assert "[fails]" in verdict.evidence.splitlines()[1]

    def test_is_undecided_when_seeds_disagree(self) -> None:
        assert outcome("C1", experiment(losses(lambda setting, seed: -0.9 if seed == 0 else 0.9))) == "undecided"

    def test_fails_when_the_loss_settles_above_zero(self) -> None:
        verdict = JUDGES["C1"](experiment(losses(lambda setting, seed: 0.1, floor=0.05)))
        assert verdict.verdict == "fails"
        assert "above 0.01 in 3 of 3 seeds. [fails]" in verdict.evidence

    def test_is_undecided_when_the_runs_end_while_the_loss_still_falls(self) -> None:
        runs = experiment(lambda s, method, seed: {"audit/loss/train": shifted(FALLING, 0.5 * (method == "sgd"))})
        verdict = JUDGES["C1"](runs)
        assert verdict.verdict == "undecided"
        assert "still falling when the runs ended. [undecided]" in verdict.evidence

    def test_two_seeds_never_decide(self) -> None:
        assert outcome("C1", experiment(losses(lambda setting, seed: 0.1), seeds=2)) == "undecided"

    def test_one_setting_can_refute_but_not_confirm(self) -> None:
        assert outcome("C1", experiment(losses(lambda setting, seed: 0.1), settings="a")) == "undecided"
        assert outcome("C1", experiment(losses(lambda setting, seed: -0.9), settings="a")) == "fails"

    def test_is_untestable_without_audits(self) -> None:
        assert outcome("C1", experiment(losses(lambda setting, seed: 0.1, quantity="loss/train"))) == "untestable"

    def test_reaching_zero_alone_does_not_confirm_it(self) -> None:
        runs = tuple(
            make(setting, "issgd", seed, {"audit/loss/train": [1, 0]}) for setting in "ab" for seed in range(3)
        )
        verdict = JUDGES["C1"](Runs("test", runs, 12))
        assert verdict.verdict == "undecided"
        assert "No pair of finished" in verdict.evidence

    def test_from_six_seeds_on_the_interval_decides(self) -> None:
        verdict = JUDGES["C1"](experiment(losses(lambda setting, seed: -0.3 if seed == 0 else 0.1), seeds=12))
        assert verdict.verdict == "holds"  # one seed of twelve disagrees
        assert "95% interval" in verdict.evidence
        assert "negative in 11 of 12 seeds" in verdict.evidence

    def test_a_failed_run_is_counted_and_not_compared(self) -> None:
        runs = experiment(losses(lambda setting, seed: 0.1), seeds=4)
        failed = tuple(
            make(r.setting, r.method, r.seed, {}, state="failed") if (r.method, r.seed) == ("sgd", 3) else r
            for r in runs.runs
        )
        verdict = JUDGES["C1"](Runs("test", failed, 16))
        assert verdict.values["a"]["difference_at_equal_steps"]["seeds"] == [0, 1, 2]
        assert "2 runs failed, unfinished or without a partner not compared" in verdict.evidence

    def test_a_diverged_run_decides_nothing(self) -> None:
        def curves(setting: str, method: str, seed: int) -> Curves:
            broken = method == "issgd" and seed == 0
            return {"audit/loss/train": [2.0, np.nan, np.nan] if broken else [2.0, 1.0 + (method == "sgd"), 0.0]}

        assert outcome("C1", experiment(curves)) == "undecided"

    def test_equal_examples_tell_another_story_when_workers_did_much(self) -> None:
        def curves(setting: str, method: str, seed: int) -> Curves:
            gain = 0.1 if method == "issgd" else 0.0
            work = 30.0 if method == "issgd" else 10.0
            return {
                "audit/loss/train": [2.0 - gain, 1.0 - gain, 0.5 - gain, 0.3 - gain, 0.0],
                "work/examples_trained": [work * place for place in range(5)],
            }

        values = JUDGES["C1"](experiment(curves)).values["a"]
        assert values["difference_at_equal_steps"]["median"] < 0
        assert values["difference_at_equal_examples"]["median"] > 0


class TestC2:
    @pytest.mark.parametrize(("gain", "expected"), [(0.1, "holds"), (-0.9, "fails")])
    def test_follows_the_audited_training_error(self, gain: float, expected: str) -> None:
        runs = experiment(losses(lambda setting, seed: gain, quantity="audit/error/train"))
        assert outcome("C2", runs) == expected

    def test_is_undecided_when_seeds_disagree(self) -> None:
        runs = experiment(losses(lambda s, seed: 0.9 if seed else -0.9, quantity="audit/error/train"))
        assert outcome("C2", runs) == "undecided"

    def test_is_untestable_without_audits(self) -> None:
        assert outcome("C2", experiment(lambda *_: {})) == "untestable"


def final_errors(a: float, b: float, spread: float = 0.0) -> Any:
    """Test errors: SGD 0.10 in both settings, ISSGD `a` and `b`, seed by seed up and down by `spread`."""

    def curves(setting: str, method: str, seed: int) -> Curves:
        error = {"a": a, "b": b}[setting] if method == "issgd" else 0.1
        error += spread * (-1) ** seed * (method == "issgd")
        return {"audit/error/test": [0.9, error], "audit/error/valid": [0.9, error + (0.01 if setting == "b" else 0)]}

    return curves


class TestC3:
    @pytest.mark.parametrize(
        ("a", "b", "spread", "expected"),
        [(0.09, 0.11, 0, "holds"), (0.09, 0.09, 0, "fails"), (0.11, 0.11, 0, "fails"), (0.1, 0.11, 0.02, "undecided")],
    )
    def test_wants_issgd_better_in_a_and_sgd_in_b(self, a: float, b: float, spread: float, expected: str) -> None:
        assert outcome("C3", experiment(final_errors(a, b, spread))) == expected

    def test_is_untestable_with_one_setting(self) -> None:
        assert outcome("C3", experiment(final_errors(0.09, 0.11), settings="a")) == "untestable"


class TestC4:
    @pytest.mark.parametrize(
        ("error", "spread", "expected"),
        [(0.101, 0, "holds"), (0.12, 0, "fails"), (0.08, 0, "fails"), (0.105, 0.004, "undecided")],
    )
    def test_wants_the_chosen_settings_within_the_margin(self, error: float, spread: float, expected: str) -> None:
        assert outcome("C4", experiment(final_errors(error, 0.5, spread))) == expected

    def test_each_method_is_taken_in_its_best_setting(self) -> None:
        values = JUDGES["C4"](experiment(final_errors(0.5, 0.1))).values
        assert values["issgd"]["setting"] == "b"
        assert values["sgd"]["setting"] == "a"

    def test_is_untestable_from_mixed_records(self) -> None:
        assert outcome("C4", experiment(lambda *_: {"error/test": [0.1], "error/valid": [0.1]})) == "untestable"


def traces(in_use: float, stale: float, ideal: float = 4.0, uniform: float = 9.0) -> Curves:
    return {
        "audit/trace/ideal": [ideal] * 2,
        "audit/trace/uniform": [uniform] * 2,
        "audit/trace/stale": [6.0, stale],
        "audit/trace/in_use": [6.0, in_use],
    }


class TestC5:
    def test_holds_without_a_violation(self) -> None:
        verdict = JUDGES["C5"](experiment(lambda *_: traces(6.0, 6.0)))
        assert verdict.verdict == "holds"
        assert verdict.evidence.startswith("0 of 24 audits")

    def test_one_violation_in_an_sgd_run_refutes_it(self) -> None:
        runs = experiment(lambda s, m, seed: traces(6, 18.0 if (s, m, seed) == ("b", "sgd", 1) else 6))
        verdict = JUDGES["C5"](runs)
        assert verdict.verdict == "fails"
        assert "1 of 24 audits" in verdict.evidence
        assert "Tr(stale) = 2 Tr(uniform) (b sgd seed 1, step 10)" in verdict.evidence

    def test_tells_how_often_the_weights_in_use_are_worse_than_uniform(self) -> None:
        verdict = JUDGES["C5"](experiment(lambda *_: traces(20.0, 6.0)))
        assert verdict.values["in_use"] == {"a issgd": 0.5, "b issgd": 0.5}

    def test_is_untestable_without_audits(self) -> None:
        assert outcome("C5", experiment(lambda *_: {"trace/stale": [1.0]})) == "untestable"


class TestC6:
    @pytest.mark.parametrize(("a", "b", "expected"), [(8.5, 5.0, "holds"), (5.0, 8.0, "fails"), (8.95, 8.9, "fails")])
    def test_wants_a_reduction_in_b_larger_than_in_a(self, a: float, b: float, expected: str) -> None:
        runs = experiment(lambda s, m, seed: {**traces(0, 6), "audit/trace/in_use": [a if s == "a" else b] * 2})
        assert outcome("C6", runs) == expected

    def test_is_undecided_when_seeds_disagree(self) -> None:
        runs = experiment(
            lambda s, m, seed: {**traces(0, 6), "audit/trace/in_use": [7.0 + (s == "b") * (-1) ** seed] * 2}
        )
        assert outcome("C6", runs) == "undecided"

    def test_is_untestable_with_one_setting(self) -> None:
        assert outcome("C6", experiment(lambda *_: traces(6, 6), settings="b")) == "untestable"


class TestC7:
    @staticmethod
    def runs(kept: float, gap: float, spread: float = 0.0) -> Runs:
        found = []
        for seed in range(3):
            value = kept + spread * (-1) ** seed
            limit = {"staleness_limit_seconds": 4.0}
            curves = {"audit/loss/train": shifted(FALLING, gap), "proposal/kept_fraction": [value] * 5}
            found.append(make("a", "issgd-limited", seed, curves, proposal=limit))
            found.append(make("a", "issgd", seed, {"audit/loss/train": FALLING}))
        return Runs("test", tuple(found), 6)

    @pytest.mark.parametrize(
        ("kept", "gap", "spread", "expected"),
        [(0.15, 0.01, 0, "holds"), (0.9, 0.01, 0, "fails"), (0.15, 0.5, 0, "fails"), (0.3, 0.01, 0.1, "undecided")],
    )
    def test_follows_kept_fraction_and_difference(self, kept: float, gap: float, spread: float, expected: str) -> None:
        assert outcome("C7", self.runs(kept, gap, spread)) == expected

    def test_is_untestable_without_a_limit(self) -> None:
        assert outcome("C7", experiment(lambda *_: {"proposal/kept_fraction": [1.0]})) == "untestable"


class TestC8:
    @pytest.mark.parametrize(("in_use", "expected"), [(20.0, "holds"), (5.0, "fails")])
    def test_follows_the_shuffled_runs(self, in_use: float, expected: str) -> None:
        curves = {**traces(0, 6), "audit/trace/in_use": [in_use] * 2}
        runs = experiment(lambda *_: curves, proposal={"source": "shuffled"})
        assert outcome("C8", runs) == expected

    def test_is_undecided_when_runs_disagree(self) -> None:
        curves = traces(20.0, 6.0)  # worse than uniform at half of the audits
        assert outcome("C8", experiment(lambda *_: curves, proposal={"source": "shuffled"})) == "undecided"

    def test_is_untestable_without_shuffled_runs(self) -> None:
        assert outcome("C8", experiment(lambda *_: traces(20, 6))) == "untestable"


class TestC9:
    def ratios(self, mean: float, left_out: Sequence[int] = (), noise: float = 0.02, seeds: int = 5) -> Runs:
        """ISSGD's audits have this mean, SGD's and step 0 another; at those of `left_out`, 1.7, some can't be drawn."""

        def curves(setting: str, method: str, seed: int) -> Curves:
            if method == "sgd":
                return {"audit/estimator/error_ratio": [9.0] * 6}
            own = mean + noise * (seed - (seeds - 1) / 2)
            values = [9.0, *(own + wobble for wobble in (0.4, -0.4, 0.1, -0.1, 0.0))]
            partial = [float("nan")] * 6
            for place in left_out:
                values[place], partial[place] = 1.7, 5.0
            return {"audit/estimator/error_ratio": values, "audit/trace/uniform_in_use": partial}

        return experiment(curves, seeds=seeds)

    def test_holds_where_the_error_is_what_the_variance_explains(self) -> None:
        verdict = JUDGES["C9"](self.ratios(1.0))
        assert verdict.verdict == "holds"
        assert "1.000, standard error 0.014, 50 audits, 5 seeds" in verdict.evidence

    @pytest.mark.parametrize("mean", [1.2, 0.8])
    def test_fails_where_it_is_more_and_where_it_is_less(self, mean: float) -> None:
        assert outcome("C9", self.ratios(mean)) == "fails"

    def test_is_undecided_where_an_excess_could_not_have_been_seen(self) -> None:
        assert outcome("C9", self.ratios(1.0, noise=0.5)) == "undecided"
        assert outcome("C9", self.ratios(1.0, seeds=2)) == "undecided"

    def test_is_untestable_without_audits_draws(self) -> None:
        verdict = JUDGES["C9"](experiment(lambda *_: traces(6, 6)))
        assert verdict.verdict == "untestable"
        assert "tests/methods/test_proposal.py" in verdict.evidence

    def test_audits_at_which_examples_are_left_out_stand_apart_since_it_does_not_cover_them(self) -> None:
        verdict = JUDGES["C9"](self.ratios(1.0, left_out=[1, 2]))
        assert verdict.verdict == "holds"
        assert "unbiased): 1.000, standard error 0.014, 30 audits" in verdict.evidence
        assert "does not cover: 1.700, standard error 0.000, 20 audits" in verdict.evidence


class TestC10:
    @pytest.mark.parametrize(
        ("losses", "expected"),
        [
            ([2.0, 1.0, 1.2, 1.5, 2.0], "holds"),
            ([2.0, 1.5, 1.2, 1.0, 1.1], "fails"),
            ([2.0, 1.5, 1.2, 1.1, 1.0], "undecided"),  # still falling
            ([2.0, 1.5, 1.0, 1.1, 1.2], "undecided"),  # at the half
        ],
    )
    def test_follows_the_place_of_the_minimum(self, losses: list[float], expected: str) -> None:
        assert outcome("C10", experiment(lambda *_: {"audit/loss/valid": losses})) == expected

    def test_is_untestable_without_audits(self) -> None:
        assert outcome("C10", experiment(lambda *_: {})) == "untestable"


class TestC11:
    @pytest.mark.parametrize(
        ("late_bound", "expected"),
        [([0.11, 0.11, 0.11], "holds"), ([3.0, 3.0, 3.0], "fails"), ([0.1, 3.0, 0.1], "undecided")],
    )
    def test_follows_the_bound_against_the_exact_norm(self, late_bound: list[float], expected: str) -> None:
        def curves(setting: str, method: str, seed: int) -> Curves:
            return {
                "audit/gradient_norm2": [2.0, 0.1],
                "gradient_norm2/bound": [3.0, late_bound[seed]],
                "audit/trace/ideal": [4.0, 4.0],
            }

        assert outcome("C11", experiment(curves)) == expected

    def test_is_untestable_without_the_bound(self) -> None:
        assert outcome("C11", experiment(lambda *_: {"audit/gradient_norm2": [1.0]})) == "untestable"


def test_every_claim_is_judged_in_order_even_without_runs() -> None:
    verdicts = judge(Runs("nothing", (), 4))
    assert [verdict.claim.id for verdict in verdicts] == [f"C{number}" for number in range(1, 12)]
    assert {verdict.verdict for verdict in verdicts} == {"untestable"}
    assert as_json(verdicts, Runs("nothing", (), 4))["runs"] == "0 of 4 runs finished, 0 failed, 4 missing"


def test_unfinished_runs_are_always_told() -> None:
    states: tuple[State, ...] = ("finished", "failed", "interrupted", "running")
    runs = Runs("test", tuple(make("a", "sgd", seed, {}, state=state) for seed, state in enumerate(states)), 6)
    assert runs.tally() == "1 of 6 runs finished, 1 failed, 2 unfinished, 2 missing"


def test_the_distance_of_two_curves_is_the_area_between_them_over_the_shared_part() -> None:
    left = make("a", "issgd", 0, {"loss": [1.0, 1.0, 1.0]})
    right = make("a", "sgd", 0, {"loss": [3.0, 2.0]})
    assert mean_difference("loss", "steps")(left, right) == pytest.approx(-1.5)


@pytest.mark.parametrize(
    ("values", "side"),
    [([-1, -2, -3], -1), ([1, 2, 3], 1), ([-1, 2, 3], 0), ([-1, -2], 0), ([1, 2, np.inf], 0), ([-1] * 20 + [1], -1)],
)
def test_what_seeds_can_tell(values: list[float], side: int) -> None:
    assert PerSeed(tuple(range(len(values))), np.array(values, np.float64)).side() == side
