"""The first paper's open question: do importance sampling and asynchronous SGD help or impede each other? C13."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from issgd_cli.claims.contests import QUANTITIES, Contest, contested, playing
from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.paired import covered_by_all, distance_between, late, per_seed
from issgd_cli.claims.settings import named
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.traffic import bytes_a_second
from issgd_cli.claims.verdicts import Claim, Finding, Part, PerSeed

C13 = Claim(
    "C13",
    "ISSGD and ASGD help each other: drawing by importance gains ASGD more than it gains SGD, at equal steps, and "
    "peers drawing by it are ahead of ASGD and of ISSGD with workers, at equal machines and seconds. (The paper asks "
    "if they do or impede each other, and claims neither. Where this fails they do not visibly help; whether they "
    "impede each other is said by the part on their interaction.)",
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


# The four of a seed: what drawing by importance does among peers, and what it does to a master.
FOUR = ("ISSGD with peers", "ASGD", "ISSGD with workers", "uniform")
HELP, IMPEDE, NEITHER, OPEN = (
    "they help each other",
    "they impede each other",
    "they do neither, visibly",
    "whether they help or impede each other is not shown",
)
DIVERGED = ("one of the four diverged", "one of the four diverged")
MEANT = (
    "With peers the fifth machine's parameter server descends; with workers its database only stores. What peers pull "
    "and push stands in line for its link, each way by itself; what masters and workers send does not, which is far "
    "less. Of peers, Tr in use is of the table as it was at an audit's step; each of them drew by what it had read of "
    "it, a pull or more before. A step takes as long with its examples' norms as without."
)


def finding_c13(runs: Runs, thresholds: Thresholds) -> Finding:
    """Whether they help or impede each other, and mean training losses at equal seconds; beside them, not judged, all
    else that tells the two apart."""
    found = contested(runs, C13, JUDGED, thresholds)
    if not found.values:
        return found
    values = {setting: dict(numbers) for setting, numbers in found.values.items()}
    parts, notes = [], ["Not judged:"]
    for setting in runs.settings:
        mine: dict[str, Any] = values.setdefault(setting, {})
        part, numbers = _interaction_part(runs, setting, thresholds)
        parts.append(part)
        mine |= numbers
        for contest in TOLD:
            part, numbers = contest.part(runs, setting, thresholds)
            if numbers:
                notes.append(part.text)
                mine[f"{contest.name}, {contest.what}"] = numbers
        for role in ROLES_TOLD:
            if told := _told(playing(runs, setting, role)):
                mine[role] = {what: number.plain() for what, number in told.items()}
                notes.append(f"{named(setting)}: {role}: {_text(told)}.")
    return Finding(C13, [*parts, *found.parts], values, "\n".join([*notes, MEANT]))


def _interaction_part(runs: Runs, setting: str, thresholds: Thresholds) -> tuple[Part, dict[str, Any]]:
    """That they help each other, visibly; its text says what they do."""
    gap, ends = interaction(runs, setting)
    rest = len({run.seed for role in FOUR for run in playing(runs, setting, role)} - {*gap.seeds})
    what = f"{named(setting)}: interaction"
    if not len(gap):
        return Part(f"{what}: no seed with exact audits of {', '.join(FOUR)}."), {}
    of, test = thresholds.visible, thresholds.test
    helped, impeded = (gap.part("", "", of=side * of, claimed=side, test=test) for side in (-1, 1))
    within = gap.part_within("", "", of, test)
    answers = {HELP: helped, IMPEDE: impeded, NEITHER: within}
    answer = next((word for word, part in answers.items() if part.tends() == "suggests it holds"), OPEN)
    text = (
        f"{what}: {answer}. What drawing by importance changes of ASGD's mean training loss, less what it changes of "
        "SGD's, relative, all four over the steps that all of them cover"
        + (f", 0 to {ends[0]:,.0f}" if ends[1] else "")
        + (f" or, of other seeds, up to {ends[1]:,.0f}" if ends[1] > ends[0] else "")
        + f" (negative: they help each other): {gap.text(of=-of)}"
        + (f"; {rest} seed{'s' if rest > 1 else ''} of which that is not known" if rest else "")
        + "."
    )
    part = gap.part(text, f"{what}: {answer}, {gap.told('+.1%')}.", of=-of, claimed=-1, test=test)
    return part, {"interaction": {**gap.plain(), "answer": answer, "steps": list(ends)}}


def interaction(runs: Runs, setting: str) -> tuple[PerSeed, tuple[float, float]]:
    """What importance sampling does to ASGD less what it does to SGD: relative differences of mean training losses.

    Returns:
        One a seed, infinite where drawing by importance made the one diverge, or kept it from that, and not the other;
        the fewest and the most steps that a seed's four all cover, over which it is.
    """
    groups = [{run.seed: run for run in playing(runs, setting, role) if run.finished or run.diverged} for role in FOUR]
    kept: dict[int, float] = {}
    ends = []
    for seed in sorted(set.intersection(*map(set, groups))):
        among, asgd, alone, sgd = (group[seed] for group in groups)
        curves = [run.series(QUANTITIES["training loss"]) for run in (among, asgd, alone, sgd) if run.finished]
        part = covered_by_all(*curves) if curves else None
        one, other = _change(among, asgd, part), _change(alone, sgd, part)
        if one is None or other is None or np.isnan(one - other):
            continue
        kept[seed] = one - other
        if part is not None and np.isfinite(one - other):
            ends.append(part[1])
    ends = ends or [0.0]
    return PerSeed(tuple(kept), np.array([*kept.values()], np.float64), DIVERGED), (min(ends), max(ends))


def _change(one: Run, other: Run, part: tuple[float, float] | None) -> float | None:
    """Of the mean training loss over this part, relative; of two that diverged nothing is known."""
    if one.diverged or other.diverged:
        return None if one.diverged == other.diverged else math.inf if one.diverged else -math.inf
    left, right = (run.series(QUANTITIES["training loss"]) for run in (one, other))
    return None if part is None else distance_between(left, right, part, True)


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
