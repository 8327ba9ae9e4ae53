"""How long a unit of work takes, by the wall's clock, beside reshuffled SGD's: work counts operations alone."""

from issgd_cli.claims.evidence import Run, Runs
from issgd_cli.claims.paired import difference
from issgd_cli.claims.verdicts import PerSeed

QUANTITY = "audit/loss/train"  # any that is recorded at the end


def relative(runs: Runs, baseline: str) -> dict[str, PerSeed]:
    """Method -> seconds a unit of work, in the baseline's of the same seed.

    Of runs that are one process alone: others' seconds are virtual, or those of several devices. And of two runs on one
    machine.
    """
    base = runs.of(method=baseline)
    return {method: difference(runs.of(method=method), base, _ratio, (method, baseline)) for method in runs.methods}


def _ratio(run: Run, base: Run) -> float | None:
    if run.machine != base.machine:
        return None
    own, other = seconds_of_work(run), seconds_of_work(base)
    return own / other if own and other else None


def seconds_of_work(run: Run) -> float | None:
    """Of training alone: what is audited is put aside, and looked at afterwards."""
    seconds, work = run.series(QUANTITY, "seconds").positions, run.series(QUANTITY, "examples").positions
    if run.config.cluster.kind != "alone" or not len(seconds) or not len(work) or not work[-1] > 0:
        return None
    return float(seconds[-1] / work[-1])
