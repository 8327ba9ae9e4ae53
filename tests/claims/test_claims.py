"""Each verdict on each claim comes out of traces made for it: nothing is hard-coded."""

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from issgd_cli.claims import FINDERS, Run, Runs, Verdict, as_json, findings, folders, judge
from issgd_cli.claims.evidence import is_papers
from issgd_cli.claims.generalisation import chosen
from issgd_cli.claims.loading import empty_trace
from issgd_cli.claims.others import comparisons
from issgd_cli.claims.paired import difference, mean_difference
from issgd_cli.claims.settings import paper_settings
from issgd_cli.claims.thresholds import Thresholds, reasons, variations
from issgd_cli.claims.verdicts import Claim, Finding, Part, PerSeed, weighed
from issgd_cli.config.validation import resolve
from issgd_cli.figures import report
from issgd_cli.runs.folder import State
from issgd_cli.runs.traces import Row

Curves = Mapping[str, Sequence[float]]
SETTINGS = {"a": (0.01, 10.0), "b": (0.001, 1.0)}
FALLING = [2.0, 1.0, 0.5, 0.2, 0.1]
ENOUGH = 10  # seeds that decide


def make(
    setting: str,
    method: str,
    seed: int,
    curves: Curves,
    state: State = "finished",
    pace: float = 1.0,
    proposal: Mapping[str, Any] | None = None,
    data: str = "house-numbers",
) -> Run:
    """A run with these values of each quantity at steps 0, 10, 20, ..."""
    rate, smoothing = SETTINGS.get(setting, (0.01, 10.0))
    config = resolve(
        {
            "seed": seed,
            "data": {"name": data},
            "optimizer": {"learning_rate": rate},
            "proposal": {"method": method.partition("-")[0], "smoothing": smoothing, **(proposal or {})},
        },
        "test",
    )
    rows = [
        Row(10 * place, pace * 10 * place, quantity, float(value))
        for quantity, values in curves.items()
        for place, value in enumerate(values)
    ]
    path = Path("results/test") / f"{setting}-{method}-0" / f"seed-{seed:03d}"
    trace = pd.DataFrame(rows, columns=list(Row._fields)) if rows else empty_trace()
    return Run(path, setting, method, seed, state, config, {"state": state}, trace)


def experiment(
    curves: Callable[[str, str, int], Curves], seeds: int = ENOUGH, settings: str = "ab", **more: Any
) -> Runs:
    runs = tuple(
        make(setting, method, seed, curves(setting, method, seed), **more)
        for setting in settings
        for method in ("issgd", "sgd")
        for seed in range(seeds)
    )
    return Runs("test", runs, len(runs))


def diverged(runs: Runs, setting: str, method: str, seeds: Sequence[int]) -> Runs:
    """The same, where some runs of a group did not come to their end since their numbers were none any more."""
    manifest = {"state": "failed", "failure": {"actor": "master", "reason": "The loss is not finite at step 7"}}

    def ended(run: Run) -> Run:
        if (run.setting, run.method) != (setting, method) or run.seed not in seeds:
            return run
        return replace(run, state="failed", manifest=manifest, trace=empty_trace())

    return replace(runs, runs=tuple(ended(run) for run in runs.runs))


def shifted(values: Sequence[float], by: float) -> list[float]:
    return [value + by for value in values]


def losses(gain: Callable[[str, int], float], floor: float = 0.0, quantity: str = "audit/loss/train") -> Any:
    """SGD's curve falls to 0.1; ISSGD's lies lower by `gain(setting, seed)` and ends at `floor`."""

    def curves(setting: str, method: str, seed: int) -> Curves:
        if method == "sgd":
            return {quantity: FALLING}
        return {quantity: [*shifted(FALLING[:-2], -gain(setting, seed)), floor, floor]}

    return curves


def verdict_on(claim: str, runs: Runs) -> Verdict:
    """As if the report had no other claim."""
    return weighed([FINDERS[claim](runs, Thresholds())])[0]


def judged(runs: Runs) -> list[Verdict]:
    """As `judge`, without what would turn them, which takes long."""
    return weighed(findings(runs, Thresholds()))


def outcome(claim: str, runs: Runs) -> str:
    return verdict_on(claim, runs).verdict


