"""The simulated cluster against real processes: the staleness that it tells is the one that there is."""

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.agreement import (
    BAND,
    QUARTILES,
    SECONDS,
    VERSIONS,
    Compared,
    TooShortError,
    compare,
    deviation,
    problem,
)

# Of each attempt; 800 are 5 seconds of training, and mostly some 25 refreshes. How many are left once all workers are
# at work depends on how fast processes start on a machine, and a load that comes and goes within a run makes it
# unlike its simulation. Longer runs bear more of both; a wrong simulation is wrong however long it lasts.
STEPS = (800, 1600, 3200)


def medians(found: list[Compared]) -> dict[str, float]:
    """Of three runs: how far the ages are off, and of one run with each of three limits, how far what is kept is."""
    kept = [deviation(one.ratio) for one in found if one.limit is not None]
    assert len(kept) == len(QUARTILES)
    ages = {
        quantity: deviation(float(np.median([one.ratio for one in found if one.quantity == quantity])))
        for quantity in (SECONDS, VERSIONS)
    }
    return {**ages, "kept": float(np.median(kept))}


@pytest.mark.long
def test_weights_are_as_stale_on_the_simulated_cluster_as_on_the_local_one(tmp_path: Path) -> None:
    told = []
    for steps in STEPS:
        place = tmp_path / str(steps)
        place.mkdir()
        try:
            found = compare(problem(place, steps), place, repeats=3, limited_repeats=1)
        except TooShortError as error:
            told.append(str(error))
            continue
        off = medians(found)
        told.append(f"with {steps} steps off by {off}, {BAND} is allowed: {found}")
        if max(off.values()) <= BAND:
            print(*told, sep="\n")
            return
    pytest.fail("\n".join(told))
