"""How gradient norms drift: what square to expect of a norm that was so large so long ago, learned from pairs of them.

The best proposal for a table that is out of date. With q_i free, E sum_i g_i^2 / q_i is least where q_i is in
proportion to sqrt(E[g_i^2 | what is known of i]), as theorem 1 has it for norms that are known. Known are an example's
old norm and its age, so what is wanted is w(old, age), and pairs (old, age -> new) of the same examples at two times
show how good it is: on pairs of uniform draws, as the table's, the variance of eq. 9 is, but for ||g_TRUE||^2, the mean
of w times the mean of new^2 / w. w is what makes this least, among functions that are smooth.
`variance_optimal_constant` does so for w = old + c. Pairs of the method `second-moment` are its own draws, by q, and
count as they come, unweighted: what is to be expected at an old norm and an age is the same, since q is a function of
these, but a smooth w is nearest to it where q draws often.

Smooth: log w is linear between knots, each a factor of 2 from the next in the norm, 4 in the age, so that pairs are
only counted by knot. With p_k the share of the pairs at knot k, r_k of the sum of their new squares and e_k = log w_k,

    minimise  log sum_k p_k exp(e_k) + log sum_k r_k exp(-e_k) + bends / P,

convex in e, a few Newton steps. Without the last term it is the root mean square at each knot, w_k^2 ~ r_k / p_k, which
rare large squares spoil where pairs are few: P pairs stand against BEND for each bend in log w over the norm, so that
where nothing is seen the law goes on as the power of the norm that it was, and STEP for each difference from one age to
the next. Nothing else is assumed: not that norms keep their order, nor how fast they forget.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from issgd_cli.equations.alain2015 import Float64s

LOWEST, NORMS, AGES = -16, 24, 8  # knots: norms from 2^LOWEST of the unit on by factors of 2, ages from 1 on by 4
KNOTS = NORMS * AGES
# Ours, from the synthetic tables of tests/methods/laws.py, by how far the second moment is above the best function's.
# Of 20,000 pairs a tenth or ten times as much costs less than a point; of 2,000 ten times costs up to three (5.2% for
# 2.3% where norms jump, 6.1% for 3.5% where most examples are learned), as does a tenth where most are learned (6.5%).
BEND, STEP = 100.0, 10.0
# Of the draws; ours. With 0.1 an example that is all but learned, and is then forgotten, comes with ten times its
# gradient: in equal-work's setting `fast` five runs of six on MNIST had late spikes of 50 to 150 times the loss that
# they ended with; with 0.3 none was above 13 times. Its price on the same tables, where w alone is within 1% of the
# best function's second moment: it is 7% above that where norms are forgotten slowly, 2% where they jump or most are
# learned, and 10% where they stay.
UNIFORM = 0.3


def _roughness() -> Float64s:
    bends, steps = np.diff(np.eye(NORMS), 2, axis=0), np.diff(np.eye(AGES), axis=0)
    of_norms, of_ages = np.kron(np.eye(AGES), bends.T @ bends), np.kron(steps.T @ steps, np.eye(NORMS))
    return BEND * of_norms + STEP * of_ages


@dataclass
class Drift:
    """The pairs so far, counted.

    Attributes:
        counts: Of pairs at each knot, by age and norm, shape (KNOTS,).
        squares: Sums of their new norms' squares, in squares of the unit, shape (KNOTS,).
    """

    counts: Float64s
    squares: Float64s

    @classmethod
    def none(cls) -> "Drift":
        """No pairs."""
        return cls(np.zeros(KNOTS), np.zeros(KNOTS))

    def add(self, old: ArrayLike, ages: ArrayLike, new: ArrayLike) -> None:
        """More pairs.

        Args:
            old: Norms, in units of the mean of the table that they were in, shape (P,).
            new: What has become of them, in the same unit, shape (P,).
            ages: How much time is between them, from 1 on, shape (P,).
        """
        norm, age = _place(old, ages)
        knots = np.rint(age).astype(np.int64) * NORMS + np.rint(norm).astype(np.int64)
        self.counts += np.bincount(knots, minlength=KNOTS)
        self.squares += np.bincount(knots, np.square(np.asarray(new, np.float64)), minlength=KNOTS)

    def fade(self, by: float) -> None:
        """Pairs so far count so many times what they did."""
        self.counts *= by
        self.squares *= by

    def weights(self, norms: ArrayLike, ages: ArrayLike) -> Float64s:
        """What to draw examples in proportion to: the root of the square that is to be expected, but for a factor.

        All alike where there is nothing to learn from.

        Args:
            norms: As they were, in units of the mean of the table that they are in, shape (N,).
            ages: How long ago that will be, from 1 on, shape (N,).
        """
        at_knots = self.fitted().reshape(AGES, NORMS)
        norm, age = _place(norms, ages)
        left, young = (np.minimum(np.floor(place), most - 2) for place, most in ((norm, NORMS), (age, AGES)))
        right, old = norm - left, age - young  # how near to the knots on their other side
        row, column = young.astype(np.int64), left.astype(np.int64)
        between = [(1 - right) * at_knots[row + k, column] + right * at_knots[row + k, column + 1] for k in (0, 1)]
        return np.asarray(np.exp((1 - old) * between[0] + old * between[1]))

    def fitted(self) -> Float64s:
        """log w at the knots, shape (KNOTS,); see the module."""
        logs, total = np.zeros(KNOTS), self.counts.sum()
        if total <= 0 or self.squares.sum() <= 0:
            return logs
        p, r, roughness = self.counts / total, self.squares / self.squares.sum(), _roughness() / total
        for _ in range(MOST_STEPS):
            value, drawn, brought = _value(logs, p, r, roughness)
            slope = drawn - brought + roughness @ logs
            curvature = np.diag(drawn + brought) - np.outer(drawn, drawn) - np.outer(brought, brought) + roughness
            step = _solution(curvature + RIDGE / total * np.eye(KNOTS), slope)
            gain = float(slope @ step)
            if gain < ENOUGH:
                break
            length = 1.0
            while length > ENOUGH and _value(logs - length * step, p, r, roughness)[0] > value - length * gain / 4:
                length /= 2
            logs = logs - length * step
        return logs


def with_uniform(weights: Float64s, share: float) -> Float64s:
    """The same draws, but for such a share of uniform ones; on the average 1, shape (N,).

    The share bounds every importance weight by 1 / share, however wrong the weights are, and the second moment by that
    of uniform draws over it. Where they are right it costs at most a factor 1 / (1 - share).
    """
    return np.asarray((1 - share) * weights / weights.mean() + share)


MOST_STEPS, ENOUGH = 50, 1e-6  # Newton's; three or four do
RIDGE = 1e-6  # of a pair: one factor of all weights is as good as another


def _solution(matrix: Float64s, vector: Float64s) -> Float64s:
    """By torch, on as many threads as it is told; NumPy would take all cores, each in the way of somebody."""
    found: Float64s = torch.linalg.solve(torch.from_numpy(matrix), torch.from_numpy(vector)).numpy()
    return found


def _value(logs: Float64s, p: Float64s, r: Float64s, roughness: Float64s) -> tuple[float, Float64s, Float64s]:
    """What is minimised, and the shares of the knots in its two sums."""
    (drawn, log_drawn), (brought, log_brought) = _shares(p, logs), _shares(r, -logs)
    return float(log_drawn + log_brought + logs @ roughness @ logs / 2), drawn, brought


def _shares(of: Float64s, logs: Float64s) -> tuple[Float64s, float]:
    """The terms of sum_k of_k exp(logs_k) as shares of it, shape (KNOTS,), and its logarithm."""
    most = logs[of > 0].max()
    terms = of * np.exp(np.minimum(logs - most, 0.0))  # beyond `most` are none but zeros
    return terms / terms.sum(), float(most + np.log(terms.sum()))


def _place(norms: ArrayLike, ages: ArrayLike) -> tuple[Float64s, Float64s]:
    """Where among the knots, counted from the first; what is beyond them is at the last."""
    norm = np.log2(np.maximum(np.asarray(norms, np.float64), 2.0**LOWEST)) - LOWEST
    age = np.log2(np.maximum(np.asarray(ages, np.float64), 1.0)) / 2
    return np.minimum(norm, NORMS - 1.0), np.minimum(age, AGES - 1.0)