class TestC1:
    def test_holds_when_faster_in_both_settings_and_near_zero(self) -> None:
        verdict = verdict_on("C1", experiment(losses(lambda setting, seed: 0.1)))
        assert verdict.verdict == "holds"
        assert verdict.p == 2 / 1024
        assert "below -0.02 in 10 of 10 seeds" in verdict.evidence
        assert "97.9% interval" in verdict.evidence

    @pytest.mark.parametrize(
        ("seeds", "expected"), [(2, "undecided"), (3, "suggests it holds"), (9, "suggests it holds")]
    )
    def test_fewer_than_ten_seeds_never_decide(self, seeds: int, expected: str) -> None:
        assert outcome("C1", experiment(losses(lambda setting, seed: 0.1), seeds)) == expected

    def test_fails_when_slower_in_one_setting(self) -> None:
        verdict = verdict_on("C1", experiment(losses(lambda setting, seed: 0.1 if setting == "a" else -0.9)))
        assert verdict.verdict == "fails"
        assert verdict.p == 4 * 2 / 1024  # for four parts
        assert "[suggests it holds]" in verdict.evidence.splitlines()[0]
        assert "[suggests it fails]" in verdict.evidence.splitlines()[1]
        assert verdict.brief == "(b): mean training loss of ISSGD 72.7% above SGD's."

    def test_a_difference_that_nobody_could_see_is_none(self) -> None:
        verdict = verdict_on("C1", experiment(losses(lambda setting, seed: -0.089)))
        assert verdict.values["a"]["relative_difference"]["median"] == pytest.approx(-0.01, abs=0.001)
        assert verdict.verdict == "fails"

    def test_is_undecided_when_seeds_disagree(self) -> None:
        assert outcome("C1", experiment(losses(lambda setting, seed: -0.9 if seed % 2 else 0.9))) == "undecided"

    def test_fails_when_the_loss_settles_above_zero(self) -> None:
        verdict = verdict_on("C1", experiment(losses(lambda setting, seed: 0.1, floor=0.05)))
        assert verdict.verdict == "fails"
        assert "above 0.01 in 10 of 10 seeds. [suggests it fails]" in verdict.evidence

    def test_is_undecided_when_the_runs_end_while_the_loss_still_falls(self) -> None:
        runs = experiment(lambda s, method, seed: {"audit/loss/train": shifted(FALLING, 0.5 * (method == "sgd"))})
        verdict = verdict_on("C1", runs)
        assert verdict.verdict == "undecided"
        assert "still falling when the runs ended. [undecided]" in verdict.evidence

    def test_one_setting_can_refute_but_not_confirm(self) -> None:
        assert outcome("C1", experiment(losses(lambda setting, seed: 0.1), settings="a")) == "undecided"
        assert outcome("C1", experiment(losses(lambda setting, seed: -0.9), settings="a")) == "fails"

    def test_is_untestable_without_audits(self) -> None:
        assert outcome("C1", experiment(losses(lambda setting, seed: 0.1, quantity="loss/train"))) == "untestable"

    def test_reaching_zero_alone_does_not_confirm_it(self) -> None:
        runs = tuple(
            make(setting, "issgd", seed, {"audit/loss/train": [1, 0]}) for setting in "ab" for seed in range(ENOUGH)
        )
        verdict = verdict_on("C1", Runs("test", runs, 40))
        assert verdict.verdict == "undecided"
        assert "No pair of the paper's ISSGD and SGD" in verdict.evidence

    def test_one_of_many_seeds_may_disagree(self) -> None:
        verdict = verdict_on("C1", experiment(losses(lambda setting, seed: -0.3 if seed == 0 else 0.1), seeds=12))
        assert verdict.verdict == "holds"
        assert "in 11 of 12 seeds" in verdict.evidence

    def test_a_run_that_failed_otherwise_is_counted_and_not_compared(self) -> None:
        runs = experiment(losses(lambda setting, seed: 0.1), seeds=4)
        failed = tuple(
            make(r.setting, r.method, r.seed, {}, state="failed") if (r.method, r.seed) == ("sgd", 3) else r
            for r in runs.runs
        )
        verdict = verdict_on("C1", Runs("test", failed, 16))
        assert verdict.values["a"]["difference_at_equal_steps"]["seeds"] == [0, 1, 2]
        assert "2 runs unfinished or without a partner not compared" in verdict.evidence

    def test_equal_work_charges_sgd_for_what_it_trains_on_alone(self) -> None:
        def curves(setting: str, method: str, seed: int) -> Curves:
            gain = 0.1 if method == "issgd" else 0.0
            scored = 20.0 if method == "issgd" else 300.0  # SGD's worker only measures
            return {
                "audit/loss/train": [2.0 - gain, 1.0 - gain, 0.5 - gain, 0.3 - gain, 0.0],
                "work/examples_trained": [10.0 * place for place in range(5)],
                "work/examples_scored": [scored * place for place in range(5)],
            }

        runs = experiment(curves)
        assert runs.of_first("a", "sgd")[0].series("audit/loss/train", "examples").positions.tolist()[-1] == 40
        assert runs.of_first("a", "issgd")[0].series("audit/loss/train", "examples").positions.tolist()[-1] == 120
        values = verdict_on("C1", runs).values["a"]
        assert values["difference_at_equal_steps"]["median"] < 0
        assert values["difference_at_equal_examples"]["median"] > 0


