"""A fresh experiment beside its reference: agreement is of verdicts, and differences are held against the seeds'."""

import json
from pathlib import Path
from typing import Any

import pytest

from issgd_cli.claims.reference import as_markdown, compared, read
from issgd_cli.claims.verdicts import Claim, Outcome, Verdict
from issgd_cli.errors import RunError


def numbers(*values: float) -> dict[str, Any]:
    return {"seeds": list(range(len(values))), "values": list(values)}


def verdict(outcome: Outcome, **values: Any) -> Verdict:
    return Verdict(Claim("C1", "It is so.", "Fig. 2"), outcome, 0.01, "It is.", "", values)


def reference(outcome: str, **values: Any) -> dict[str, Any]:
    return {"claims": [{"id": "C1", "verdict": outcome, "values": values}]}


LOW, HIGH = [0.1 * value for value in range(10)], [5 + 0.1 * value for value in range(10)]


@pytest.mark.parametrize(
    ("there", "here", "agrees"),
    [
        ("holds", "holds", True),
        ("holds", "suggests it holds", True),
        ("suggests it fails", "fails", True),
        ("holds", "fails", False),
        ("holds", "undecided", False),
        ("untestable", "undecided", False),
    ],
)
def test_a_verdict_and_its_suggestion_agree(there: str, here: Outcome, agrees: bool) -> None:
    (row,) = compared([verdict(here)], reference(there))
    assert row.agrees == agrees
    assert row.p is None
    assert row.explained


def test_numbers_are_found_wherever_they_stand_and_named() -> None:
    here = verdict("holds", a={"gap": numbers(*HIGH)}, b={"gap": numbers(*LOW)})
    (row,) = compared([here], reference("holds", a={"gap": numbers(*LOW)}, b={"gap": numbers(*LOW)}))
    assert row.number == "a.gap"
    assert row.p is not None
    assert row.p < 0.001
    assert not row.explained
    assert "| C1 | holds | holds | agrees | **further apart than seeds explain**: a.gap (p = " in as_markdown([row])


def test_the_same_seeds_of_a_simulated_experiment_are_explained() -> None:
    (row,) = compared([verdict("holds", gap=numbers(*LOW))], reference("holds", gap=numbers(*LOW)))
    assert (row.p, row.explained) == (1.0, True)


def test_few_seeds_explain_much() -> None:
    (row,) = compared([verdict("holds", gap=numbers(1, 2, 3))], reference("holds", gap=numbers(7, 8, 9)))
    assert row.explained  # three against three can be no rarer than one in ten


def test_many_numbers_are_one_family() -> None:
    names = [f"n{number}" for number in range(20)]
    here = {name: numbers(1, 2, 3, 4, 5) for name in names}
    there = {name: numbers(1, 2, 3, 4, 5) for name in names} | {"n7": numbers(3, 4, 5, 6, 7.5)}
    alone = compared([verdict("holds", n7=here["n7"])], reference("holds", n7=there["n7"]))[0]
    beside = compared([verdict("holds", **here)], reference("holds", **there))[0]
    assert alone.p is not None
    assert beside.p is not None
    assert beside.p > alone.p


def test_what_cannot_be_compared_is_left_out() -> None:
    """A claim that the reference does not know, a number of another name, a seed without a value."""
    other: dict[str, Any] = {"claims": []}
    assert compared([verdict("holds", gap=numbers(1, 2))], other)[0].there == ""
    (row,) = compared([verdict("holds", gap=numbers(1, 2))], reference("holds", old=numbers(1, 2)))
    assert row.p is None
    (row,) = compared([verdict("holds", gap=numbers(1, 2))], reference("holds", gap={"seeds": [0], "values": [None]}))
    assert row.p is None


@pytest.mark.parametrize("content", ["", "[]", '{"claims": 3}', "{"])
def test_a_reference_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "claims.json"
    path.write_text(content)
    with pytest.raises(RunError, match=r"is no claims\.json of a reference"):
        read(path)
    path.write_text(json.dumps(reference("holds")))
    assert read(path)["claims"]
