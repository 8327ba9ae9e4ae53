"""From the table of norms to a proposal, and from a proposal to drawn examples with their importance weights."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from issgd_cli.equations.alain2015 import Float64s, importance_weights
from issgd_cli.errors import WeightError
from issgd_cli.methods.smoothing import smoothed

LimitMode = Literal["drop", "fill"]

# The least weight a usable example gets, as a fraction of the mean: small enough to leave the proposal alone, large
# enough that a float64 cumulative sum over 10^7 examples still has room to draw it.
FLOOR = 1e-8


@dataclass(frozen=True)
class Proposal:
    """The distribution q that the master draws from.

    Attributes:
        weights: omega, float64, shape (N,); 0 for examples that can't be drawn.
        support: How many weights are positive.
        total: The last of the running sums.
        last: The last example that can be drawn.
        searched: Running sums of the weights, and the weights, where draws are searched for, float64, shapes (N,).
        floored: How many usable weights were raised to the floor.
        fallback: True when too few weights were usable and the draws are uniform over all N.
    """

    weights: Float64s
    support: int
    total: float
    last: int
    searched: tuple[Tensor, Tensor]
    floored: int = 0
    fallback: bool = False

    @classmethod
    def of(cls, weights: ArrayLike, floored: int = 0, fallback: bool = False) -> "Proposal":
        """A proposal that draws in proportion to `weights`.

        Raises:
            WeightError: A weight is negative, NaN or infinite, or none is positive.
        """
        omega = np.array(weights, np.float64)  # a copy: the proposal stays what it is
        if omega.ndim != 1 or omega.size == 0:
            raise WeightError(f"Probability weights must have shape (N,) with N >= 1, not {omega.shape}.")
        # searchsorted would accept all of these in silence.
        if not (omega.min() >= 0 and omega.max() < np.inf):
            _refuse(omega, ~np.isfinite(omega), "NaN or infinite")
            _refuse(omega, omega < 0, "negative")
        weights = torch.from_numpy(omega)
        cumulative = weights.cumsum(0)  # NumPy's to the bit, six times faster
        total = float(cumulative[-1])
        if not 0 < total < np.inf:
            raise WeightError(f"The {omega.size} probability weights sum to {total}: nothing can be drawn.")
        # Where the sums reach their total: an index past it would have no weight.
        last = int(torch.searchsorted(cumulative, total))
        return cls(omega, int(np.count_nonzero(omega)), total, last, (cumulative, weights), floored, fallback)

    @classmethod
    def uniform(cls, examples: int, fallback: bool = False) -> "Proposal":
        """Plain SGD's proposal."""
        return cls.of(np.ones(examples), fallback=fallback)

    def on(self, device: torch.device) -> "Proposal":
        """The same, searched for its draws on the device, if that is CUDA: not every other one has float64."""
        if device.type != "cuda":
            return self
        cumulative, weights = self.searched
        return replace(self, searched=(cumulative.to(device), weights.to(device)))

    def draw(self, generator: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """Examples drawn with replacement, and the factor that each one's loss is multiplied by.

        The same ones wherever they are searched for, to the bit: random numbers always come from the CPU's generator.

        Returns:
            Indices, int64, shape (size,); importance weights, float64, shape (size,); both where they are searched for.

        Source: section 4.1.
        """
        cumulative, _ = self.searched
        places = torch.from_numpy(generator.random(size) * self.total).to(cumulative.device, non_blocking=True)
        # right=True never lands on a zero weight; where random() * total rounds up to the total it runs off the end.
        indices = torch.searchsorted(cumulative, places, right=True).clamp_(max=self.last)
        return indices, self._factors(indices)

    def draw_systematically(self, generator: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """Examples drawn all at once, so that example i comes floor(size q_i) or ceil(size q_i) times.

        In a random order, the examples lay their shares of [0, 1) end to end; `size` equal steps from a random start
        land on those that are drawn, and these are shuffled. So each place holds example i with chance q_i: what is
        estimated from one place is unbiased, as from independent draws, and places depend on each other. With equal
        weights and size = N this is a shuffle of all. O(N + size).

        Returns:
            As `draw`.

        Source: systematic sampling (Madow 1949), its list in random order.
        """
        order = generator.permutation(len(self.weights))
        drawn = order[steps_along(self.weights[order], float(generator.random()), size)]
        indices = torch.from_numpy(generator.permutation(drawn)).to(self.searched[0].device, non_blocking=True)
        return indices, self._factors(indices)

    def _factors(self, indices: Tensor) -> Tensor:
        return importance_weights(self.searched[1], indices, mean=self.total / self.support)


def steps_along(weights: Float64s, start: float, size: int) -> NDArray[np.int64]:
    """Where so many equal steps along the weights, laid end to end, land; the first is `start` of a step from the edge.

    Args:
        weights: Shape (N,), non-negative, not all zero.
        start: In [0, 1).
        size: How many.

    Returns:
        Places in ascending order, never one of weight 0, shape (size,).
    """
    ends = np.cumsum(weights)
    # Steps up to each end. Rounding may lose the last step, or put it behind the end: it is the last example's.
    passed = np.minimum(np.ceil(ends * (size / ends[-1]) - start), size)
    passed[ends == ends[-1]] = size
    return np.repeat(np.arange(len(weights)), np.diff(passed, prepend=0.0).astype(np.int64))


def usable_norms(norms: ArrayLike, usable: NDArray[np.bool_]) -> Float64s:
    """The usable among the database's norms, in float64.

    Raises:
        WeightError: One of them is negative, NaN or infinite.
    """
    kept = np.asarray(norms)[usable].astype(np.float64)
    _refuse(kept, ~np.isfinite(kept), "NaN or infinite")
    _refuse(kept, kept < 0, "negative")
    return kept


def proposal(
    norms: ArrayLike,
    usable: NDArray[np.bool_],
    constant: float,
    limit_mode: LimitMode = "drop",
    minimum_usable_fraction: float = 0.1,
) -> Proposal:
    """The proposal that the master's table of norms gives.

    Usable are the examples that are scored and within the staleness limit. Their norms are smoothed after the filter,
    as the original code did. The others are left out with `drop` (appendix B.1: unbiased for the usable examples'
    mean gradient only), or get the mean usable weight with `fill` (unbiased for all N).

    Args:
        norms: ||g(x_n)|| as the database has them, shape (N,); unusable entries are not looked at.
        usable: Shape (N,).
        constant: Smoothing constant c >= 0 or inf, from `issgd_cli.methods.smoothing`.
        limit_mode: What becomes of unusable examples.
        minimum_usable_fraction: Below it, draws are uniform over all N.

    Raises:
        WeightError: A usable norm is negative, NaN or infinite, or all weights are zero.
    """
    count = int(np.count_nonzero(usable))
    if count == 0 or count < minimum_usable_fraction * usable.size:
        return Proposal.uniform(usable.size, fallback=True)
    kept = smoothed(usable_norms(norms, usable), constant)
    mean = kept.mean()
    if mean == 0:
        raise WeightError(
            f"All {count} usable gradient norms are zero, so they define no proposal. Set `smoothing` (of a run: "
            "`proposal.smoothing`) to a positive number, for instance 1.0, to draw uniformly there."
        )
    kept, low = floored(kept)
    weights = np.full(usable.size, kept.mean() if limit_mode == "fill" else 0.0)
    weights[usable] = kept
    return Proposal.of(weights, floored=low)


def floored(weights: Float64s) -> tuple[Float64s, int]:
    """The weights, none below FLOOR times their mean, and how many had to be raised."""
    least = FLOOR * weights.mean()
    return np.maximum(weights, least), int(np.count_nonzero(weights < least))


def _refuse(weights: Float64s, bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise WeightError(
            f"{int(bad.sum())} of {weights.size} weights are {what} (the first: {weights[first]} at {first}). "
            "A proposal needs finite weights >= 0; look for a diverging loss, or a worker with faulty hardware."
        )
