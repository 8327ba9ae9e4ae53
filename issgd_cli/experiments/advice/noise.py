"""How much of what holds SGD up is noise, at the learning rate that it has: a trial's second run has less of it.

Where the run needs t steps for a loss, the one with 1 / QUIETER of the noise needs t', so that the share

    s = (1 - t' / t) / (1 - 1 / QUIETER)

of the steps is there because of the noise: 1 where steps are in proportion to it, 0 where it makes no difference. It is
above 1 where less noise saves more than its share: then steps go with a power of the noise, which t' / t tells. The
share of variance in a gradient's expected square (`Moment.variance_share`) says what a larger learning rate could gain,
too (McCandlish et al. 2018, section 2.2); at the one that there is, noise averages out over many short steps.
"""

import numpy as np
from numpy.typing import ArrayLike

from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.experiments.advice.costs import QUIETER
from issgd_cli.experiments.advice.trial import Trial

FALLEN = 0.95  # of the first loss: before it is below that, there is nothing to compare
MOST = 1.5  # s; ours: steps as the noise's square. A larger one is a spike's, or the end's of what there is to learn


def steps(noise: ArrayLike, variance: ArrayLike) -> Float64s:
    """That it takes to the same losses, in plain ones: 1 - s + s v; with s above 1 v^p, which is the same at s = 1.

    p is such that the quieter run, v = 1 / QUIETER, takes what it has taken: both laws go through it.

    Args:
        noise: s, from 0 to MOST.
        variance: v, a minibatch's in a plain one's.
    """
    share, left = np.asarray(noise, np.float64), np.maximum(variance, 0.0)
    power = -np.log(1 - np.maximum(share, 1.0) * (1 - 1 / QUIETER)) / np.log(QUIETER)
    return np.asarray(np.where(share <= 1, 1 - share * (1 - left), left**power))


def shares(trial: Trial) -> list[float]:
    """s by the loss at each moment of the trial's second half, in [0, MOST]; none of a loss that has hardly fallen.

    Losses are the least so far: both runs have spikes. Each counts from when it was first reached.
    """
    when = np.array(sorted(trial.measures))
    plain = np.minimum.accumulate([trial.measures[step].loss for step in when.tolist()])
    quieter = np.minimum.accumulate([trial.quieter[step] for step in when.tolist()])
    found = []
    for moment in trial.moments[len(trial.moments) // 2 :]:
        loss = float(plain[when == moment][0])
        if loss < FALLEN * plain[0]:
            late, soon = _reached(when, plain, loss), _reached(when, quieter, loss)
            found.append(float(np.clip((1 - soon / late) / (1 - 1 / QUIETER), 0.0, MOST)))
    return found


def _reached(when: Float64s, losses: Float64s, loss: float) -> float:
    """The first step with this loss, by falling losses at some steps; never: the last of these."""
    below = np.flatnonzero(losses <= loss)
    first = below[0] if len(below) else len(when) - 1
    around = slice(max(first - 1, 0), first + 1)
    return float(np.interp(-loss, -losses[around], when[around]))
