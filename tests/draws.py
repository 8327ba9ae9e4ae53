"""A tiny table, and every minibatch that a method may draw from it: what its estimate is in expectation."""

import itertools
from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray

from issgd_cli.database import Layout, Published, Weights
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.methods.method import Method, Seen
from issgd_cli.methods.table import Table

EXAMPLES = 6
OLD = np.arange(EXAMPLES) < 2


def tiny_table() -> Table:
    """Of six examples in chunks of two, with norms of gradients long gone; the first chunk's are five versions old."""
    random = np.random.default_rng(1)
    norms = random.lognormal(0, 1, EXAMPLES).astype(np.float32)
    before = (norms * random.uniform(0.7, 1.4, EXAMPLES)).astype(np.float32)
    versions, previous = np.array([1, 5, 6], np.int32), np.array([0, 4, 2], np.int32)
    workers = Weights(norms, before, versions, previous, np.array([0.1, 0.5, 0.6]))
    return Table.of(workers, Layout(EXAMPLES, 1, 1, 2), Published(6, 30), now=1.0)


def tiny_gradients() -> Float64s:
    """Of these examples, today's, shape (6, 3)."""
    sizes = np.array([0.1, 1, 10, 0.1, 1, 10])
    return np.asarray(np.random.default_rng(2).normal(0.5, 1, (EXAMPLES, 3)) * sizes[:, None])


def fixed(numbers: ArrayLike) -> np.random.Generator:
    """A generator whose random() gives these numbers."""

    class Fixed:
        def random(self, size: int) -> Float64s:
            values = np.atleast_1d(np.asarray(numbers, np.float64))
            assert values.size == size
            return values

    return cast(np.random.Generator, Fixed())


def every_block(weights: Float64s, size: int) -> Iterator[tuple[float, np.random.Generator]]:
    """Every systematic block of so many draws by these weights: its chance, and a generator that draws it."""

    class Chosen:
        def __init__(self, order: list[int], start: float, shuffle: list[int]) -> None:
            self.order, self.start, self.shuffle = order, start, shuffle

        def permutation(self, of: int | NDArray[np.int64]) -> NDArray[np.int64]:
            return np.array(self.order) if isinstance(of, int) else of[self.shuffle]

        def random(self) -> float:
            return self.start

    orders, shuffles = (list(itertools.permutations(range(number))) for number in (len(weights), size))
    for order in orders:
        ends = weights[list(order)].cumsum() * size / weights.sum()
        starts = np.unique(np.concatenate([[0.0, 1.0], np.round(ends % 1, 12)]))  # between two of them all is the same
        for low, high in itertools.pairwise(starts):
            for shuffle in shuffles:
                chosen = Chosen(list(order), (low + high) / 2, list(shuffle))
                yield (high - low) / len(orders) / len(shuffles), cast(np.random.Generator, chosen)


def seen_of(outputs: ArrayLike, losses: ArrayLike | None = None) -> Seen:
    """What a pass shows whose logits these are, shape (B, classes); each example is of class 0."""
    logits = torch.as_tensor(np.asarray(outputs, np.float64))
    targets = torch.zeros(len(logits), dtype=torch.int64)
    found = cross_entropy(logits, targets) if losses is None else torch.as_tensor(np.asarray(losses, np.float64))
    return Seen(found, logits, targets, cross_entropy)


def estimate(method: Method, step: int, size: int, gradients: Float64s) -> Float64s:
    """The weighted gradient of a step's minibatch, as the method itself draws and weighs it."""
    drawn = method.draw(step, size)
    (coefficients,) = method.weigh(drawn, seen_of(np.zeros((size, 2)))).double().numpy()
    return np.asarray(coefficients @ gradients[drawn.indices.numpy()])


def expected_estimate(method: Method, size: int, gradients: Float64s, monkeypatch: pytest.MonkeyPatch) -> Float64s:
    """Its mean over every minibatch of a method that draws in proportion to its weights, with replacement."""

    def draw_at(numbers: Float64s) -> None:
        monkeypatch.setattr(f"{type(method).__module__}.generator", lambda *key: fixed(numbers))

    chances = method.proposal.weights / method.proposal.weights.sum()
    ends = np.cumsum(chances)
    drawable = np.flatnonzero(chances)
    for within in (1e-9, 0.5, 1 - 1e-9):  # so an example's chance is the share of [0, 1) that draws it
        draw_at((ends - within * chances)[drawable])
        np.testing.assert_array_equal(method.draw(0, len(drawable)).indices, drawable)
    total = np.zeros(gradients.shape[1])
    for minibatch in itertools.product(drawable, repeat=size):
        chosen = np.array(minibatch)
        draw_at((ends - chances / 2)[chosen])
        total += chances[chosen].prod() * estimate(method, 0, size, gradients)
    return total
