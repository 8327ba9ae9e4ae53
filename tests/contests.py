"""Made-up runs that end at the same work: of whom a scoreboard tells what was put into them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.config.validation import resolve
from issgd_cli.runs.traces import Row

AUDITS = 41
WORK = 4_000.0  # in examples, of a whole run: 100 from one audit to the next


def falling(pace: float = 1.0, wobble: float = 0.0) -> Callable[[int], ArrayLike]:
    """A loss that falls as fast, by seed, at each audit."""

    def curve(seed: int) -> ArrayLike:
        noise = np.random.default_rng([seed, round(100 * pace)]).normal(0, wobble, AUDITS)
        return 2.0 * np.exp(-pace * np.linspace(0, 4, AUDITS) + noise)

    return curve


def run_of(
    method: str, seed: int, loss: ArrayLike, error: ArrayLike | None = None, valid: float = 0.5, **more: Any
) -> Run:
    """With these audited training losses and test errors, and work that grows evenly; `more` of the run itself."""
    loss = np.asarray(loss, np.float64)
    work = np.linspace(0, WORK, AUDITS)[: len(loss)]
    curves = {
        "loss/train": loss,
        "error/test": loss / 4 if error is None else np.asarray(error),
        "error/valid": np.full(len(loss), valid),
        "work/in_examples": work,
    }
    rows = [
        Row(int(at), at / 100, f"audit/{quantity}", float(value))
        for quantity, values in curves.items()
        for at, value in zip(work, values, strict=True)
    ]
    base = method.partition(":")[0]
    config = resolve(
        {"seed": seed, "proposal": {"method": base}, "master": {"work": WORK}, "data": {"name": "mnist"}}, "test"
    )
    path = Path("results/test") / f"{method}-0" / f"seed-{seed:03d}"
    trace = pd.DataFrame(rows, columns=list(Row._fields))
    given = {"state": "finished", "manifest": {"state": "finished"}, **more}
    return Run(path=path, setting="", method=method, seed=seed, config=config, trace=trace, **given)


def diverged(method: str, seed: int) -> Run:
    failure = {"actor": "master", "reason": "The loss is not finite at step 7"}
    return run_of(method, seed, [2.0], state="failed", manifest={"state": "failed", "failure": failure})


def task(methods: dict[str, Callable[[int], ArrayLike]], seeds: Sequence[int] = range(10)) -> Runs:
    runs = tuple(run_of(method, seed, curve(seed)) for method, curve in methods.items() for seed in seeds)
    return Runs("test", runs, len(runs))
