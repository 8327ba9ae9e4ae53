"""How well `issgd advise` foretells: the ratios of work that it predicts beside those that a scoreboard has measured.

    python -m tests.benchmarks.foretold BOARD.json TASK=ADVICE.json ...

takes an experiment's board.json and what `issgd advise EXPERIMENT --setting RATE --dataset TASK --out FOLDER` wrote
for some of its tasks and rates, and writes foretold.md and foretold.json to results/reference/advice. Both sides count
work by operations (scores/cost.py). A method is compared where the experiment has it with the settings that the
prediction is for, and the board both it and reshuffled SGD at the prediction's learning rate.
"""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from issgd_cli.claims.scoreboard import BASELINE
from issgd_cli.equations.statistics import rank_correlation
from issgd_cli.experiments import experiment
from issgd_cli.experiments.advice.forecast import PAYS
from issgd_cli.figures.outputs import finite
from issgd_cli.files import write_text

ROOT = Path(__file__).parents[2]
RESULTS, EXPERIMENT = ROOT / "results" / "reference" / "advice", ROOT / "experiments" / "equal-work.toml"
TARGET = "training loss"  # which the noise of minibatches holds up

# Task -> method -> work to reach what reshuffled SGD reaches, in its own; None: it never does.
Ratios = Mapping[str, Mapping[str, float | None]]


class Agreement(NamedTuple):
    """Over all pairs of a task and a method that are predicted and measured.

    Attributes:
        pairs: How many.
        rank_correlation: Spearman's rho; NaN where one side ranks nothing.
        finite: How many of them were reached, which alone have an error.
        mean_absolute_error: Of predicted - measured; NaN where nothing measured is finite.
        error_of_1: The same, of who always predicts 1.
        verdicts: The share of pairs of which both say that it pays, by the least gain that advise calls one (there of
            seconds), or both that it does not.
        paid: The share that has paid: verdicts of who always says so, and one less those of who never does.
    """

    pairs: int
    rank_correlation: float
    finite: int
    mean_absolute_error: float
    error_of_1: float
    verdicts: float
    paid: float


def ratios(told: Mapping[str, Any]) -> dict[str, float]:
    """Of the content of an advice.json: method, by its label (`issgd-3`: with 3 workers) -> predicted work."""
    return {
        one["label"]: one["work"]
        for one in told["methods"]
        if one["label"] != "reshuffled"  # with which all are compared: 1 by definition
    }


def differing(told: Mapping[str, Any], path: Path, task: str) -> dict[str, list[str]]:
    """Methods of an experiment that are predicted with other settings than it has -> the keys that differ."""
    plan, found = experiment.read(path), {}
    for one in told["methods"]:
        if one["label"] in plan.methods:
            config = plan.one(None, one["label"], {}, task).config
            keys = [
                f"{section}.{key}"
                for section, values in one["settings"].items()
                for key, value in values.items()
                if getattr(getattr(config, section), key) != value
            ]
            found.update({one["label"]: keys} if keys else {})
    return found


def medians(board: Mapping[str, Any], task: str, rate: float) -> dict[str, float]:
    """Of the content of a board.json: method -> measured work, the median over seeds; infinite: never.

    Of those at this learning rate, where reshuffled SGD has it, too.
    """
    found: dict[str, float] = {}
    for target, rows in board["learning rates"].items():
        rates = rows.get(task, {})
        if target.startswith(TARGET) and rates.get(BASELINE) == rate:
            row = board[target][task]
            found |= {name: float(row[name]["ratio"]) for name in rates if rates[name] == rate and row[name]["seeds"]}
    return found


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
    known, paid = np.isfinite(told) & np.isfinite(found), found <= 1 - PAYS
    return Agreement(
        pairs=len(pairs),
        rank_correlation=rank_correlation(told, found) if len(pairs) > 1 else float("nan"),
        finite=int(known.sum()),
        mean_absolute_error=float(np.abs(told - found)[known].mean()) if known.any() else float("nan"),
        error_of_1=float(np.abs(1 - found)[known].mean()) if known.any() else float("nan"),
        verdicts=float(((told <= 1 - PAYS) == paid).mean()),
        paid=float(paid.mean()),
    )


def page(predicted: Ratios, measured: Ratios, left_out: Mapping[str, list[str]]) -> str:
    """Both as tables, how they agree, and which methods are left out for which settings."""
    found = agreement(predicted, measured)
    names = sorted({name for task, row in predicted.items() for name in row if name in measured.get(task, {})})
    tasks = [task for task, row in predicted.items() if row.keys() & measured.get(task, {}).keys()]
    cells = [f"{name}: predicted | measured" for name in names]
    head = [f"|  | {' | '.join(cells)} |", "|---" * (2 * len(names) + 1) + "|"]
    rows = []
    for task in tasks:
        both = [
            _told(each[name]) if name in predicted[task] and name in measured[task] else ""
            for name in names
            for each in (predicted[task], measured[task])
        ]
        rows.append(f"| {task} | {' | '.join(both)} |")
    return "\n".join(
        [
            "# What `issgd advise` predicts, and what came of it",
            "",
            f"Work to reach reshuffled SGD's {TARGET}, in its own, by operations, both at one learning rate; measured: "
            "medians over the scoreboard's seeds.",
            "",
            *head,
            *rows,
            "",
            f"Over {found.pairs} pairs: rank correlation {found.rank_correlation:.2f}; mean absolute error "
            f"{found.mean_absolute_error:.2f}, of the {found.finite} that got there, where always predicting 1 has "
            f"{found.error_of_1:.2f}; in {found.verdicts:.0%} both say that it pays ({1 - PAYS:g} or less), or both "
            f"that it does not, where always saying that it pays is right in {found.paid:.0%}, and that it never does "
            f"in {1 - found.paid:.0%}.",
            "",
            *(
                f"Not compared: {method}, which the scoreboard has with another {', '.join(keys)}."
                for method, keys in left_out.items()
            ),
            *([""] if left_out else []),
        ]
    )


def _told(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}" if math.isfinite(ratio) else "never"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("board", type=Path)
    parser.add_argument("advice", nargs="+", metavar="TASK=ADVICE.json")
    parser.add_argument("--experiment", type=Path, default=EXPERIMENT, help="that the board is of")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    board, told = json.loads(given.board.read_text()), {}
    left_out: dict[str, list[str]] = {}
    measured: dict[str, dict[str, float]] = {}
    for task, path in (each.split("=", 1) for each in given.advice):
        one = json.loads(Path(path).read_text())
        rate = one["trial"]["learning_rate"]
        told[f"{task}, {rate:g}"], measured[f"{task}, {rate:g}"] = one, medians(board, task, rate)
        left_out |= differing(one, given.experiment, task)
    predicted = {
        name: {label: work for label, work in ratios(one).items() if label not in left_out}
        for name, one in told.items()
    }
    given.out.mkdir(parents=True, exist_ok=True)
    text, found = page(predicted, measured, left_out), agreement(predicted, measured)._asdict()
    write_text(given.out / "foretold.md", text)
    content = {"target": TARGET, "predicted": predicted, "measured": measured, "left_out": left_out, **found}
    write_text(given.out / "foretold.json", json.dumps(finite(content), indent=1, allow_nan=False) + "\n")
    print(text)


if __name__ == "__main__":
    main()
