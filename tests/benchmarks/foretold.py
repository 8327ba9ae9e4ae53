"""How well `issgd advise` foretells: the ratios of work that it predicts beside those that a scoreboard has measured.

    python -m tests.benchmarks.foretold BOARD.json TASK=ADVICE.json ...

takes an experiment's board.json and what `issgd advise EXPERIMENT --dataset TASK --out FOLDER` wrote for some of its
tasks, and writes foretold.md and foretold.json to results/reference/advice.
"""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from issgd_cli.equations.statistics import rank_correlation
from issgd_cli.figures.outputs import finite
from issgd_cli.files import write_text

RESULTS = Path(__file__).parents[2] / "results" / "reference" / "advice"
TARGET = "training loss"  # which the noise of minibatches holds up

# Task -> method -> work to reach what reshuffled SGD reaches, in its own; None: it never does.
Ratios = Mapping[str, Mapping[str, float | None]]


class Agreement(NamedTuple):
    """Over all pairs of a task and a method that are predicted and measured.

    Attributes:
        pairs: How many.
        rank_correlation: Spearman's rho; NaN where one side ranks nothing.
        mean_absolute_error: Of predicted - measured; NaN where nothing measured is finite.
        verdicts: The share of pairs of which both say that it pays, or both that it does not.
    """

    pairs: int
    rank_correlation: float
    mean_absolute_error: float
    verdicts: float


def ratios(told: Mapping[str, Any]) -> dict[str, float]:
    """Of the content of an advice.json: method, by its label (`issgd-3`: with 3 workers) -> predicted work."""
    return {
        one["label"]: one["work"]
        for one in told["methods"]
        if one["label"] != "reshuffled"  # with which all are compared: 1 by definition
    }


def medians(board: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of the content of a board.json: task -> method -> measured work, the median over seeds; infinite: never."""
    return {
        task: {method: float(found["ratio"]) for method, found in row.items() if found["ratio"] is not None}
        for task, row in board[TARGET].items()
    }


def agreement(predicted: Ratios, measured: Ratios) -> Agreement:
    """Of methods that have the same name in both. What is never reached counts by its rank alone.

    Raises:
        ValueError: They have nothing in common, or a ratio is negative, or no number.
    """
    pairs = [
        tuple(math.inf if ratio is None else ratio for ratio in (predicted[task][method], measured[task][method]))
        for task in sorted(predicted.keys() & measured.keys())
        for method in sorted(predicted[task].keys() & measured[task].keys())
    ]
    if not pairs:
        raise ValueError("no task has a method that is both predicted and measured")
    told, found = np.array(pairs, np.float64).T
    if not (told >= 0).all() or not (found >= 0).all():
        raise ValueError("a ratio of work is a number from 0 on, or none where the target was never reached")
    known = np.isfinite(told) & np.isfinite(found)
    return Agreement(
        pairs=len(pairs),
        rank_correlation=rank_correlation(told, found) if len(pairs) > 1 else float("nan"),
        mean_absolute_error=float(np.abs(told - found)[known].mean()) if known.any() else float("nan"),
        verdicts=float(((told < 1) == (found < 1)).mean()),
    )


def page(predicted: Ratios, measured: Ratios) -> str:
    """Both as tables, and how they agree."""
    found = agreement(predicted, measured)
    names = sorted({name for task, row in predicted.items() for name in row if name in measured.get(task, {})})
    tasks = [task for task in predicted if task in measured]
    cells = [f"{name}: predicted | measured" for name in names]
    head = [f"|  | {' | '.join(cells)} |", "|---" * (2 * len(names) + 1) + "|"]
    rows = []
    for task in tasks:
        both = [_told(each.get(name)) for name in names for each in (predicted[task], measured[task])]
        rows.append(f"| {task} | {' | '.join(both)} |")
    return "\n".join(
        [
            "# What `issgd advise` predicts, and what came of it",
            "",
            f"Work to reach reshuffled SGD's {TARGET}, in its own; measured: medians over the scoreboard's seeds.",
            "",
            *head,
            *rows,
            "",
            f"Over {found.pairs} pairs: rank correlation {found.rank_correlation:.2f}; mean absolute error "
            f"{found.mean_absolute_error:.2f}, of those that got there; in {found.verdicts:.0%} both say that it pays, "
            "or both that it does not.",
            "",
        ]
    )


def _told(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}" if math.isfinite(ratio) else "never"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("board", type=Path)
    parser.add_argument("advice", nargs="+", metavar="TASK=ADVICE.json")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    measured = medians(json.loads(given.board.read_text()))
    paths = dict(each.split("=", 1) for each in given.advice)
    predicted = {task: ratios(json.loads(Path(path).read_text())) for task, path in paths.items()}
    given.out.mkdir(parents=True, exist_ok=True)
    write_text(given.out / "foretold.md", page(predicted, measured))
    found = agreement(predicted, measured)._asdict()
    content = {"target": TARGET, "predicted": predicted, "measured": measured, **found}
    write_text(given.out / "foretold.json", json.dumps(finite(content), indent=1, allow_nan=False) + "\n")
    print(page(predicted, measured))


if __name__ == "__main__":
    main()