class TestC2:
    @pytest.mark.parametrize(("gain", "expected"), [(0.1, "holds"), (-0.9, "fails")])
    def test_follows_the_audited_training_error(self, gain: float, expected: str) -> None:
        runs = experiment(losses(lambda setting, seed: gain, quantity="audit/error/train"))
        assert outcome("C2", runs) == expected

    def test_is_undecided_when_seeds_disagree(self) -> None:
        runs = experiment(losses(lambda s, seed: 0.9 if seed % 2 else -0.9, quantity="audit/error/train"))
        assert outcome("C2", runs) == "undecided"

    def test_is_untestable_without_audits(self) -> None:
        assert outcome("C2", experiment(lambda *_: {})) == "untestable"

    def test_is_untestable_where_the_loss_knows_no_errors(self) -> None:
        """Though a run that diverges would be its method's worst outcome."""
        runs = diverged(experiment(losses(lambda setting, seed: 0.1)), "a", "issgd", [0])
        verdict = verdict_on("C2", runs)
        assert (verdict.verdict, verdict.values) == ("untestable", {})
        assert "which their loss knows none of" in verdict.evidence

    def test_issgd_that_diverged_is_its_worst_outcome_and_sgd_that_diverged_is_sgds(self) -> None:
        runs = experiment(losses(lambda setting, seed: 0.1, quantity="audit/error/train"))
        worse = verdict_on("C2", diverged(runs, "a", "issgd", range(9)))
        assert worse.verdict == "fails"
        assert "9 diverged, the worst outcome" in worse.evidence
        assert worse.values["a"]["relative_difference"]["values"][:9] == [np.inf] * 9
        better = verdict_on("C2", diverged(runs, "a", "sgd", range(9)))
        assert better.verdict == "holds"
        assert better.values["a"]["relative_difference"]["values"][:9] == [-np.inf] * 9

    def test_where_both_diverged_the_pair_says_nothing(self) -> None:
        runs = experiment(losses(lambda setting, seed: 0.1, quantity="audit/error/train"))
        both = diverged(diverged(runs, "a", "issgd", range(9)), "a", "sgd", range(9))
        assert verdict_on("C2", both).values["a"]["relative_difference"]["seeds"] == [9]
        assert outcome("C2", both) == "undecided"

    def test_where_both_diverged_in_every_pair_nobody_is_sent_to_look_for_audits(self) -> None:
        runs = experiment(losses(lambda setting, seed: 0.1, quantity="audit/error/train"))
        for setting, method in itertools.product("ab", ("issgd", "sgd")):
            runs = diverged(runs, setting, method, range(10))
        verdict = verdict_on("C1", runs)
        assert verdict.evidence.startswith("(a): ISSGD and SGD diverged in every pair")
        assert "audit_every_steps" not in verdict.evidence


def final_errors(a: float, b: float, spread: float = 0.0) -> Any:
    """Test errors: SGD 0.10 in both settings, ISSGD `a` and `b`, seed by seed up and down by `spread`."""

    def curves(setting: str, method: str, seed: int) -> Curves:
        error = {"a": a, "b": b}[setting] if method == "issgd" else 0.1
        error += spread * (-1) ** seed * (method == "issgd")
        return {"audit/error/test": [0.9, error], "audit/error/valid": [0.9, error + (0.01 if setting == "b" else 0)]}

    return curves


def on_two_datasets(runs: Runs) -> Runs:
    """As if the settings were two datasets."""
    names = {"a": "cifar10", "b": "house-numbers"}
    changed = [
        replace(
            run,
            setting=names[run.setting],
            config=run.config.model_copy(
                update={"data": run.config.data.model_copy(update={"name": names[run.setting]})}
            ),
        )
        for run in runs.runs
    ]
    return replace(runs, runs=tuple(changed))


class TestC3:
    @pytest.mark.parametrize(
        ("a", "b", "spread", "expected"),
        [(0.09, 0.11, 0, "holds"), (0.09, 0.09, 0, "fails"), (0.11, 0.11, 0, "fails"), (0.1, 0.11, 0.02, "undecided")],
    )
    def test_wants_issgd_better_in_a_and_sgd_in_b(self, a: float, b: float, spread: float, expected: str) -> None:
        assert outcome("C3", experiment(final_errors(a, b, spread))) == expected

    def test_is_untestable_with_one_setting(self) -> None:
        assert outcome("C3", experiment(final_errors(0.09, 0.11), settings="a")) == "untestable"

    @pytest.mark.parametrize("claim", ["C3", "C4", "C6"])
    def test_two_datasets_are_not_the_papers_two_settings(self, claim: str) -> None:
        runs = on_two_datasets(experiment(lambda *names: {**final_errors(0.09, 0.11)(*names), **traces(5, 6)}))
        assert outcome(claim, runs) == "untestable"


class TestC4:
    @pytest.mark.parametrize(
        ("error", "spread", "expected"),
        [(0.101, 0, "holds"), (0.12, 0, "fails"), (0.08, 0, "fails"), (0.105, 0.004, "undecided")],
    )
    def test_wants_the_chosen_settings_within_the_margin(self, error: float, spread: float, expected: str) -> None:
        assert outcome("C4", experiment(final_errors(error, 0.5, spread))) == expected

    def test_each_method_is_taken_in_its_best_setting(self) -> None:
        values = verdict_on("C4", experiment(final_errors(0.5, 0.1))).values
        assert values["issgd"]["setting"] == "b"
        assert values["sgd"]["setting"] == "a"

    def test_a_setting_in_which_runs_diverged_is_not_the_best_one(self) -> None:
        runs = diverged(experiment(final_errors(0.1, 0.2)), "a", "issgd", [3])
        best = chosen(runs, "issgd", runs.settings)
        assert best is not None
        assert best.setting == "b"

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
        verdict = verdict_on("C5", experiment(lambda *_: traces(6.0, 6.0)))
        assert verdict.verdict == "holds"
        assert "violated at 0 of 80 audits of the paper's methods." in verdict.evidence
        assert verdict.brief == "It holds at 100.0% of a seed's audits."

    def test_generally_is_not_always(self) -> None:
        runs = experiment(lambda s, m, seed: traces(6, 18.0 if (s, m, seed) == ("b", "sgd", 1) else 6))
        verdict = verdict_on("C5", runs)
        assert verdict.verdict == "holds"  # at 9 of 10 seeds
        assert "violated at 1 of 80 audits" in verdict.evidence
        assert "(b sgd 1/20); worst Tr(stale) = 2 Tr(uniform) (b sgd seed 1, step 10)" in verdict.evidence

    @pytest.mark.parametrize(("violated", "expected"), [(1, "holds"), (2, "fails")])
    def test_a_share_that_is_exactly_the_threshold_has_reached_it(self, violated: int, expected: str) -> None:
        audits = 20  # of which one is a twentieth
        curves = {
            "audit/trace/ideal": [4.0] * audits,
            "audit/trace/uniform": [9.0] * audits,
            "audit/trace/stale": [18.0] * violated + [6.0] * (audits - violated),
        }
        verdict = verdict_on("C5", experiment(lambda s, m, seed: curves))
        assert verdict.values["shares"]["median"] == 1 - violated / audits
        assert verdict.verdict == expected
        said = "at least 0.95" if violated == 1 else "below 0.95"
        assert f"{said} in 10 of 10 seeds" in verdict.evidence

    def test_fails_where_it_is_violated_at_more_than_a_few_audits_of_each_seed(self) -> None:
        assert outcome("C5", experiment(lambda s, m, seed: traces(6, 18.0 if s == "b" else 6))) == "fails"

    def test_methods_of_ours_are_counted_apart(self) -> None:
        papers = experiment(lambda *_: traces(6.0, 6.0))
        proposal = {"smoothing": "variance-optimal"}
        ours = [make("a", "issgd-optimal", seed, traces(6, 18), proposal=proposal) for seed in range(ENOUGH)]
        verdict = verdict_on("C5", replace(papers, runs=(*papers.runs, *ours)))
        assert verdict.verdict == "holds"
        assert "0 of 80 audits of the paper's methods; beside these at 10 of 20 of ours" in verdict.evidence

    def test_tells_how_often_the_weights_in_use_are_worse_than_uniform(self) -> None:
        verdict = verdict_on("C5", experiment(lambda *_: traces(20.0, 6.0)))
        assert verdict.values["in_use"] == {"a issgd": 0.5, "b issgd": 0.5}

    def test_is_untestable_without_audits(self) -> None:
        assert outcome("C5", experiment(lambda *_: {"trace/stale": [1.0]})) == "untestable"


