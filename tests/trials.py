"""Trials of which the law of drift is known, as several tests of advice want them."""

from collections.abc import Callable

import numpy as np

from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.experiments.advice.costs import QUIETER, Cost, Costs
from issgd_cli.experiments.advice.trial import Measure, Trial, ages_at, moments_of

EXAMPLES, SIZE = 2000, 50  # an epoch has 40 steps

# What is counted differs from what is timed, so that neither passes for the other.
COSTS = Costs(0.01, Cost(0.7, 0.6), Cost(0.01, 0.03), Cost(1 / 3, 0.4), Cost(1.0, 1.0))

Drifting = Callable[[int], Float64s]


def even(step: int) -> Float64s:
    """All alike."""
    return np.ones(EXAMPLES)


def made(
    norms: Drifting,
    gradient_norm2: float = 0.0,
    costs: Costs = COSTS,
    steps: int = 960,
    outputs: Drifting = even,
    planned: int | None = None,
    noise: float = 1.0,
) -> Trial:
    """A trial in which all examples were measured; `norms` and `outputs`: step -> theirs.

    The loss falls evenly; of the steps `noise` are there because of it.
    """
    moments = moments_of(steps)
    measures, quieter = {}, {}
    for step in {0} | {moment - age for moment in moments for age in (0, *ages_at(moment))}:
        now = norms(step)
        measures[step] = Measure(step, 2 - step / steps, now, outputs(step), gradient_norm2)
        quieter[step] = 2 - step / steps / (1 - noise * (1 - 1 / QUIETER))
    return Trial(EXAMPLES, SIZE, steps, planned or steps, moments, measures, quieter, costs)


def staying(step: int) -> Float64s:
    """Uneven, and always the same: sigma = 1, so that ideal draws have exp(-1) of uniform draws' second moment."""
    return np.exp(np.random.default_rng(0).normal(0.0, 1.0, EXAMPLES))


def forgetting(step: int) -> Float64s:
    """As uneven at each step, and nothing to do with those of the step before."""
    return np.exp(np.random.default_rng([1, step]).normal(0.0, 1.0, EXAMPLES))
