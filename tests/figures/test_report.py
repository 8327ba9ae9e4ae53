"""The report's page: verdicts in words, what would turn them, the evidence below, methods of ours beside."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from issgd_cli.claims import Runs, judge, load
from issgd_cli.claims.verdicts import LEFT_OUT, Claim, Verdict
from issgd_cli.figures import outputs, report
from issgd_cli.figures.charts import charts
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.traces import Row
from tests.figures.conftest import audited_on

VERDICT = Verdict(
    Claim("C1", "It is so.", "Fig. 9"), "suggests it holds", 0.034, "||x|| is 3.", "(a): 3.\n(b): 4.", sensitivity={}
)


@pytest.fixture(scope="module")
def page(experiment: Runs) -> str:
    return report.report(experiment, judge(experiment), [("Figure 9", "figure-9.png")])


def test_a_row_has_one_sentence_the_verdict_its_p_and_what_would_turn_it() -> None:
    row = report.claims_table([VERDICT]).splitlines()[-1]
    assert row == "| C1 | It is so. (Fig. 9) | \\|\\|x\\|\\| is 3. | suggests it holds | 0.034 | none |"
    proved = report.claims_table([replace(VERDICT, verdict="proved", p=None)]).splitlines()[-1]
    assert proved.endswith("| proved |  | none |")


def test_what_would_turn_a_verdict_is_told_by_the_verdict_that_it_would_be() -> None:
    assert report.otherwise({"visible = 0.05": "fails", "the other test": "fails", "without seed 3": "undecided"}) == (
        "`visible = 0.05`, the other test: fails; without seed 3: undecided"
    )
    several = {f"{LEFT_OUT}{seed}": "undecided" for seed in (0, 1, 4)}
    assert report.otherwise(several) == "without any one of seeds 0-1, 4: undecided"  # type: ignore[arg-type]


def test_the_evidence_is_below_the_table_a_heading_a_claim() -> None:
    assert report.evidence(VERDICT).splitlines() == [
        "### C1. It is so.",
        "",
        "- suggests it holds, p = 0.034",
        "- (a): 3.",
        "- (b): 4.",
    ]


def test_the_page_lists_every_threshold_with_its_reason(page: str) -> None:
    assert "- `reached` = 0.01: a loss below it draws as the paper's 0.0 (C1)." in page
    assert page.index("## The paper's claims") < page.index("## The evidence, claim by claim") < page.index("## Thresh")


def test_the_page_says_in_which_words_three_seeds_speak(page: str) -> None:
    assert "suggests it holds: C2" in page
    assert "; proved: C8; " in page
    assert not {"**holds**", "**fails**"} & set(page.replace("|", " ").split())
    assert "below 6 seeds none has 95%" in page


def test_the_intervals_coverage_is_told(make_run: Callable[..., RunFolder]) -> None:
    runs = load([make_run("a", method, seed) for method in ("issgd", "sgd") for seed in range(8 - (method == "sgd"))])
    assert "and exact: they cover 98.4% with 7, 99.2% with 8 seeds." in report.how_it_is_judged(runs)


def test_equal_work_is_told_beside_equal_steps(page: str) -> None:
    head = page.split("\n\n")[1]
    assert "below SGD's at equal steps (in 3 of 3 seeds)" in head
    assert "at equal work, its workers' scoring charged (in 3 of 3 seeds)" in head


def test_methods_of_ours_have_a_section_of_their_own(make_run: Callable[..., RunFolder], page: str) -> None:
    def better(row: Row) -> Row:
        return row._replace(value=0.5 * row.value) if row.quantity == "audit/loss/train" else row

    runs = load(
        [
            *(make_run("a", method, seed) for method in ("issgd", "sgd") for seed in range(3)),
            *(make_run("a", "issgd-variance-optimal", seed, change=better) for seed in range(3)),
        ]
    )
    text = report.other_methods(runs)
    (row,) = [line for line in text.splitlines() if "| ISSGD |" in line]
    assert row.startswith("| a | issgd-variance-optimal | ISSGD | -0.5, -0.5, -0.5 (seeds 0, 1, 2), negative in 3 of 3")
    assert "Told, not judged" in text
    assert "Other methods than the paper's" not in page


@pytest.mark.slow  # figures are drawn
def test_nothing_calls_audits_exact_that_are_on_a_sample(experiment: Runs, tmp_path: Path, unrendered: None) -> None:
    sampled = replace(experiment, runs=tuple(audited_on(run, 500) for run in experiment.runs))
    _, verdicts = outputs.write_all(sampled, tmp_path)
    notes = [module.notes(sampled, "audit", interval=False)[0] for module in outputs.FIGURES.values()]
    views = [view["source"] for view in charts(sampled)]
    texts = [(tmp_path / name).read_text() for name in ("report.md", "report.html", "table-1.md", "claims.json")]
    for text in (*notes, *views, *texts):
        assert "exact audits" not in text.lower().replace("no exact audits", "").replace("and exact audits (", "")
    assert all("500 examples" in text for text in (*notes, *texts, *views[:4]))
    evidence = {verdict.claim.id: verdict.evidence for verdict in verdicts}
    assert "chance may change their order" in evidence["C5"]
    assert "since they are on samples" in evidence["C9"]
    assert "estimated without bias" in evidence["C11"]
    assert "sample" not in "".join(verdict.evidence for verdict in judge(experiment))


def test_the_headline_names_methods_by_what_they_are(experiment: Runs) -> None:
    renamed = tuple(replace(run, method={"issgd": "ours", "sgd": "theirs"}[run.method]) for run in experiment.runs)
    other = replace(experiment, runs=renamed)
    assert report.headline(other, judge(other)) == report.headline(experiment, judge(experiment))
    assert "Final test error: Importance Sampling SGD 0." in report.headline(other, judge(other))
