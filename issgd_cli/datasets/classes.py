"""Which classes of a dataset are empty: labels that do not begin at 0, or a class that the split has left out."""

from collections.abc import Iterator, Sequence

import numpy as np

from issgd_cli.datasets.prepared import Prepared

MOST_NAMED = 5


def empty_classes(data: Prepared) -> Iterator[str]:
    """What a user should know of it before training, in words; nothing where every class can be learned and tested.

    Nor is there anything where targets are numbers.
    """
    if not (classes := data.classes):
        return
    held = {name: np.bincount(split.targets, minlength=classes) > 0 for name, split in data.splits.items()}
    nowhere = ~np.logical_or.reduce(list(held.values()))
    if (lacking := np.flatnonzero(~held["train"])).size:
        remedy = "; number the classes from 0 without gaps unless that is meant" if nowhere.any() else ""
        yield f"{_named(lacking.tolist(), classes)} no training example{remedy}"
    if (lacking := np.flatnonzero(~held["test"])).size:
        yield f"{_named(lacking.tolist(), classes)} no test example"


def _named(which: Sequence[int], classes: int) -> str:
    """class 0 of 0 to 10 has; classes 1, 2 and 7 others of 0 to 10 have."""
    if len(which) == 1:
        return f"class {which[0]} of 0 to {classes - 1} has"
    first = [str(number) for number in which[:MOST_NAMED]]
    more = len(which) - MOST_NAMED
    last = f"{more} more" if more > 0 else first.pop()
    return f"classes {', '.join(first)} and {last} of 0 to {classes - 1} have"
