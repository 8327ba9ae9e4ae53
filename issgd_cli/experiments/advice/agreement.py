"""How well advice foretells: predicted ratios of work beside measured ones."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from issgd_cli.equations.statistics import rank_correlation

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
    return {one["label"]: one["work"] for one in told["methods"]}


def agreement(predicted: Ratios, measured: Ratios) -> Agreement:
    """Of methods that have the same name in both. What is never reached counts by its rank alone.

    Raises:
        ValueError: They have nothing in common, or a ratio is no positive number.
    """
    pairs = [
        tuple(math.inf if ratio is None else ratio for ratio in (predicted[task][method], measured[task][method]))
        for task in sorted(predicted.keys() & measured.keys())
        for method in sorted(predicted[task].keys() & measured[task].keys())
    ]
    if not pairs:
        raise ValueError("no task has a method that is both predicted and measured")
    told, found = np.array(pairs, np.float64).T
    if not (told > 0).all() or not (found > 0).all():
        raise ValueError("a ratio of work is a positive number, or none where the target was never reached")
    known = np.isfinite(told) & np.isfinite(found)
    return Agreement(
        pairs=len(pairs),
        rank_correlation=rank_correlation(told, found) if len(pairs) > 1 else float("nan"),
        mean_absolute_error=float(np.abs(told - found)[known].mean()) if known.any() else float("nan"),
        verdicts=float(((told < 1) == (found < 1)).mean()),
    )