class TestC6:
    @pytest.mark.parametrize(("a", "b", "expected"), [(8.5, 5.0, "holds"), (5.0, 8.0, "fails"), (8.95, 8.9, "fails")])
    def test_wants_a_reduction_in_b_larger_than_in_a(self, a: float, b: float, expected: str) -> None:
        runs = experiment(lambda s, m, seed: {**traces(0, 6), "audit/trace/in_use": [a if s == "a" else b] * 2})
        assert outcome("C6", runs) == expected

    def test_what_is_convincing_is_the_reduction_that_one_sees_not_its_share_of_the_possible_one(self) -> None:
        """(a) is reduced more, to 5 of 9 where (b) is to 6; of what was possible it reaches less."""
        both = {"a": (5.0, 1.0), "b": (6.0, 5.5)}
        runs = experiment(
            lambda s, m, seed: {
                **traces(0, 6),
                "audit/trace/in_use": [both[s][0]] * 2,
                "audit/trace/ideal": [both[s][1]] * 2,
            }
        )
        verdict = verdict_on("C6", runs)
        assert verdict.verdict == "fails"
        assert verdict.values["difference_of_shares"]["median"] > 0

    def test_is_undecided_when_seeds_disagree(self) -> None:
        runs = experiment(
            lambda s, m, seed: {**traces(0, 6), "audit/trace/in_use": [7.0 + (s == "b") * (-1) ** seed] * 2}
        )
        assert outcome("C6", runs) == "undecided"

    def test_where_b_diverged_it_has_no_reduction_at_all(self) -> None:
        runs = experiment(lambda s, m, seed: {**traces(0, 6), "audit/trace/in_use": [8.5 if s == "a" else 5.0] * 2})
        assert outcome("C6", diverged(runs, "a", "issgd", range(9))) == "holds"
        assert outcome("C6", diverged(runs, "b", "issgd", range(9))) == "fails"

    def test_is_untestable_with_one_setting(self) -> None:
        assert outcome("C6", experiment(lambda *_: traces(6, 6), settings="b")) == "untestable"

    def test_the_papers_reason_is_told_where_each_rate_has_each_constant(self) -> None:
        in_use = {"a": 7.0, "a-plus-1": 8.0, "b-plus-10": 6.0, "b": 5.0}  # of 9, where 4 is ideal: a fifth each
        rates = {"a": 0.01, "a-plus-1": 0.01, "b-plus-10": 0.001, "b": 0.001}
        found = []
        for setting, value in in_use.items():
            curves = {**traces(0, 6), "audit/trace/in_use": [value] * 2}
            smoothing = {"smoothing": 10.0 if setting in ("a", "b-plus-10") else 1.0}
            for run in (make(setting, "issgd", seed, curves, proposal=smoothing) for seed in range(ENOUGH)):
                optimizer = run.config.optimizer.model_copy(update={"learning_rate": rates[setting]})
                found.append(replace(run, config=run.config.model_copy(update={"optimizer": optimizer})))
        verdict = verdict_on("C6", Runs("test", tuple(found), 40))
        values = verdict.values["crossed"]
        assert verdict.verdict == "holds"
        assert values["at 0.01"]["median"] == pytest.approx(0.2)
        assert values["at 0.001"]["median"] == pytest.approx(-0.2)
        assert values["a-plus-1"]["share"]["median"] == pytest.approx(0.2)
        assert set(values) == {"a-plus-1", "b-plus-10", "at 0.01", "at 0.001"}
        assert "with +10 minus that with +1, by learning rate: at 0.01 0.2 (97.9% interval" in verdict.evidence
        for fewer in ("a-plus-1", "b-plus-10"):
            kept = tuple(run for run in found if run.setting != fewer)
            assert "is not judged: it needs both" in verdict_on("C6", Runs("test", kept, 30)).evidence


