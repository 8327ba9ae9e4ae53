"""Exact p-values of few seeds, Holm's adjustment, and how often a whole report finds what is not there."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from issgd_cli.claims.chances import LEVEL, Test, holm, least, sides
from issgd_cli.claims.verdicts import Claim, Finding, Outcome, Part, PerSeed, weighed

DECIDED = {"holds", "fails"}


@pytest.mark.parametrize("seeds", [3, 6, 9, 10, 15])
def test_signs_are_tested_by_the_binomial_distribution(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(size=seeds)
    expected = [
        stats.binomtest(int(count), seeds, 0.5, alternative="greater").pvalue
        for count in ((values < 0.3).sum(), (values > 0.3).sum())
    ]
    np.testing.assert_allclose(sides(values, 0.3), np.minimum(1, 2 * np.array(expected)))


def test_a_value_at_the_threshold_speaks_for_neither_side() -> None:
    assert sides([1.0] * 10, 1.0) == (1.0, 1.0)
    assert sides([0.0] * 9 + [1.0], 1.0) == sides([0.0] * 9 + [2.0], 1.0)


@pytest.mark.parametrize("test", ["sign", "student"])
def test_a_value_at_a_threshold_that_is_to_be_reached_has_reached_it(test: Test) -> None:
    part = PerSeed(tuple(range(10)), np.full(10, 19 / 20)).part_at_least("", "", 0.95, test)
    assert (part.holds, part.fails) == ((least(10) if test == "sign" else 0.0), 1.0)


def test_runs_that_diverged_count_by_their_side() -> None:
    assert sides([1.0, 2.0, np.inf], 0.0) == (1.0, 0.25)
    assert sides([1.0, 2.0, np.inf], 0.0, "student") == (1.0, 0.25)  # which has no use for infinities


def test_numbers_that_are_none_say_nothing() -> None:
    assert sides([1.0, 2.0, 3.0, np.nan], 0.0) == sides([1.0], 0.0) == sides([], 0.0) == (1.0, 1.0)


def test_students_test_is_two_sided() -> None:
    values = np.random.default_rng(0).normal(0.5, size=8)
    assert sides(values, 0.0, "student")[1] == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)
    assert sides([2.0, 2.0, 2.0], 1.0, "student") == (1.0, 0.0)
    assert sides([1.0, 1.0, 1.0], 1.0, "student") == (1.0, 1.0)


def test_the_least_p_value_is_that_of_seeds_which_all_agree() -> None:
    assert [least(seeds) for seeds in (1, 3, 6)] == [1.0, 0.25, 0.03125]
    assert sides(np.ones(10), 0.0)[1] == least(10)


def test_ten_seeds_are_the_least_that_decide_among_a_reports_claims() -> None:
    tested = 10  # eleven, of which C8 is proved
    assert tested * least(10) < LEVEL < 2 * tested * least(9)


def test_holms_method_multiplies_each_by_how_many_are_left() -> None:
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 may not be below the one before it.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    assert holm([]).size == 0


def found(number: int, parts: Sequence[Part]) -> Finding:
    return Finding(Claim(f"C{number}", "", ""), parts)


def made(values: np.ndarray[tuple[int], np.dtype[np.float64]], kind: str) -> Part:
    """A part of a claim about these numbers."""
    numbers = PerSeed(tuple(range(len(values))), values)
    if kind == "within":  # at the margin's end, where both verdicts would be wrong
        return numbers.part_within("", "", 1.0)
    return numbers.part("", "", 0.0, -1, "student" if kind == "student" else "sign")


def outcomes(random: np.random.Generator, seeds: int, claims: Sequence[Sequence[str]]) -> list[Outcome]:
    """Verdicts of a report in whose claims there is nothing: every number is as likely above its threshold as below."""
    findings = []
    for number, kinds in enumerate(claims):
        parts = [made(random.normal(1.0 if kind == "within" else 0.0, 0.2, seeds), kind) for kind in kinds]
        findings.append(found(number, parts))
    return [verdict.verdict for verdict in weighed(findings)]


def test_three_seeds_never_decide_anything() -> None:
    random = np.random.default_rng(1)
    said = [outcome for _ in range(300) for outcome in outcomes(random, 3, [["sign", "sign"], ["student"]])]
    assert not DECIDED & set(said)
    assert {"suggests it fails", "undecided"} <= set(said)


@pytest.mark.parametrize("seeds", [10, 14])
def test_a_report_in_which_there_is_nothing_finds_something_in_at_most_one_of_twenty(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    claims = [["sign"]] * 4 + [["sign", "sign"]] * 4 + [["student"], ["within"], ["sign"] * 4]
    reports = 600
    false = sum(bool(DECIDED & set(outcomes(random, seeds, claims))) for _ in range(reports))
    limit = stats.binom.ppf(0.999, reports, LEVEL)
    assert false <= limit
