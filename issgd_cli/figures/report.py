"""report.md: one page that says what was run, what it shows of each claim, and where that differs from the paper."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from issgd_cli.claims.evidence import EXACT, Runs, audits_told
from issgd_cli.claims.generalisation import Score, chosen
from issgd_cli.claims.others import comparisons
from issgd_cli.claims.quantiles import SEEDS_FOR_AN_INTERVAL, coverage
from issgd_cli.claims.thresholds import Thresholds, reasons
from issgd_cli.claims.verdicts import DECIDING_SEEDS, LEFT_OUT, MINIMUM_SEEDS, Outcome, Verdict
from issgd_cli.figures import conditions, table_1
from issgd_cli.figures.conditions import listed
from issgd_cli.figures.differences import differences

MARKS: dict[Outcome, str] = {
    "holds": "**holds**",
    "fails": "**fails**",
    "suggests it holds": "suggests it holds",
    "suggests it fails": "suggests it fails",
    "proved": "proved",
    "undecided": "undecided",
    "untestable": "not testable",
}
SAID: dict[str, str] = {**{outcome: outcome for outcome in MARKS}, "untestable": "not testable on these runs"}


def report(runs: Runs, verdicts: Sequence[Verdict], figures: Sequence[tuple[str, str]]) -> str:
    """The page as Markdown.

    Args:
        runs: The experiment's.
        verdicts: On each claim.
        figures: Caption and file of each picture, relative to the page.
    """
    table = table_1.load(runs)
    ours = other_methods(runs)
    sections = [
        f"# {runs.name}: what these runs show",
        headline(runs, verdicts),
        "## What was run",
        _items(conditions.what_was_run(runs)),
        "## The paper's claims",
        claims_table(verdicts),
        how_it_is_judged(runs),
        *(["## Other methods than the paper's", ours] if ours else []),
        "## Table 1",
        table_1.as_markdown(table).strip(),
        "## Figures",
        *(f"![{caption}]({file})\n\n{caption}" for caption, file in figures),
        "## What differs from the paper",
        _items(differences(runs)),
        "## The evidence, claim by claim",
        *(evidence(verdict) for verdict in verdicts),
        "## Thresholds",
        _items(f"`{name}` = {entry['value']}: {entry['reason']}." for name, entry in reasons(Thresholds()).items()),
    ]
    return "\n\n".join(sections) + "\n"


def headline(runs: Runs, verdicts: Sequence[Verdict]) -> str:
    """A few sentences: how many claims stand, ISSGD's speed and Table 1 in words, and at which scale."""
    by_outcome: dict[str, list[str]] = {}
    for verdict in verdicts:
        by_outcome.setdefault(verdict.verdict, []).append(verdict.claim.id)
    counts = "; ".join(f"{SAID[outcome]}: {listed(by_outcome[outcome])}" for outcome in MARKS if outcome in by_outcome)
    text = f"{runs.tally()}. The paper's claims on these runs: {counts}."
    text += _speed(verdicts)
    for settings in runs.datasets().values():
        labels = runs.label("issgd"), runs.label("sgd")
        scores = [score for label in labels if (score := chosen(runs, label, settings))]
        if len(scores) == 2:
            text += " Final test error: " + ", ".join(_score(runs, score) for score in scores) + "."
    return text