class TestC7:
    @staticmethod
    def runs(gap: float, spread: float = 0.0, seeds: int = ENOUGH) -> Runs:
        found = []
        for seed in range(seeds):
            curves = {
                "audit/loss/train": shifted(FALLING, gap + spread * (seed % 2)),
                "proposal/kept_fraction": [0.9] * 5,  # far from 15%: told, not judged
            }
            found.append(make("a", "issgd-limited", seed, curves, proposal={"staleness_limit_seconds": 4.0}))
            found.append(make("a", "issgd", seed, {"audit/loss/train": FALLING}))
        return Runs("test", tuple(found), 2 * seeds)

    @pytest.mark.parametrize(
        ("gap", "spread", "expected"),
        [(0.001, 0, "holds"), (0.5, 0, "fails"), (-0.5, 0, "fails"), (0.001, 0.5, "undecided")],
    )
    def test_follows_the_difference_alone(self, gap: float, spread: float, expected: str) -> None:
        assert outcome("C7", self.runs(gap, spread)) == expected

    def test_says_that_what_is_kept_is_calibrated(self) -> None:
        evidence = verdict_on("C7", self.runs(0.001)).evidence
        assert "kept fraction 0.9" in evidence
        assert "calibrated" in evidence

    @pytest.mark.parametrize("method", ["issgd", "issgd-limited"])
    def test_a_run_that_diverged_on_one_side_alone_is_a_difference_that_can_be_seen(self, method: str) -> None:
        assert outcome("C7", diverged(self.runs(0.001), "a", method, range(10))) == "fails"

    def test_is_untestable_without_a_limit(self) -> None:
        assert outcome("C7", experiment(lambda *_: {"proposal/kept_fraction": [1.0]})) == "untestable"


class TestC8:
    def test_is_proved_whatever_the_runs(self) -> None:
        verdict = verdict_on("C8", Runs("nothing", (), 0))
        assert verdict.verdict == "proved"
        assert verdict.p is None

    @pytest.mark.parametrize("in_use", [20.0, 5.0])
    def test_what_shuffled_runs_show_is_told(self, in_use: float) -> None:
        curves = {**traces(0, 6), "audit/trace/in_use": [in_use] * 2}
        verdict = verdict_on("C8", experiment(lambda *_: curves, proposal={"source": "shuffled"}))
        assert verdict.verdict == "proved"
        assert f"share of audits with Tr(in use) > Tr(uniform) {int(in_use > 9)}" in verdict.evidence


class TestC9:
    def ratios(self, mean: float, left_out: Sequence[int] = (), noise: float = 0.01, seeds: int = ENOUGH) -> Runs:
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
        verdict = verdict_on("C9", self.ratios(1.0))
        assert verdict.verdict == "holds"
        assert "1.000, standard error 0.010, 10 seeds" in verdict.evidence

    def test_three_seeds_are_held_to_students_quantiles(self) -> None:
        # Within 0.1 by 3 standard errors; but 3 seeds exceed 3 standard errors by chance at one of ten.
        assert outcome("C9", self.ratios(1.0, noise=0.05, seeds=3)) == "undecided"
        assert outcome("C9", self.ratios(1.0, noise=0.01, seeds=3)) == "suggests it holds"

    @pytest.mark.parametrize("mean", [1.2, 0.8])
    def test_fails_where_it_is_more_and_where_it_is_less(self, mean: float) -> None:
        assert outcome("C9", self.ratios(mean)) == "fails"

    def test_is_undecided_where_an_excess_could_not_have_been_seen(self) -> None:
        assert outcome("C9", self.ratios(1.0, noise=0.5)) == "undecided"
        assert outcome("C9", self.ratios(1.0, seeds=2)) == "undecided"

    def test_is_untestable_without_audits_draws(self) -> None:
        verdict = verdict_on("C9", experiment(lambda *_: traces(6, 6)))
        assert verdict.verdict == "untestable"
        assert "tests/methods/test_proposal.py" in verdict.evidence

    def test_audits_at_which_examples_are_left_out_stand_apart_since_it_does_not_cover_them(self) -> None:
        verdict = verdict_on("C9", self.ratios(1.0, left_out=[1, 2]))
        assert verdict.verdict == "holds"
        assert "a mean a seed: 1.000, standard error 0.010" in verdict.evidence
        assert "does not cover: 1.700, standard error 0.000" in verdict.evidence


class TestC10:
    @pytest.mark.parametrize(
        ("losses", "expected"),
        [
            ([2.0, 1.0, 1.2, 1.5, 2.0], "holds"),
            ([2.0, 1.5, 1.2, 1.0, 1.1], "holds"),  # wherever the minimum lies
            ([2.0, 1.5, 1.0, 1.01, 1.01], "fails"),  # a rise that nobody could see
            ([2.0, 1.5, 1.2, 1.1, 1.0], "undecided"),  # still falling
        ],
    )
    def test_follows_the_rise_after_the_minimum(self, losses: list[float], expected: str) -> None:
        assert outcome("C10", experiment(lambda *_: {"audit/loss/valid": losses})) == expected

    def test_the_place_of_the_minimum_is_told(self) -> None:
        verdict = verdict_on("C10", experiment(lambda *_: {"audit/loss/valid": [2.0, 1.0, 1.2, 1.5, 2.0]}))
        assert "the minimum at this share of the run: 0.25" in verdict.evidence
        assert "told, not judged" in verdict.evidence
        assert verdict.brief == "(a): the validation loss rises by 100% from its minimum to the end."

    def test_is_untestable_without_audits(self) -> None:
        assert outcome("C10", experiment(lambda *_: {})) == "untestable"


