"""Every random draw of the project comes from a generator made here from (seed, role, index).

The global generators of Python, NumPy and torch are never touched, so a draw depends on nothing but its key:
not on what ran before, not on which process asks, not on whether the run was interrupted.
"""

from typing import Literal, get_args

import numpy as np

Role = Literal[
    "split",  # which examples are held out for validation
    "order",  # the order in which the examples of a split are stored
    "initial_weights",  # the model's parameters at step 0; index: layer
    "draws",  # the master's minibatches; index: step
    "shuffled_weights",  # of proposal.source = "shuffled" (section 4.2); index: the refreshed parameters' step
    "house_numbers",  # the built-in dataset; index: example
    "bootstrap",  # which examples a resample has (experiments/advice)
    "audit_draws",  # the monitor's own draws, to see whether their mean is the true gradient; index: step
    "reshuffling",  # the order of the examples in an epoch; index: epoch
    "audit_examples",  # those that audits are on; index: split
    "augmentation",  # random changes of the master's minibatches; index: step
    "loader_workers",  # what the workers of a data loader are seeded with; index: step
    "label_noise",  # which training labels are wrong, by data.split_seed, and what they say
    "presample",  # examples that the master looks at before it draws (methods/dlis.py); index: step
    "pruning",  # examples left out of an epoch, or for good; index: epoch
    "blocks",  # the master's minibatches of a block, drawn at once; index: its first step
    "advised",  # examples that `issgd advise` measures, index 0; how old norms are, index: 1 + moment
]

# A role's number is part of its draws: append to Role, never reorder it.
_NUMBER_OF_ROLE = {role: number for number, role in enumerate(get_args(Role))}


def generator(seed: int, role: Role, index: int = 0) -> np.random.Generator:
    """A generator that yields the same draws for the same (seed, role, index), on every machine.

    Args:
        seed: Non-negative; the run's seed, or the dataset's.
        role: What the draws are for. Two roles never share draws.
        index: Non-negative; which of the role's independent streams, for instance the step.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(_NUMBER_OF_ROLE[role], index))))