def claims_table(verdicts: Sequence[Verdict]) -> str:
    """One row a claim, with one sentence and one number."""
    rows = [
        "| | The paper says | These runs show | Verdict | p, adjusted | It would be otherwise with |",
        "|---|---|---|---|---|---|",
    ]
    for verdict in verdicts:
        claim = verdict.claim
        p = "" if verdict.p is None else f"{verdict.p:.2g}"
        cells = (
            claim.id,
            f"{claim.statement} ({claim.source})",
            verdict.brief,
            MARKS[verdict.verdict],
            p,
            otherwise(verdict.sensitivity),
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def otherwise(sensitivity: Mapping[str, Outcome]) -> str:
    """What would turn a verdict, and into what; none where nothing does."""
    by_outcome: dict[str, list[str]] = {}
    for name, outcome in sensitivity.items():
        by_outcome.setdefault(outcome, []).append(name)
    told = []
    for other, names in by_outcome.items():
        seeds = [int(name.removeprefix(LEFT_OUT)) for name in names if name.startswith(LEFT_OUT)]
        others = [f"`{name}`" if " = " in name else name for name in names if not name.startswith(LEFT_OUT)]
        if seeds:
            others.append(f"without any one of seeds {conditions.ranges(seeds)}" if len(seeds) > 1 else names[-1])
        told.append(f"{', '.join(others)}: {SAID[other]}")
    return "; ".join(told) or "none"


def how_it_is_judged(runs: Runs) -> str:
    """What the table's verdicts and p-values are, and the intervals of the evidence."""
    counts = sorted({len(runs.of(setting, method)) for setting in runs.settings for method in runs.methods} - {0})
    covered = [f"{coverage(count):.1%} with {count}" for count in counts if count >= SEEDS_FOR_AN_INTERVAL]
    text = (
        "Verdicts are computed from the traces, one number a seed, by exact sign tests (C9: Student's t). p is the "
        "chance that seeds agree so much where there is nothing, adjusted for all claims of the page by Holm's method. "
        f"It takes {DECIDING_SEEDS} seeds to hold or fail; {MINIMUM_SEEDS} to {DECIDING_SEEDS - 1}, or more where p is "
        "not small enough, only suggest it. The last column: what the verdict would be with another threshold, by the "
        "other test, or, as far as it turns, with a seed left out. A run that diverged is its method's worst outcome. "
        "Intervals are of medians, between two of the seeds' own values, and exact: "
    )
    text += f"they cover {listed(covered)} seeds" if covered else f"below {SEEDS_FOR_AN_INTERVAL} seeds none has 95%"
    told = audits_told(runs.runs)
    told += "" if told == EXACT else " (standard errors stand in the traces)"
    return f"{text}. Claims of losses, errors and traces use {told}, never the database's mixed records."


def evidence(verdict: Verdict) -> str:
    """A claim's heading, and a line a part."""
    head = f"### {verdict.claim.id}. {verdict.claim.statement}"
    p = "" if verdict.p is None else f", p = {verdict.p:.2g}"
    lines = [f"{MARKS[verdict.verdict]}{p}", *verdict.evidence.splitlines()]
    return f"{head}\n\n{_items(lines)}"


def other_methods(runs: Runs) -> str:
    """Markdown: methods of ours against the paper's two, of which it claims nothing; empty where there are none."""
    found = comparisons(runs)
    if not found:
        return ""
    rows = [
        "Told, not judged: mean audited training loss at equal steps, minus that of the paper's method and relative to "
        "it; negative is better.",
        "",
        "| Setting | Method | Against | Relative difference |",
        "|---|---|---|---|",
        *(f"| {each.setting} | {each.method} | {each.against} | {each.difference.text()} |" for each in found),
    ]
    return "\n".join(rows)


def _speed(verdicts: Sequence[Verdict]) -> str:
    """C1's differences in words, at equal steps and at equal work: the paper shows neither."""
    values = next((verdict.values for verdict in verdicts if verdict.claim.id == "C1"), {})
    text = ""
    for setting, found in values.items():
        where = f"In ({setting})" if setting else "Here"
        gaps = [
            (gap, what)
            for axis, what in (("steps", "equal steps"), ("examples", "equal work, its workers' scoring charged"))
            if (gap := found.get(f"difference_at_equal_{axis}", {})).get("median") is not None
        ]
        sides = [_side(gap, what) for gap, what in gaps if math.isfinite(gap["median"])]
        if len(sides) < len(gaps):
            text += f" {where} {_diverged(gaps[0][0])}."
        elif sides:
            text += f" {where} ISSGD's training loss lies, on average over the run, {', '.join(sides)}."
    return text


def _side(gap: Mapping[str, Any], what: str) -> str:
    median, values = gap["median"], gap["values"]
    below = median < 0
    agree = sum(value < 0 if below else value > 0 for value in values)
    side = "below" if below else "above"
    return f"{abs(median):.2g} {side} SGD's at {what} (in {agree} of {len(values)} seeds)"


def _diverged(gap: Mapping[str, Any]) -> str:
    """Of a difference, ISSGD minus SGD: which of them diverged in how many seeds."""
    counts = {name: gap["values"].count(end) for name, end in (("ISSGD", math.inf), ("SGD", -math.inf))}
    told = [f"{name} diverged in {count} of {len(gap['values'])} seeds" for name, count in counts.items() if count]
    return " and ".join(told) or "the distance of the training losses is unknown"


def _score(runs: Runs, score: Score) -> str:
    where = f" in setting ({score.setting})" if score.setting else ""
    return f"{table_1.name_of(runs, score.method).partition(' (')[0]} {score.test.values.mean():.4f}{where}"


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
