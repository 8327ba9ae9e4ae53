"""The first paper's open question: do importance sampling and asynchronous SGD help or impede each other? C13."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from issgd_cli.claims.contests import QUANTITIES, Contest, contested, playing
from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.paired import difference, late, mean_difference, per_seed
from issgd_cli.claims.settings import named
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.traffic import bytes_a_second
from issgd_cli.claims.verdicts import Claim, Finding, PerSeed

C13 = Claim(
    "C13",
    "ISSGD and ASGD help each other (the paper asks, and does not claim): peers that draw by importance are ahead of "
    "ASGD, and of ISSGD with workers, at equal machines and seconds.",
    "Sec. 6",
)

JUDGED = [
    Contest("ISSGD with peers", "ASGD", axis="seconds"),
    Contest("ISSGD with peers", "ISSGD with workers", axis="seconds"),
]
TOLD = [
    Contest("ISSGD with peers", "ASGD"),
    Contest("ISSGD with peers", "ASGD", "test error", "seconds"),
    Contest("ASGD", "uniform", axis="seconds"),
    Contest("ASGD", "uniform"),
    Contest("ASGD", "synchronous SGD", axis="seconds"),
    Contest("ISSGD with workers", "uniform", axis="seconds"),
    Contest("ISSGD with workers", "uniform"),
]
ROLES_TOLD = (
    "uniform",
    "ISSGD with workers",
    "synchronous SGD",
    "ASGD",
    "ISSGD with peers",
    "ISSGD with peers, bfloat16",
)


def finding_c13(runs: Runs, thresholds: Thresholds) -> Finding:
    """Mean training losses at equal seconds; beside them all else that tells the two apart, which is not judged."""
    found = contested(runs, C13, JUDGED, thresholds)
    if not found.values:
        return found
    values = {setting: dict(numbers) for setting, numbers in found.values.items()}
    notes = ["Not judged:"]
    for setting in runs.settings:
        mine: dict[str, Any] = values.setdefault(setting, {})
        for contest in TOLD:
            part, numbers = contest.part(runs, setting, thresholds)
            if numbers:
                notes.append(part.text)
                mine[f"{contest.name}, {contest.what}"] = numbers
        gap = interaction(runs, setting)
        if len(gap):
            mine["interaction"] = gap.plain()
            notes.append(
                f"{named(setting)}: what drawing by importance changes of ASGD's mean training loss, less what it "
                f"changes of SGD's, at equal steps, relative (negative: they help each other): {gap.text()}."
            )
        for role in ROLES_TOLD:
            if told := _told(playing(runs, setting, role)):
                mine[role] = {what: number.plain() for what, number in told.items()}
                notes.append(f"{named(setting)}: {role}: {_text(told)}.")
    return Finding(C13, found.parts, values, "\n".join(notes))


def interaction(runs: Runs, setting: str) -> PerSeed:
    """What importance sampling does to ASGD less what it does to SGD: relative differences of mean training losses."""
    number = mean_difference(QUANTITIES["training loss"], "steps", relative=True)
    pairs = (("ISSGD with peers", "ASGD"), ("ISSGD with workers", "uniform"))
    among_peers, alone = (
        difference(playing(runs, setting, one), playing(runs, setting, other), number, (one, other))
        for one, other in pairs
    )
    base = dict(zip(alone.seeds, alone.values.tolist(), strict=True))
    kept = [
        (seed, value - base[seed])
        for seed, value in zip(among_peers.seeds, among_peers.values.tolist(), strict=True)
        if seed in base and np.isfinite([value, base[seed]]).all()
    ]
    return PerSeed(tuple(seed for seed, _ in kept), np.array([value for _, value in kept], np.float64))


def _last(quantity: str) -> Callable[[Run], float | None]:
    """The mean of the last tenth of a quantity's records."""

    def number(run: Run) -> float | None:
        series = run.series(quantity)
        return float(late(series).mean()) if len(series.values) else None

    return number


def _root_of_traces(run: Run) -> float | None:
    """sqrt Tr in use over that of uniform draws, the median over the audits after the first."""
    in_use, uniform = (run.series(f"audit/trace/{name}") for name in ("in_use", "uniform"))
    steps = set(in_use.positions) & set(uniform.positions) - {0.0}
    grid = np.array(sorted(steps))
    if not len(grid):
        return None
    ratio = in_use.at(grid) / uniform.at(grid)
    return float(np.sqrt(np.median(ratio))) if (ratio >= 0).all() else None


def _steps(run: Run) -> float | None:
    series = run.series("work/bytes_sent")
    return float(series.positions[-1]) if len(series.positions) else None


NUMBERS: dict[str, Callable[[Run], float | None]] = {
    "steps": _steps,
    "training loss at the end": _last("audit/loss/train"),
    "test error at the end": _last("audit/error/test"),
    "sqrt Tr in use / uniform": _root_of_traces,
    "mean age of gradients, versions": _last("staleness/gradients/mean_versions"),
    "bytes a second": bytes_a_second,
}


def _told(group: Sequence[Run]) -> dict[str, PerSeed]:
    """The group's numbers, as far as its runs have them."""
    found = {what: per_seed(group, number) for what, number in NUMBERS.items()}
    return {what: numbers for what, numbers in found.items() if len(numbers)}


def _text(told: dict[str, PerSeed]) -> str:
    return ", ".join(f"{what} {numbers.told('.4g')}" for what, numbers in told.items())
