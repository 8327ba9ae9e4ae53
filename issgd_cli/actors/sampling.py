"""An audit on a fixed random sample of the examples, for sets and networks that are too large to audit whole.

Of n of the N training examples, drawn at random without replacement, over all such samples:

- Unbiased are the means of losses and errors, ||g_TRUE||^2, and every trace. Those of eq. 6 and 9 have the mean weight
  of all N, which is known, and of the sample only what is not; that of eq. 7 has its squared mean corrected,
  and by the norms at the outputs, which are known of the sample alone, the product of its two means.
- Where the weights in use leave examples out, the others in the sample are a sample of all others, in which the traces
  over these are unbiased, given how many it holds. They are NaN where it holds fewer than two.
- What is made of several estimates, such as Tr(stale) / Tr(uniform), or of ranks, has a bias that falls as 1/n. Two
  traces are of the same examples, so that their ratio varies less than they do. By chance Tr(ideal) may come out above
  a trace that is close.
- Standard errors are of first order in 1/n: the spread of how much each example bears on the estimate. Those of
  ||g_TRUE||^2 are too large, at most by sqrt 2, where the mean gradient is lost in the sample's noise.

There is no `estimator/error_ratio`: the mean gradient that it would be compared with is not known.
"""

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from issgd_cli.actors.actor import Operation
from issgd_cli.actors.auditing import AUDIT_MINIBATCH, measured, ranked, stale_weights
from issgd_cli.database import SPLITS, Layout, Split
from issgd_cli.datasets.examples import Examples
from issgd_cli.equations import alain2015
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.equations.statistics import product_of_means, standard_error
from issgd_cli.losses import Objective
from issgd_cli.methods.proposal import floored
from issgd_cli.randomness import generator
from issgd_cli.runs.audits import Audit
from issgd_cli.scores.projection import projections

Rows = NDArray[np.int64]
Sample = Mapping[Split, Rows]  # indices in order, shape (n,)


def audit_sample(seed: int, examples: int | None, layout: Layout) -> Sample | None:
    """The examples that a run's audits are on: so many of each split, or all of a smaller one; None: all of all."""
    sizes = {split: layout.examples(split) for split in SPLITS}
    if examples is None or examples >= max(sizes.values()):
        return None
    return {
        split: np.sort(generator(seed, "audit_examples", number).choice(size, min(examples, size), replace=False))
        for number, (split, size) in enumerate(sizes.items())
    }


@dataclass(frozen=True)
class _Sampled:
    """What a sample of some of the training examples shows of all of these.

    Attributes:
        examples: How many they are, N of the sample's n.
        squared_norms: ||g(x_n)||^2, shape (n,).
        gradient_norm2: Of the sample's mean gradient.
        projections: Of each gradient on that, g(x_n) . g, shape (n,).
    """

    examples: int
    squared_norms: Float64s
    gradient_norm2: float
    projections: Float64s

    def true_gradient_norm2(self) -> tuple[float, Float64s]:
        """An unbiased estimate of ||g_TRUE||^2, and how much each example bears on it, shape (n,)."""
        n = len(self.squared_norms)
        if n < 2 and n < self.examples:
            return math.nan, np.full(n, math.nan)
        value = alain2015.gradient_norm2_unbiased(
            [self.gradient_norm2], [n], float(self.squared_norms.mean()), self.examples
        )
        k = (self.examples - n) / max(1, self.examples - 1)
        along_others = (n * self.projections - k * self.squared_norms) / (n - k)  # whose mean is the estimate
        return value, 2 * along_others

    def trace(self, name: str, second_moment: float, parts: Float64s) -> dict[str, float]:
        """Tr(Sigma), a second moment less ||g_TRUE||^2; `parts`: how each example bears on the former, shape (n,)."""
        norm2, parts_of_norm2 = self.true_gradient_norm2()
        return _told(name, second_moment - norm2, parts - parts_of_norm2, self.examples)

    def traces(self, second_moments: Mapping[str, Float64s]) -> dict[str, float]:
        """Those whose second moment is a mean over examples, by their names, shape (n,) each."""
        return {
            name: value
            for trace, parts in second_moments.items()
            for name, value in self.trace(trace, float(parts.mean()) if len(parts) else math.nan, parts).items()
        }


def _told(name: str, value: float, parts: Float64s, population: int) -> dict[str, float]:
    return {name: value, f"{name}/standard_error": standard_error(parts, population)}


def sampled_quantities(
    loss: Objective,
    model: torch.nn.Module,
    examples: Mapping[Split, Examples],
    sample: Sample,
    point: Audit,
    extra_smoothings: tuple[float, ...],
) -> Generator[Operation, None, dict[str, float]]:
    """Estimates of the quantities of an exact audit, each with its standard error; see the module.

    Announces each minibatch, and returns the values by their names without the prefix `audit/`.
    """
    rows, drawn = sample["train"], point.weights > 0  # (n,), (N,)
    found = yield from measured(loss, model, examples, drawn, sample)
    values: dict[str, float] = {}
    for name, split, of_examples in found.of_splits():
        values |= _told(name, float(of_examples.mean()), of_examples, len(examples[split]))
    squared_norms, norms = found.squared_norms, np.sqrt(found.squared_norms)

    def over(which: NDArray[np.bool_]) -> Generator[Operation, None, _Sampled]:
        """Of these training examples, shape (N,)."""
        part = which[rows]
        gradient = (found.gradients.sum(0) if which.all() else found.gradients[1]) / max(1, part.sum())
        along = yield from _projections(loss, model, examples["train"], rows[part], gradient)
        return _Sampled(int(which.sum()), squared_norms[part], float(gradient.square().sum()), along)

    everybody = yield from over(np.ones(len(drawn), np.bool_))
    usable = everybody if drawn.all() else (yield from over(drawn))
    norm2, parts = everybody.true_gradient_norm2()
    values |= _told("gradient_norm2", norm2, parts, everybody.examples)
    in_use = point.weights[drawn].mean() / point.weights[rows][drawn[rows]] * usable.squared_norms
    values |= usable.traces({"trace/in_use": in_use})
    if usable is not everybody:
        values |= usable.traces({"trace/uniform_in_use": usable.squared_norms})
    of_ideal = product_of_means(norms, norms, everybody.examples)
    values |= everybody.trace("trace/ideal", of_ideal, 2 * norms.mean() * norms)
    values |= ranked(found)
    if found.output_norms.any():
        weights = floored(found.output_norms)[0]
        inverse = squared_norms / weights
        moment = product_of_means(weights, inverse, everybody.examples)
        values |= everybody.trace("trace/by_outputs", moment, inverse.mean() * weights + weights.mean() * inverse)
    stale = stale_weights(point.previous, point.smoothing, extra_smoothings)
    by_stale = {name: weights.mean() / weights[rows] * squared_norms for name, weights in stale.items()}
    return values | everybody.traces({"trace/uniform": squared_norms, **by_stale})


def _projections(
    loss: Objective, model: torch.nn.Module, examples: Examples, rows: Rows, direction: torch.Tensor
) -> Generator[Operation, None, Float64s]:
    """Of the gradients of these examples on a direction, shape (n,)."""
    found = np.zeros(len(rows))
    for first in range(0, len(rows), AUDIT_MINIBATCH):
        part = slice(first, first + AUDIT_MINIBATCH)
        yield Operation("audit", examples=len(rows[part]))
        along = projections(loss, model, *examples[rows[part]], direction)
        found[part] = along.double().cpu().numpy()
    return found