class TestC11:
    @pytest.mark.parametrize(
        ("gradient", "bound", "expected"),
        [
            (0.1, 0.11, "holds"),
            (0.1, 3.0, "fails"),  # far from exact
            (3.0, 3.0, "fails"),  # exact, but not for the paper's reason
        ],
    )
    def test_wants_a_small_late_gradient_and_traces_close_to_exact(
        self, gradient: float, bound: float, expected: str
    ) -> None:
        def curves(setting: str, method: str, seed: int) -> Curves:
            return {
                "audit/gradient_norm2": [2.0, gradient],
                "gradient_norm2/bound": [3.0, bound],
                "audit/trace/ideal": [4.0, 4.0],
            }

        assert outcome("C11", experiment(curves)) == expected

    @pytest.mark.parametrize(("chunk", "told"), [(72, True), (2048, False)])
    def test_small_chunks_loosen_the_bound_which_is_told_not_judged(self, chunk: int, told: bool) -> None:
        curves = {
            "audit/gradient_norm2": [2.0, 0.1],
            "gradient_norm2/bound": [3.0, 3.0],
            "audit/trace/ideal": [4.0, 4.0],
        }
        runs = []
        for run in (make("a", "issgd", seed, curves) for seed in range(ENOUGH)):
            worker = run.config.worker.model_copy(update={"chunk_size": chunk})
            runs.append(replace(run, config=run.config.model_copy(update={"worker": worker})))
        verdict = verdict_on("C11", Runs("test", tuple(runs), ENOUGH))
        assert verdict.verdict == ("holds" if told else "fails")
        assert ("larger by as much" in verdict.evidence) == told

    def test_is_untestable_without_the_bound(self) -> None:
        assert outcome("C11", experiment(lambda *_: {"audit/gradient_norm2": [1.0]})) == "untestable"


class TestAReport:
    def test_every_claim_is_judged_in_order_even_without_runs(self) -> None:
        verdicts = judge(Runs("nothing", (), 4))
        assert [verdict.claim.id for verdict in verdicts] == [f"C{number}" for number in range(1, 12)]
        assert {verdict.claim.id for verdict in verdicts if verdict.verdict != "untestable"} == {"C8"}
        assert all(verdict.brief and not verdict.sensitivity for verdict in verdicts)
        assert as_json(verdicts, Runs("nothing", (), 4))["runs"] == "0 of 4 runs finished, 0 failed, 4 missing"

    def test_a_claim_is_made_of_the_runs_without_which_its_numbers_would_be_others(self) -> None:
        runs = experiment(
            lambda *names: {**losses(lambda setting, seed: 0.1)(*names), **traces(5 + (names[0] == "a"), 6)}, seeds=3
        )
        found = folders(runs)
        assert set(found["C1"]) == {"a-issgd-0", "a-sgd-0", "b-issgd-0", "b-sgd-0"}
        assert set(found["C6"]) == {"a-issgd-0", "b-issgd-0"}
        assert found["C3"] == found["C7"] == found["C8"] == []
        assert {claim["id"]: claim["folders"] for claim in as_json(judged(runs), runs)["claims"]} == found

    def test_claims_are_adjusted_for_each_other(self) -> None:
        def curves(*names: Any) -> Curves:
            return {**losses(lambda setting, seed: 0.1)(*names), **final_errors(0.09, 0.09)(*names), **traces(5, 6)}

        runs = experiment(curves)
        by_id = {verdict.claim.id: verdict for verdict in judge(runs)}
        tested = [verdict.p for verdict in by_id.values() if verdict.p is not None]
        assert len(tested) == 5  # C1, C3, C4, C5, C6
        assert by_id["C1"].p == 5 * 2 / 1024 > (verdict_on("C1", runs).p or 0)
        assert by_id["C1"].verdict == "holds"

    def test_what_one_claim_alone_would_decide_a_family_may_not(self) -> None:
        def finding(number: int, p: float) -> Finding:
            return Finding(Claim(f"C{number}", "", ""), [Part("", holds=p, seeds=ENOUGH)])

        assert weighed([finding(1, 0.02)])[0].verdict == "holds"
        assert [verdict.verdict for verdict in weighed([finding(1, 0.02), finding(2, 0.03), finding(3, 0.9)])] == [
            "suggests it holds",
            "suggests it holds",
            "undecided",
        ]

    def test_a_claim_of_two_parts_needs_both_and_pays_for_two_chances_to_fail(self) -> None:
        def verdict(*parts: Part) -> Verdict:
            return weighed([Finding(Claim("C", "", ""), parts)])[0]

        good, bad, nothing = Part("", holds=0.01, seeds=10), Part("", fails=0.03, seeds=10), Part("", seeds=10)
        assert verdict(good, good).verdict == "holds"
        assert verdict(good, nothing).verdict == "undecided"
        assert verdict(good, Part("")).verdict == "undecided"  # of which the runs say nothing
        assert (verdict(bad).verdict, verdict(good, bad).verdict) == ("fails", "undecided")
        assert verdict(good, bad).p == 0.06
        worse = Part("", fails=0.02, seeds=9)
        assert verdict(good, worse).verdict == "suggests it fails"

    def test_noise_in_several_parts_seldom_suggests_a_failure(self) -> None:
        """At 3 seeds one part of two would agree against the claim in a quarter of all cases."""
        random = np.random.default_rng(0)
        found = []
        for _ in range(400):
            parts = [PerSeed((0, 1, 2), random.standard_normal(3)).part("", "", of=0.0, claimed=-1) for _ in range(2)]
            found.append(weighed([Finding(Claim("C", "", ""), parts)])[0].verdict)
        assert "suggests it fails" not in found

    def test_thresholds_have_reasons_and_others_that_they_might_have_been(self) -> None:
        known = reasons(Thresholds())
        assert all(entry["reason"] for entry in known.values())
        changed = variations()
        assert changed["visible = 0.01"] == Thresholds(visible=0.01)
        assert {name.partition(" = ")[0] for name in changed} == {*known, "the other test"} - {"test"}
        assert as_json([], Runs("test", (), 0))["thresholds"]["reached"]["value"] == 0.01


