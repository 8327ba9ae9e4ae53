"""A fresh experiment beside its reference: agreement is of verdicts, and differences are held against the seeds'."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from issgd_cli.claims.reference import Compared, as_markdown, compared, other_runs, read
from issgd_cli.claims.verdicts import Claim, Outcome, Verdict
from issgd_cli.errors import RunError
from issgd_cli.figures import outputs

RUNS = ("a-issgd-434ec071", "a-sgd-49ca9590")


def numbers(*values: float) -> dict[str, Any]:
    return {"seeds": list(range(len(values))), "values": list(values)}


def verdict(outcome: Outcome, **values: Any) -> Verdict:
    return Verdict(Claim("C1", "It is so.", "Fig. 2"), outcome, 0.01, "It is.", "", values)


def reference(outcome: str, folders: Sequence[str] = RUNS, **values: Any) -> dict[str, Any]:
    return {"claims": [{"id": "C1", "verdict": outcome, "folders": list(folders), "values": values}]}


def beside(verdicts: Sequence[Verdict], there: Mapping[str, Any], folders: Sequence[str] = RUNS) -> list[Compared]:
    return compared(verdicts, {verdict.claim.id: folders for verdict in verdicts}, there)


LOW, HIGH = [0.1 * value for value in range(10)], [5 + 0.1 * value for value in range(10)]


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        ("holds", "holds", "agrees"),
        ("holds", "suggests it holds", "agrees"),
        ("suggests it fails", "fails", "agrees"),
        ("holds", "fails", "differs"),
        ("holds", "undecided", "differs"),
        ("untestable", "undecided", "differs"),
    ],
)
def test_a_verdict_and_its_suggestion_agree(there: str, here: Outcome, said: str) -> None:
    (row,) = beside([verdict(here)], reference(there))
    assert row.said == said
    assert row.p is None
    assert row.explained


def test_numbers_are_found_wherever_they_stand_and_named() -> None:
    here = verdict("holds", a={"gap": numbers(*HIGH)}, b={"gap": numbers(*LOW)})
    (row,) = beside([here], reference("holds", a={"gap": numbers(*LOW)}, b={"gap": numbers(*LOW)}))
    assert row.number == "a.gap"
    assert row.p is not None
    assert row.p < 0.001
    assert not row.explained
    assert "| C1 | holds | holds | agrees | **further apart than seeds explain**: a.gap (p = " in as_markdown([row])


def test_the_same_seeds_of_a_simulated_experiment_are_explained() -> None:
    (row,) = beside([verdict("holds", gap=numbers(*LOW))], reference("holds", gap=numbers(*LOW)))
    assert (row.p, row.explained) == (1.0, True)


def test_few_seeds_explain_much() -> None:
    (row,) = beside([verdict("holds", gap=numbers(1, 2, 3))], reference("holds", gap=numbers(7, 8, 9)))
    assert row.explained  # three against three can be no rarer than one in ten


def test_many_numbers_are_one_family() -> None:
    names = [f"n{number}" for number in range(20)]
    here = {name: numbers(1, 2, 3, 4, 5) for name in names}
    there = {name: numbers(1, 2, 3, 4, 5) for name in names} | {"n7": numbers(3, 4, 5, 6, 7.5)}
    alone = beside([verdict("holds", n7=here["n7"])], reference("holds", n7=there["n7"]))[0]
    several = beside(
        [verdict("holds", **here)], {"claims": [{"id": "C1", "verdict": "holds", "folders": RUNS, "values": there}]}
    )[0]
    assert alone.p is not None
    assert several.p is not None
    assert several.p > alone.p


def test_what_cannot_be_compared_is_left_out() -> None:
    """A claim that the reference does not know, a number of another name, a seed without a value."""
    other: dict[str, Any] = {"claims": []}
    assert beside([verdict("holds", gap=numbers(1, 2))], other)[0].there == ""
    (row,) = beside([verdict("holds", gap=numbers(1, 2))], reference("holds", old=numbers(1, 2)))
    assert row.p is None
    (row,) = beside([verdict("holds", gap=numbers(1, 2))], reference("holds", gap={"seeds": [0], "values": [None]}))
    assert row.p is None


def test_several_claims_are_one_family() -> None:
    """Each of ten is as far apart as one of twenty by chance: together they show nothing."""
    here, there = numbers(1, 2, 3, 4, 5), numbers(4, 4.5, 5.5, 6, 7)
    names = [f"C{number}" for number in range(10)]
    verdicts = [replace(verdict("holds", gap=here), claim=Claim(name, "", "")) for name in names]
    claims = [{"id": name, "verdict": "holds", "folders": RUNS, "values": {"gap": there}} for name in names]
    (alone,) = beside(verdicts[:1], {"claims": claims[:1]})
    together = beside(verdicts, {"claims": claims})
    assert alone.p is not None
    assert alone.p < 0.05
    assert not alone.explained
    assert [row.p for row in together] == [pytest.approx(min(1, 10 * alone.p))] * 10
    assert all(row.explained for row in together)


def test_of_other_runs_nothing_is_compared_and_which_is_said() -> None:
    here, there = verdict("holds", gap=numbers(*LOW)), reference("fails", ("a-issgd-12345678", RUNS[1]))
    there["claims"][0]["values"] = {"gap": numbers(*HIGH)}
    (row,) = beside([here], there)
    assert (row.said, row.p, row.explained) == ("other runs", None, True)
    said = other_runs([row])
    assert said == (
        "The reference is of other runs than these (only there: a-issgd-12345678; only here: a-issgd-434ec071), so "
        "that C1 cannot be compared."
    )
    assert as_markdown([row]).startswith(f"{said}\n\n| claim ")
    assert "| C1 | fails | holds | other runs | none to compare |" in as_markdown([row])
    assert other_runs(beside([here], reference("holds", gap=numbers(*LOW)))) == ""


def test_claims_of_the_same_runs_are_compared_though_others_are_not() -> None:
    verdicts = [replace(verdict("holds", gap=numbers(*LOW)), claim=Claim(name, "", "")) for name in ("C1", "C2")]
    values = {"gap": numbers(*HIGH)}
    claims = [
        {"id": "C1", "verdict": "holds", "folders": RUNS, "values": values},
        {"id": "C2", "verdict": "holds", "folders": [*RUNS, "b-sgd-00000000"], "values": values},
    ]
    one, other = beside(verdicts, {"claims": claims})
    assert (one.said, one.explained) == ("agrees", False)
    assert (other.said, other.only_there) == ("other runs", ("b-sgd-00000000",))


def test_an_older_reference_is_of_the_runs_that_its_manifests_name(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    path.write_text(json.dumps({"claims": [{"id": "C1", "verdict": "holds", "values": {"gap": numbers(*LOW)}}]}))
    with pytest.raises(RunError, match=r"manifests\.json"):
        read(path)
    seeds: dict[str, Any] = {f"quick/{folder}/seed-00{seed}": {} for folder in RUNS for seed in range(3)}
    path.with_name("manifests.json").write_text(json.dumps(seeds))
    here = [verdict("holds", gap=numbers(*LOW))]
    assert beside(here, read(path))[0].said == "agrees"
    assert beside(here, read(path), RUNS[:1])[0].said == "other runs"


def test_runs_that_diverged_are_read_back_as_such(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(outputs.finite(reference("fails", gap=numbers(*[math.inf] * 8, -math.inf, 0.5)))))
    (row,) = beside([verdict("fails", gap=numbers(*[math.inf] * 8, -math.inf, 0.5))], read(path))
    assert row.p == 1.0  # the same numbers
    (row,) = beside([verdict("holds", gap=numbers(*LOW))], read(path))
    assert row.p is not None
    (lost,) = beside([verdict("holds", gap=numbers(*HIGH))], reference("fails", gap={**numbers(1.0), "values": [None]}))
    assert lost.p is None  # what an older file no longer knows


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", '{"claims": 3}', "{", '{"claims": [3]}', '{"claims": [{"id": "C1"}]}', "BAD"),
        '{"claims": [{"id": "C1", "verdict": "holds", "folders": [], "values": [1]}]}',
    ],
)
def test_a_reference_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "claims.json"
    bad = json.dumps(reference("holds", gap={"seeds": [0], "values": ["much"]}))
    path.write_text(bad if content == "BAD" else content)
    with pytest.raises(RunError, match=r"is no claims\.json of a reference"):
        read(path)
    path.write_text(json.dumps(reference("holds")))
    assert read(path)["claims"]
