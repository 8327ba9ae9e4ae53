"""A train part made harder when it is loaded: some of its labels wrong, or its classes of unequal sizes.

Nothing on the disk changes, nor do the valid and the test part: a run is judged by true labels and all classes alike,
and inputs are standardised as ever. What is changed is decided by the data's own split_seed, not by the run's seed:
all runs on such data learn from the same examples.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.prepared import Prepared, Split
from issgd_cli.errors import DataError
from issgd_cli.randomness import generator


def altered(data: Prepared, split_seed: int, *, label_noise: float = 0.0, imbalance: float = 1.0) -> Prepared:
    """The same dataset with another train part, under a fingerprint of its own; itself where nothing is to change.

    Args:
        data: As it was prepared.
        split_seed: That it was prepared with.
        label_noise: See `noisy`; of what `imbalance` has left.
        imbalance: See `thinned`.

    Raises:
        DataError: Its targets are numbers, or it has one class alone.
    """
    if label_noise == 0 and imbalance == 1:
        return data
    if data.classes < 2:
        found = "one class alone" if data.classes else "numbers as targets"
        raise DataError(
            f"data.label_noise and data.imbalance are for classes, and {data.name} has {found}. Leave them out."
        )
    train, fingerprint = data.splits["train"], data.fingerprint
    if imbalance != 1:
        rows = thinned(train.targets, data.classes, imbalance)
        train = Split(train.inputs, train.targets[rows], rows)
        fingerprint += f"-imbalance{float(imbalance)!r}"
    if label_noise != 0:
        train = replace(train, targets=noisy(train.targets, data.classes, label_noise, split_seed))
        fingerprint += f"-noise{float(label_noise)!r}"
    return replace(data, splits={**data.splits, "train": train}, fingerprint=fingerprint)


def thinned(labels: NDArray[np.int64], classes: int, imbalance: float) -> NDArray[np.int64]:
    """Which examples are left, in order: of class c the first n_c imbalance^(-c / (classes - 1)) of its n_c, rounded
    down, at least one. The stored order is random, so they are a fair sample.

    Source: Cui et al. 2019, section 5.1: sizes fall exponentially, the largest is `imbalance` times the smallest.

    Args:
        labels: Shape (n,).
        classes: How many, 2 or more.
        imbalance: 1 or more.
    """
    left = np.zeros(len(labels), bool)
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        left[members[: max(1, int(len(members) * imbalance ** (-label / (classes - 1))))]] = True
    return np.flatnonzero(left)


def noisy(labels: NDArray[np.int64], classes: int, fraction: float, seed: int) -> NDArray[np.int64]:
    """The labels, so many of them, rounded, changed to one of the others, all with equal chances.

    A larger fraction of the same labels changes these, and more.

    Args:
        labels: Shape (n,).
        classes: How many, 2 or more.
        fraction: In [0, 1].
        seed: Decides which, and to what.
    """
    random = generator(seed, "label_noise")
    changed = random.permutation(len(labels))[: round(fraction * len(labels))]
    by = random.integers(1, classes, len(labels))[: len(changed)]
    found = labels.copy()
    found[changed] = (labels[changed] + by) % classes
    return found