class TestRunsThatDiverged:
    """They are told in words: nobody reads inf% or nan."""

    @staticmethod
    @functools.cache
    def whole() -> Runs:
        def curves(*names: Any) -> Curves:
            return {
                **losses(lambda setting, seed: 0.1)(*names),
                **final_errors(0.09, 0.11)(*names),
                **traces(5, 6),
                "audit/loss/valid": [2.0, 1.0, 1.5, 1.5, 2.0],
                "audit/estimator/error_ratio": [1.0] * 4,
                "audit/gradient_norm2": [2.0, 0.1],
                "gradient_norm2/bound": [3.0, 0.11],
            }

        runs = experiment(curves)
        limit = {"staleness_limit_seconds": 4.0}
        limited = [make("a", "issgd-limited", s, curves("a", "issgd", s), proposal=limit) for s in range(ENOUGH)]
        return replace(runs, runs=(*runs.runs, *limited))

    @pytest.mark.parametrize("count", [1, 5, 9, 10])
    @pytest.mark.parametrize("groups", [[("a", "issgd")], [("b", "sgd")], [("a", "issgd"), ("b", "issgd-limited")]])
    def test_no_sentence_holds_a_number_that_is_none(self, groups: Sequence[tuple[str, str]], count: int) -> None:
        runs = self.whole()
        for group in groups:
            runs = diverged(runs, *group, range(count))
        verdicts = judged(runs)
        told = [verdict.brief + verdict.evidence for verdict in verdicts]
        page = report.report(runs, verdicts, []) + report.other_methods(runs)
        for text in (*told, page):
            assert not re.search(r"\b(inf|nan)\b", text), text

    def test_who_diverged_is_named(self) -> None:
        ours = {verdict.claim.id: verdict for verdict in judged(diverged(self.whole(), "a", "issgd", range(9)))}
        assert ours["C1"].brief == "(a): mean training loss, ISSGD beside SGD: ISSGD diverged."
        assert "ISSGD minus SGD, relative to SGD's: ISSGD diverged (97.9% interval" in ours["C1"].evidence
        assert "(b) minus (a): (a) diverged" in ours["C6"].evidence
        assert ours["C7"].brief.endswith("with and without the limit, difference: one of the two diverged.")
        theirs = {verdict.claim.id: verdict for verdict in judged(diverged(self.whole(), "b", "sgd", range(9)))}
        assert "(b): mean training loss, ISSGD minus SGD, relative to SGD's: SGD diverged" in theirs["C1"].evidence

    def test_the_headline_names_them_too(self) -> None:
        runs = diverged(diverged(self.whole(), "a", "issgd", range(6)), "b", "sgd", range(9))
        head = report.headline(runs, judged(runs))
        assert "In (a) ISSGD diverged in 6 of 10 seeds. In (b) SGD diverged in 9 of 10 seeds." in head
        runs = diverged(diverged(self.whole(), "a", "issgd", range(5)), "a", "sgd", range(5, 10))
        head = report.headline(runs, judged(runs))
        assert "In (a) ISSGD diverged in 5 of 10 seeds and SGD diverged in 5 of 10 seeds. In (b) ISSGD's" in head


class TestSensitivity:
    @staticmethod
    def of(claim: str, runs: Runs) -> Mapping[str, str]:
        return {verdict.claim.id: verdict.sensitivity for verdict in judge(runs)}[claim]

    def test_nothing_flips_where_all_is_clear(self) -> None:
        runs = experiment(losses(lambda setting, seed: 0.3, quantity="audit/error/train"))
        assert self.of("C2", runs) == {}

    def test_another_threshold(self) -> None:
        # 4% of SGD's mean.
        runs = experiment(losses(lambda setting, seed: -0.056, quantity="audit/error/train"))
        assert verdict_on("C2", runs).values["a"]["relative_difference"]["median"] == pytest.approx(-0.04, abs=0.001)
        assert self.of("C2", runs) == {"visible = 0.05": "fails"}

    def test_another_test(self) -> None:
        # All but one seed agree, that one by far: its weight moves a mean and no median.
        runs = experiment(losses(lambda s, seed: -9.0 if seed == 0 else 0.3, quantity="audit/error/train"), seeds=14)
        assert outcome("C2", runs) == "holds"
        assert self.of("C2", runs)["the other test"] == "undecided"

    def test_a_seed_left_out(self) -> None:
        # One of seven disagrees, so that it is undecided; without it six agree.
        runs = experiment(losses(lambda s, seed: -0.9 if seed == 3 else 0.3, quantity="audit/error/train"), seeds=7)
        assert outcome("C2", runs) == "undecided"
        assert self.of("C2", runs) == {"without seed 3": "suggests it holds"}

    @pytest.mark.parametrize("seeds", [3, 10])
    def test_a_seed_fewer_alone_turns_nothing(self, seeds: int) -> None:
        runs = experiment(losses(lambda setting, seed: 0.3, quantity="audit/error/train"), seeds)
        assert not [name for name in self.of("C2", runs) if name.startswith("without")]


