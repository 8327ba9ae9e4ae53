"""Table 1: final test errors of each method in its best setting, beside the paper's numbers."""

import csv
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np

from issgd_cli.claims.evidence import EXACT, FIRST_PAPER, Runs, audits_told
from issgd_cli.claims.generalisation import Score, chosen, score
from issgd_cli.claims.settings import smoothing_label
from issgd_cli.claims.verdicts import PerSeed

# Source: Alain et al. 2015, Table 1. The first is printed as a percentage, 9.31, beside the others' fractions.
PAPER = {
    "SGD (Davis & Arel, 2013)": 0.0931,
    "SGD (the paper's)": 0.0754,
    "Importance Sampling SGD (the paper's)": 0.0756,
}
PRINTED = (
    " The paper prints Davis & Arel's as a percentage (9.31) beside fractions (0.0754, 0.0756) and sets the larger of "
    "its own two in bold; here all are fractions."
)
NAMES: dict[Literal["sgd", "issgd"], str] = {"sgd": "SGD", "issgd": "Importance Sampling SGD"}
COLUMNS = (
    "model", "setting", "learning_rate", "smoothing", "chosen", "valid_error", "test_error", "test_error_sd",
    "test_error_min", "test_error_max", "early_stopped_test_error", "runs_finished", "runs_found", "records",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Scores of every group of runs, and which one each method is represented by."""

    scores: tuple[Score, ...]
    chosen: tuple[Score, ...]
    runs: Runs


def load(runs: Runs) -> Table:
    """Scores by setting and method; a method's setting is chosen by its final validation error, as in the paper.

    Never between settings of different datasets: each of these has its own choice.
    """
    scores = [found for m in runs.methods for setting in runs.settings if (found := score(runs, setting, m))]
    groups = runs.datasets().values()
    best = [found for settings in groups for method in _ordered(runs) if (found := chosen(runs, method, settings))]
    return Table(tuple(scores), tuple(best), runs)


def as_csv(table: Table) -> str:
    """Every group of runs, one row each, after the paper's three."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for name, error in _papers(table).items():
        writer.writerow({"model": name, "test_error": error})
    best = {(found.setting, found.method) for found in table.chosen}
    for found in table.scores:
        writer.writerow(_row(table.runs, found, (found.setting, found.method) in best))
    return text.getvalue()


def as_markdown(table: Table) -> str:
    """The table as the paper has it, ours below the paper's rows, then every setting."""
    lines = [
        "| Model | Setting | Test error, last 10% | Spread over runs | Test error, early stopped | Runs |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | | {error:.4f} | | | {'50' if 'paper' in name else ''} |"
            for name, error in _papers(table).items()
        ),
        *(_line(found, table.runs) for found in table.chosen),
    ]
    best = {(found.setting, found.method) for found in table.chosen}
    others = [found for found in table.scores if (found.setting, found.method) not in best]
    if others:
        lines += ["", "Settings not chosen:", "", *lines[:2], *(_line(found, table.runs) for found in others)]
    return "\n".join([*lines, "", *notes(table)]) + "\n"


def notes(table: Table) -> list[str]:
    """How to read the table."""
    sources = {found.source for found in table.scores}
    datasets = len(table.runs.datasets())
    lines = [
        f"{table.runs.tally()}; failed, unfinished and missing runs have no final error and are not in the means.",
        "Errors are fractions of wrong predictions." + (PRINTED if _papers(table) else ""),
        "Each method's setting is the one of the lowest validation error (mean over the last 10% of the records) among "
        "those of one dataset in which the fewest runs diverged. The test error is the mean over the last 10% of each "
        "run's records, then over runs; early stopped: at the record of the lowest validation error.",
    ]
    if datasets > 1:
        lines.append(f"The settings are of {datasets} datasets; nothing is chosen between these.")
    if sources == {"audit"}:
        told = audits_told(table.runs.runs)
        lines.append(f"From {told}: one parameter version{', all examples' if told == EXACT else ''}.")
    elif sources:
        named = ", ".join(
            f"{found.setting} {found.method}".strip() for found in table.scores if found.source == "database"
        )
        lines.append(f"Database records at mixed parameter versions, not exact audits: {named}.")
    absent = [f"{s} {m}".strip() for s in table.runs.settings for m in table.runs.methods if _absent(table, s, m)]
    if absent:
        lines.append(f"Without a finished run that recorded both errors: {', '.join(absent)}.")
    return [f"- {line}" for line in lines]


def _papers(table: Table) -> dict[str, float]:
    """The rows of the first paper, where the runs are about it; the others have no such table."""
    return PAPER if FIRST_PAPER in table.runs.papers else {}


def _line(found: Score, runs: Runs) -> str:
    return (
        f"| {name_of(runs, found.method)} (these runs) | {_setting(runs, found)} | "
        f"{found.test.values.mean():.4f} | {_spread(found.test)} | "
        f"{_mean(found.early_stopped, 4)} | {found.finished} of {found.runs} |"
    )


def _row(runs: Runs, found: Score, is_chosen: bool) -> dict[str, object]:
    run = runs.of(found.setting, found.method)[0]
    test = found.test.values
    return {
        "model": f"{name_of(runs, found.method)} (these runs)",
        "setting": found.setting,
        "learning_rate": run.config.optimizer.learning_rate,
        "smoothing": smoothing_label(run.config) if run.by_scores else "",
        "chosen": int(is_chosen),
        "valid_error": _mean(found.valid, 6),
        "test_error": f"{test.mean():.6f}",
        "test_error_sd": f"{test.std(ddof=1):.6f}" if len(test) > 1 else "",
        "test_error_min": f"{test.min():.6f}",
        "test_error_max": f"{test.max():.6f}",
        "early_stopped_test_error": _mean(found.early_stopped, 6),
        "runs_finished": found.finished,
        "runs_found": found.runs,
        "records": found.source,
    }


def _mean(errors: PerSeed, digits: int) -> str:
    """Over the runs; empty where none recorded them."""
    known = errors.values[np.isfinite(errors.values)]
    return f"{known.mean():.{digits}f}" if len(known) else ""


def _spread(test: PerSeed) -> str:
    values = test.values
    if len(values) < 2:
        return "one run"
    return f"sd {np.std(values, ddof=1):.4f}, {values.min():.4f} to {values.max():.4f}"


def _setting(runs: Runs, found: Score) -> str:
    run = runs.of(found.setting, found.method)[0]
    added = f", {smoothing_label(run.config)}" if run.by_scores else ""
    rate = f"lr {run.config.optimizer.learning_rate:g}{added}"
    return f"({found.setting}) {rate}" if found.setting else rate


def name_of(runs: Runs, method: str) -> str:
    """What the table calls a method: the paper's two by their names there, others by their label."""
    return next((name for known, name in NAMES.items() if runs.label(known) == method), method)


def _ordered(runs: Runs) -> list[str]:
    """The paper's order: SGD first."""
    papers = [runs.label(known) for known in NAMES]
    return sorted(runs.methods, key=lambda method: papers.index(method) if method in papers else len(papers))


def _absent(table: Table, setting: str, method: str) -> bool:
    group = table.runs.of(setting, method)
    return bool(group) and not any((found.setting, found.method) == (setting, method) for found in table.scores)
