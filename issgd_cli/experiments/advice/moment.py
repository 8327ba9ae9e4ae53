"""One moment of a trial: what norms of every age tell of the gradients then."""

from functools import cached_property

import numpy as np

from issgd_cli.equations import alain2015
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.experiments.advice.trial import AGE_FACTOR, Trial, ages_at
from issgd_cli.methods.drift import UNIFORM, Drift, with_uniform
from issgd_cli.methods.proposal import floored


class _Learned(Drift):
    """All of whose pairs are there, so that its law is found once."""

    @cached_property
    def law(self) -> Float64s:
        """As `fitted`."""
        return super().fitted()

    def fitted(self) -> Float64s:
        return self.law


class Moment:
    """See the module. Weights are of the n measured examples, for draws in proportion to them.

    Attributes:
        now: The gradients then.
        ages: Of the norms that are known, in steps, shape (A,).
        norms, output_norms: So many steps before, shapes (A, n).
        drift: What becomes of norms, learned from all of these and those of now.
    """

    def __init__(self, trial: Trial, step: int) -> None:
        """Of a trial, at this step."""
        self.now, self.size = trial.measures[step], trial.minibatch_size
        self.ages = np.array(ages_at(step))
        older = [trial.measures[step - age] for age in self.ages.tolist()]
        self.norms = np.stack([one.norms for one in older])
        self.output_norms = np.stack([one.output_norms for one in older])
        self.uniform = np.ones(len(self.now.norms))
        self.unit = float(self.now.norms.mean()) or 1.0
        self.drift = _Learned.none()
        for age, norms in zip(self.ages.tolist(), self.norms, strict=True):
            self.drift.add(norms / self.unit, np.full(len(norms), age), self.now.norms / self.unit)

    @property
    def ideal(self) -> Float64s:
        """Theorem 1's weights."""
        return self._unsmoothed(self.now.norms)

    def unsmoothed(self, age: int) -> Float64s:
        """Norms of a measured age for weights, as they were."""
        return self._unsmoothed(self.norms[self.ages.tolist().index(age)])

    def _unsmoothed(self, norms: Float64s) -> Float64s:
        return floored(norms)[0] if norms.any() else self.uniform

    def expected(self, ages: Float64s, random: np.random.Generator) -> Float64s:
        """Norms of these ages, shape (n,), made the best of: by what is to be expected of them (methods/drift.py).

        With UNIFORM of uniform draws, as methods have it.
        """
        norms = self.at(self.norms, ages, random)
        return with_uniform(self.drift.weights(norms / self.unit, ages), UNIFORM)

    def at(self, values: Float64s, ages: Float64s, random: np.random.Generator) -> Float64s:
        """Each example's value at its age, of shape (A, n): at one of the measured ages beside it, by chance.

        The nearer, by its logarithm, the likelier; before the first one there is none.
        """
        place = np.log(np.maximum(ages, 1.0)) / np.log(AGE_FACTOR)
        rows = np.minimum(np.floor(place + random.random(len(place))), len(self.ages) - 1).astype(np.int64)
        return np.asarray(values[rows, np.arange(len(rows))])

    def trace(self, weights: Float64s) -> float:
        """Tr(Sigma) of these draws (eq. 6)."""
        return alain2015.trace_of_covariance(self.now.norms**2, weights, self.now.gradient_norm2)

    def relative(self, weights: Float64s) -> float:
        """Tr(Sigma) in uniform draws'; 1 where these have none."""
        uniform = self.trace(self.uniform)
        return self.trace(weights) / uniform if uniform > 0 else 1.0

    @property
    def variance_share(self) -> float:
        """Of the variance in the expected square of a minibatch's mean gradient, drawn uniformly."""
        noise = self.trace(self.uniform) / self.size
        return noise / (noise + self.now.gradient_norm2) if noise > 0 else 0.0