class TestTheRuns:
    def test_unfinished_ones_are_always_told(self) -> None:
        states: tuple[State, ...] = ("finished", "failed", "interrupted", "running")
        runs = Runs("test", tuple(make("a", "sgd", seed, {}, state=state) for seed, state in enumerate(states)), 6)
        assert runs.tally() == "1 of 6 runs finished, 1 failed, 2 unfinished, 2 missing"

    @pytest.mark.parametrize(
        ("proposal", "expected"),
        [
            ({}, True),
            ({"limit_mode": "fill"}, True),  # without a limit: drop, but for the first sweep
            ({"limit_mode": "fill", "staleness_limit_versions": 3}, False),
            ({"smoothing": "variance-optimal"}, False),
            ({"source": "shuffled"}, False),
        ],
    )
    def test_the_papers_methods_are_known_by_what_they_are(self, proposal: dict[str, Any], expected: bool) -> None:
        assert is_papers(make("a", "issgd", 0, {}, proposal=proposal)) == expected

    def test_whatever_their_labels(self) -> None:
        runs = experiment(losses(lambda setting, seed: 0.1))
        renamed = {"issgd": "three workers", "sgd": "baseline"}
        other = replace(runs, runs=tuple(replace(run, method=renamed[run.method]) for run in runs.runs))
        assert (other.label("issgd"), other.label("sgd")) == ("three workers", "baseline")
        assert outcome("C1", other) == "holds"

    def test_of_several_that_could_be_the_papers_none_is_unless_it_has_the_name(self) -> None:
        few, many = make("a", "issgd-few", 0, {}), make("a", "issgd-many", 0, {})
        assert Runs("test", (few, many), 2).label("issgd") == ""
        assert Runs("test", (few, many), 2).of_first("a", "issgd") == ()
        assert Runs("test", (few, many, make("a", "issgd", 0, {})), 3).label("issgd") == "issgd"

    @pytest.mark.parametrize("claim", ["C10", "C11"])
    def test_who_named_none_issgd_is_told_so_and_not_that_there_are_no_audits(self, claim: str) -> None:
        curves = {"audit/loss/valid": [2.0, 1.0, 1.5]}
        few, many = make("a", "issgd-few", 0, curves), make("a", "issgd-many", 0, curves)
        several = verdict_on(claim, Runs("test", (few, many), 2))
        assert several.brief.startswith("Several methods may be the paper's ISSGD (issgd-few, issgd-many): ")
        assert "has audits" in verdict_on(claim, Runs("test", (make("a", "issgd", 0, {}),), 1)).brief

    def test_other_methods_are_compared_with_both_of_the_papers_and_not_judged(self) -> None:
        papers = experiment(losses(lambda setting, seed: 0.1), settings="a")
        proposal = {"smoothing": "variance-optimal"}
        curve = {"audit/loss/train": shifted(FALLING, -0.076)}  # a tenth of SGD's mean
        ours = [make("a", "issgd-optimal", seed, curve, proposal=proposal) for seed in range(ENOUGH)]
        found = comparisons(replace(papers, runs=(*papers.runs, *ours)))
        assert [(each.setting, each.method, each.against) for each in found] == [
            ("a", "issgd-optimal", "SGD"),
            ("a", "issgd-optimal", "ISSGD"),
        ]
        assert found[0].difference.median == pytest.approx(-0.11, abs=0.01)
        assert comparisons(papers) == []

    def test_settings_stand_for_the_papers_by_name_or_by_the_rate(self) -> None:
        runs = experiment(lambda *_: {})
        assert paper_settings(runs) == ("a", "b")
        names = {"a": "fast", "b": "slow"}
        other = replace(runs, runs=tuple(replace(run, setting=names[run.setting]) for run in runs.runs))
        assert paper_settings(other) == ("fast", "slow")
        assert paper_settings(on_two_datasets(runs)) is None


def test_the_distance_of_two_curves_is_the_area_between_them_over_the_shared_part() -> None:
    left = make("a", "issgd", 0, {"loss": [1.0, 1.0, 1.0]})
    right = make("a", "sgd", 0, {"loss": [3.0, 2.0]})
    assert mean_difference("loss", "steps")(left, right) == pytest.approx(-1.5)
    assert difference([left], [right], mean_difference("loss", "steps", relative=True)).median == pytest.approx(-0.6)


def test_numbers_of_few_seeds_are_listed_and_of_more_have_their_interval() -> None:
    few = PerSeed((0, 2, 5), np.array([-1.0, -2.0, 3.0]))
    assert few.text() == "-1, -2, 3 (seeds 0, 2, 5), negative in 2 of 3 seeds"
    many = PerSeed(tuple(range(10)), np.arange(10.0))
    assert many.text(of=20.0) == "4.5 (97.9% interval 1 to 8; 10 seeds), below 20 in 10 of 10 seeds"
    assert many.plain()["coverage"] == pytest.approx(1 - 22 / 1024)
