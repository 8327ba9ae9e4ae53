"""The first paper's word on what travels: C12."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from issgd_cli.claims.contests import playing
from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.paired import per_seed
from issgd_cli.claims.settings import named
from issgd_cli.claims.thresholds import Thresholds
from issgd_cli.claims.verdicts import Claim, Finding, Part, PerSeed

C12 = Claim("C12", "ISSGD sends less through the network than ASGD: norms in the place of gradients.", "Sec. 2")

NAMES = "ISSGD with workers", "ASGD"
NO_PAIR = "no runs of the same seed"
COUNTED = (
    "Counted is what goes through the database: parameters, norms, gradients, and the monitor's samples. What the "
    "parameter server reads and publishes is not, since it stands where the database does; the master's is."
)


def finding_c12(runs: Runs, thresholds: Thresholds) -> Finding:
    """Bytes a second of the run's clock, and bytes a step, of ISSGD beside those of ASGD with as many machines."""
    parts: list[Part] = []
    values: dict[str, Any] = {}
    for setting in runs.settings:
        left, right = (playing(runs, setting, name) for name in NAMES)
        for what, rate in RATES.items():
            gap = _relative(left, right, rate)
            told = f"{named(setting)}: bytes a {what}, {NAMES[0]} against {NAMES[1]}"
            if not len(gap):
                parts.append(Part(f"{told}: {NO_PAIR}."))
                continue
            values.setdefault(setting, {})[f"bytes a {what}"] = gap.plain()
            text = f"{told}, relative difference: {gap.text(of=-thresholds.visible)}{_left_out(left, right, gap)}."
            brief = f"{told}: {gap.told('+.0%')}."
            parts.append(gap.part(text, brief, of=-thresholds.visible, claimed=-1, test=thresholds.test))
    return Finding(C12, parts, values, COUNTED if values else "")


def bytes_a_second(run: Run) -> float | None:
    """Of all actors, by the run's clock, over the whole run; None where nothing was counted."""
    sent = run.series("work/bytes_sent", "seconds")
    return float(sent.values[-1] / sent.positions[-1]) if len(sent.values) and sent.positions[-1] > 0 else None


def bytes_a_step(run: Run) -> float | None:
    """Likewise, by the steps of the parameters: a gradient that is applied is one."""
    sent = run.series("work/bytes_sent")
    return float(sent.values[-1] / sent.positions[-1]) if len(sent.values) and sent.positions[-1] > 0 else None


RATES = {"second": bytes_a_second, "step": bytes_a_step}


def _relative(left: Sequence[Run], right: Sequence[Run], rate: Callable[[Run], float | None]) -> PerSeed:
    """Of the seeds of which both have finished: what one that diverged has sent until then is no answer."""
    ours, theirs = (
        dict(zip(found.seeds, found.values, strict=True)) for found in (per_seed(left, rate), per_seed(right, rate))
    )
    gaps = {seed: ours[seed] / theirs[seed] - 1 for seed in ours if theirs.get(seed, 0) > 0}
    return PerSeed(tuple(gaps), np.array([*gaps.values()], np.float64))


def _left_out(left: Sequence[Run], right: Sequence[Run], gap: PerSeed) -> str:
    count = len({run.seed for run in (*left, *right)} - {*gap.seeds})
    return (
        f"; {count} seed{'s' if count > 1 else ''}, of which not both have finished and counted, not compared"
        if count
        else ""
    )
