"""Verdicts on the claims of the papers that followed come out of traces made for them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from issgd_cli.claims import FINDERS, Run, Runs, findings, folders, judge
from issgd_cli.claims.contests import ROLES, Contest, playing
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import Verdict, weighed
from issgd_cli.config.validation import resolve
from issgd_cli.registries import METHODS
from issgd_cli.runs.traces import Row

SEEDS = 10
STEPS = 40
FALLING = np.array([2.0, 1.0, 0.5, 0.2, 0.1])


def run_of(
    label: str, seed: int, curves: Mapping[str, ArrayLike], pace: float = 1.0, **sections: Mapping[str, Any]
) -> Run:
    """A run of method `label` up to a colon, with these values at steps 0, 10, 20, ..."""
    values: dict[str, Any] = {"seed": seed, "data": {"name": "mnist"}, "proposal": {"method": label.partition(":")[0]}}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    rows = [
        Row(10 * place, pace * 10 * place, quantity, float(value))
        for quantity, found in curves.items()
        for place, value in enumerate(np.asarray(found))
    ]
    manifest = {"state": "finished", "dataset": {"train": 1_000, "valid": 100, "test": 100}}
    trace = pd.DataFrame(rows, columns=list(Row._fields))
    path = Path("results/test") / f"{label}-0" / f"seed-{seed:03d}"
    return Run(path, "", label, seed, "finished", resolve(values, "test"), manifest, trace)


def group(label: str, times: float, what: str = "loss/train", **more: Any) -> list[Run]:
    """Ten runs whose curve is so many times the usual one, a little different in each seed."""
    return [
        run_of(label, seed, {f"audit/{what}": FALLING * times * (1 + 0.001 * seed)}, **more) for seed in range(SEEDS)
    ]


def runs_of(*groups: Sequence[Run]) -> Runs:
    runs = tuple(run for each in groups for run in each)
    return Runs("test", runs, len(runs))


def verdict_on(claim: str, runs: Runs) -> Verdict:
    return weighed([FINDERS[claim](runs, Thresholds())])[0]


def outcome(claim: str, runs: Runs) -> str:
    return verdict_on(claim, runs).verdict


def test_every_role_is_of_a_method_that_there_is_and_no_run_has_two() -> None:
    for label in METHODS:
        one = run_of(label, 0, {})
        assert sum(plays(one) for plays in ROLES.values()) <= 1
    whole = run_of("reshuffled", 0, {}, master={"minibatch_size": 1_000})
    assert [role for role, plays in ROLES.items() if plays(whole)] == ["the exact gradient"]
    pruned = run_of("pruning", 0, {}, pruning={"by": "random"})
    assert [role for role, plays in ROLES.items() if plays(pruned)] == ["random pruning"]


def test_a_role_is_played_by_the_label_that_is_its_methods_name_and_by_nobody_where_there_are_several() -> None:
    plain, other = group("online", 1.0), group("online:2", 1.0)
    assert playing(runs_of(plain, other), "", "IS") == tuple(plain)
    assert playing(runs_of(other), "", "IS") == tuple(other)
    assert playing(runs_of(other, group("online:3", 1.0)), "", "IS") == ()
    assert playing(runs_of(plain), "", "LOW") == ()


def test_the_claims_of_a_report_are_those_of_the_papers_whose_methods_were_run() -> None:
    def claims(*labels: str) -> str:
        found = findings(runs_of(*(group(label, 1.0) for label in labels)), Thresholds())
        return "".join(dict.fromkeys(finding.claim.id[0] for finding in found))

    assert claims("issgd", "sgd") == claims("sgd") == claims("reshuffled", "dlis") == "C"
    assert claims("online", "sgd") == claims("pruning") == "D"
    assert claims("issgd", "online") == "CD"


class TestContest:
    @pytest.mark.parametrize(
        ("times", "as_good", "expected"),
        [
            (0.9, False, "holds"),
            (0.99, False, "fails"),  # not visibly
            (1.1, False, "fails"),
            (1.01, True, "holds"),
            (1.1, True, "fails"),
        ],
    )
    def test_is_won_visibly_or_not_lost_visibly(self, times: float, as_good: bool, expected: str) -> None:
        runs = runs_of(group("online", times), group("sgd", 1.0))
        part, values = Contest("IS", "uniform", as_good=as_good).part(runs, "", Thresholds())
        assert part.tends() == f"suggests it {expected}"
        assert values["median"] == pytest.approx(times - 1)

    def test_at_equal_seconds_a_slower_method_has_less_of_the_way_behind_it(self) -> None:
        runs = runs_of(group("online", 0.9, pace=3.0), group("sgd", 1.0))
        by_steps, by_seconds = (
            Contest("IS", "uniform", axis=axis).part(runs, "", Thresholds())[1]["median"]
            for axis in ("steps", "seconds")
        )
        assert by_steps < 0 < by_seconds

    def test_one_that_diverged_has_lost(self) -> None:
        failed = {"state": "failed", "failure": {"actor": "master", "reason": "The loss is not finite at step 7"}}
        lost = [replace(run, state="failed", manifest=failed) for run in group("online", 0.5)]
        part, values = Contest("IS", "uniform").part(runs_of(lost, group("sgd", 1.0)), "", Thresholds())
        assert part.tends() == "suggests it fails"
        assert values["median"] == np.inf


def test_d1_is_judged_against_whichever_baselines_were_run() -> None:
    faster, with_replacement = group("online", 0.9), group("sgd", 1.0)
    assert outcome("D1", runs_of(faster, with_replacement)) == "holds"
    assert outcome("D1", runs_of(faster, with_replacement, group("reshuffled", 0.8))) == "fails"
    assert outcome("D1", runs_of(faster)) == "untestable"


@pytest.mark.parametrize(
    ("claim", "sections"),
    [
        ("D2", {"data": {"name": "cifar100"}}),
        ("D3", {"data": {"name": "cifar10"}, "model": {"network": "vit"}}),
    ],
)
def test_d2_and_d3_are_told_elsewhere_and_judged_where_they_are_about(claim: str, sections: dict[str, Any]) -> None:
    def groups(**more: Any) -> Runs:
        others = [group(label, 1.0, "error/test", **more) for label in ("low", "dlis", "sgd")]
        return runs_of(group("online", 0.8, "error/test", **more), *others)

    assert outcome(claim, groups(**sections)) == "holds"
    told = verdict_on(claim, groups())
    assert told.verdict == "untestable"
    assert "told, not judged" in told.evidence
    assert "-0.2" in told.evidence


class TestD4:
    def pruned(self, error: float, kept: Sequence[float], by: str = "importance") -> list[Run]:
        """An error that falls from 1 to this at a fifth of the way and stays there."""
        # Of minibatches of 128 from 1,000.
        made = 1.28 * np.cumsum([0, *(1 / np.asarray(kept[:-1]))])
        errors, left = np.array([1.0, *[error] * 4]), [1.0, kept[-1]]
        return [
            run_of(
                f"pruning:{by}",
                seed,
                {"audit/error/test": errors + 1e-4 * seed, "audit/epochs": made, "proposal/kept_fraction": left},
                pruning={"by": by},
            )
            for seed in range(SEEDS)
        ]

    def plain(self) -> list[Run]:
        return [run_of("online", seed, {"audit/error/test": [1.0, 0.5, 0.4, 0.3, 0.2]}) for seed in range(SEEDS)]

    def test_holds_with_fewer_steps_and_the_same_error_and_less_than_by_random(self) -> None:
        runs = runs_of(self.pruned(0.2, [1.0, 0.5, 0.5, 0.5, 0.5]), self.plain(), self.pruned(0.3, [1.0] * 5, "random"))
        verdict = verdict_on("D4", runs)
        assert verdict.verdict == "holds"
        # An epoch's worth of draws each 10 steps, then two each 10: as many epochs as in 40 plain steps after 25.
        assert verdict.values[""]["steps"]["median"] == pytest.approx(25 / STEPS, abs=0.01)

    @pytest.mark.parametrize(
        ("error", "kept", "of_random"), [(0.25, 0.5, 0.3), (0.2, 1.0, 0.3), (0.2, 0.5, 0.1)], ids=str
    )
    def test_fails_by_any_of_its_parts(self, error: float, kept: float, of_random: float) -> None:
        others = self.plain(), self.pruned(of_random, [1.0] * 5, "random")
        assert outcome("D4", runs_of(self.pruned(error, [1.0] + [kept] * 4), *others)) == "fails"

    def test_without_pruning_there_is_nothing_to_tell(self) -> None:
        assert outcome("D4", runs_of(self.plain())) == "untestable"


@pytest.mark.parametrize(("correlation", "expected"), [(0.95, "holds"), (0.6, "fails")])
def test_d5_is_the_median_correlation_over_the_audits(correlation: float, expected: str) -> None:
    curves = {
        "audit/rank_correlation": [correlation] * 3 + [0.0],
        "audit/trace/by_outputs": [4.0, 4.0, 4.0, 4.0],
        "audit/trace/uniform": [16.0] * 4,
        "audit/trace/ideal": [1.0] * 4,
    }
    runs = runs_of([run_of("online", seed, curves) for seed in range(SEEDS)])
    verdict = verdict_on("D5", runs)
    assert verdict.verdict == expected
    assert verdict.values["online"]["root_of_uniform"]["median"] == 0.5
    assert verdict.values["online"]["root_of_ideal"]["median"] == 2


@pytest.mark.parametrize(("of_large", "expected"), [(1.01, "holds"), (1.2, "fails")])
def test_d6_compares_each_alpha_with_none(of_large: float, expected: str) -> None:
    alphas = {0.0: 1.0, 0.1: 0.99, 0.3: of_large}
    groups = [group(f"online:{alpha}", times, online={"alpha": alpha}) for alpha, times in alphas.items()]
    assert outcome("D6", runs_of(*groups)) == expected
    assert outcome("D6", runs_of(*groups[1:])) == "untestable"


def test_the_folders_behind_a_claim_are_those_without_which_its_numbers_are_others() -> None:
    runs = runs_of(group("online", 0.9), group("sgd", 1.0), group("low", 1.0))
    made_of = folders(runs)
    assert made_of["D1"] == ["online-0", "sgd-0"]
    assert made_of["D4"] == []
    assert [verdict.claim.id for verdict in judge(runs)] == [f"D{number}" for number in range(1, 7)]


def polynomial(label: str, times: float, **more: Any) -> list[Run]:
    """Ten runs on polynomial regression."""
    model = {"network": "polynomial", "loss": "squared"}
    return group(label, times, data={"name": "polynomial"}, model=model, **more)


@pytest.mark.parametrize(
    ("omis", "online", "expected"), [(1.01, 1.2, "holds"), (1.1, 1.2, "fails"), (1.01, 1.02, "fails")]
)
def test_m1_is_an_order_with_omis_as_good_as_the_exact_gradient(omis: float, online: float, expected: str) -> None:
    exact = polynomial("reshuffled:exact", 1.0, master={"minibatch_size": 1_000})
    rest = (polynomial("mis", 1.3), polynomial("sgd", 1.5))
    runs = runs_of(polynomial("omis", omis), polynomial("online", online), exact, *rest)
    assert outcome("M1", runs) == expected


@pytest.mark.parametrize(("pace", "expected"), [(1.0, "holds"), (3.0, "fails")])
def test_m2_is_along_both_axes(pace: float, expected: str) -> None:
    groups = [group(*each, "error/test") for each in (("online", 0.8), ("dlis", 1.0))]
    assert outcome("M2", runs_of(group("omis", 0.6, "error/test", pace=pace), *groups)) == expected


def test_m3_and_m4_are_told_elsewhere_and_judged_on_their_networks() -> None:
    def groups(**more: Any) -> Runs:
        return runs_of(group("omis", 0.8, pace=3.0, **more), group("online", 0.9, **more), group("sgd", 1.0, **more))

    assert outcome("M3", groups(model={"network": "pointnet"})) == "holds"
    assert outcome("M4", groups(model={"network": "siren"})) == "holds"
    assert {outcome(claim, groups()) for claim in ("M3", "M4")} == {"untestable"}
    # IS is of the paper before, of whose claims these runs tell, too.
    ids = [*(f"D{number}" for number in range(1, 7)), *(f"M{number}" for number in range(1, 5))]
    assert [verdict.claim.id for verdict in judge(groups())] == ids
