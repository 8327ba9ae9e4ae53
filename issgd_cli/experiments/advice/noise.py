"""How much of what holds SGD up is noise, at the learning rate that it has: a trial's second run has less of it.

Where the run needs t steps for a loss, the one with 1 / QUIETER of the noise needs t', so that the share

    s = (1 - t' / t) / (1 - 1 / QUIETER)

of the steps is there because of the noise: 1 where steps are in proportion to it, 0 where it makes no difference. The
share of noise in a gradient's expected square (`Moment.noise_share`) says what a larger learning rate could gain, too
(McCandlish et al. 2018, section 2.2); at the one that there is, noise averages out over many short steps.
"""

import numpy as np

from issgd_cli.experiments.advice.trial import QUIETER, Trial

FALLEN = 0.95  # of the first loss: before it is below that, there is nothing to compare


def shares(trial: Trial) -> list[float]:
    """s by the loss at each moment of the trial's second half, in [0, 1]; none of a loss that has hardly fallen.

    Losses are the least so far: both runs have spikes.
    """
    steps = np.array(sorted(trial.measures))
    plain = np.minimum.accumulate([trial.measures[step].loss for step in steps.tolist()])
    quieter = np.minimum.accumulate([trial.quieter[step] for step in steps.tolist()])
    found = []
    for moment in trial.moments[len(trial.moments) // 2 :]:
        reached = plain[steps == moment][0]
        if reached < FALLEN * plain[0]:
            sooner = float(np.interp(-reached, -quieter, steps))  # never reached: at the last of its steps
            found.append(float(np.clip((1 - sooner / moment) / (1 - 1 / QUIETER), 0.0, 1.0)))
    return found
