"""Whether importance sampling pays: what each method needs to reach what reshuffled SGD reaches, predicted.

Noise is what methods differ by: a minibatch of B draws in proportion to q has the mean gradient's expected square
||g||^2 + Tr_q / B. Of the steps that SGD takes, a share s is there because of it, and is in proportion to it (noise.py
measures s, by a run with less noise). So

    steps(q) / steps(uniform) = 1 - s + s Tr_q / Tr_uniform,

with Tr_q / Tr_uniform the mean over the moments of a plain run: that is the time that a method takes, in reshuffled
SGD's; times 1 + c, with c what is computed beside a step, in such steps, it is its work. Tr_q is eq. 6 on the measured
examples, with the weights that they would have had then, by norms as old as the method's table would have held them
(ways.py).

Assumed is that the run goes through the same losses and norms, only faster; that the learning rate stays (with less
noise a larger one may do, and gain more); that noise is as harmful whatever its direction; that draws are systematic,
which keeps reshuffling's own gain (independent draws lose it, by how much is not predicted); and that after the trial
all is as at its last moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from issgd_cli.config.config import Config
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.experiments.advice.moment import Moment
from issgd_cli.experiments.advice.noise import shares
from issgd_cli.experiments.advice.trial import QUIETER, Trial
from issgd_cli.experiments.advice.ways import Way, Ways
from issgd_cli.randomness import generator

PAYS = 0.03  # less gain than this is not worth a setting
RESAMPLES, CERTAINTY = 400, 0.9


class Interval(NamedTuple):
    """That CERTAINTY of the resamples are within."""

    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """Of one way to draw; see the module.

    Attributes:
        way: Which.
        trace: Tr(Sigma) in uniform draws', mean over the run.
        trace_by_moment: At each moment.
        survives: The part of the ideal proposal's gain in it; NaN where that has none.
        time: Steps, in reshuffled SGD's.
        work: With what is computed beside them.
        interval: Of `work`: a bootstrap over the examples, each resample with one of the last moments' s; laws of drift
            and ||g|| stay as measured.
        by_moment: `work` at each moment.
    """

    way: Way
    trace: float
    trace_by_moment: tuple[float, ...]
    survives: float
    time: float
    work: float
    interval: Interval
    by_moment: tuple[float, ...]


@dataclass(frozen=True)
class Advice:
    """What a trial tells.

    Attributes:
        trial: Which.
        moments: Of the trial, in order.
        parts: Of the planned run, that each of them stands for.
        noise: s of the module, by each of the last moments' losses; none: the loss has hardly fallen.
        uniform, ideal: What all are compared with, and what none can surpass.
        others: All that can be had.
        choice: The one of them with the least work, where it pays; else uniform draws.
        because: Why, in words.
        quickest: The one that takes the least time, with workers on devices of their own; None: not less than `choice`.
    """

    trial: Trial
    moments: Sequence[Moment]
    parts: Float64s
    noise: Sequence[float]
    uniform: Forecast
    ideal: Forecast
    others: Sequence[Forecast]
    choice: Forecast
    because: str
    quickest: Forecast | None


def advice(trial: Trial, config: Config) -> Advice:
    """From a trial of the run that the configuration plans."""
    moments = [Moment(trial, step) for step in trial.moments]
    parts = np.full(len(moments), trial.steps / trial.planned / len(moments))
    parts[-1] += 1 - trial.steps / trial.planned
    ways, noise = Ways(trial, moments, config), shares(trial)
    told = _Forecaster(moments, parts, noise, config.seed)
    uniform, ideal, *others = map(told.forecast, (ways.uniform(), ways.ideal(), *ways.others()))
    best = min(others, key=lambda one: one.work)
    pays = best.work <= 1 - PAYS and best.interval.high < 1
    choice = best if pays else uniform
    because = _gain(ideal, best, told.noise) if pays else _obstacle(ideal, others, noise)
    return Advice(
        trial, moments, parts, noise, uniform, ideal, others, choice, because, _quickest(others, choice.time - PAYS)
    )


class _Forecaster:
    """What all forecasts of a trial share.

    Attributes:
        noise: s of the module.
    """

    def __init__(self, moments: Sequence[Moment], parts: Float64s, noise: Sequence[float], seed: int) -> None:
        self.moments, self.parts = moments, parts
        self.noise = float(np.mean(noise)) if noise else 0.0
        random, n = generator(seed, "bootstrap"), len(moments[0].uniform)
        self._counts = random.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)  # (R, n)
        self._noise = random.choice(noise or [0.0], RESAMPLES)  # (R,)

    def forecast(self, way: Way) -> Forecast:
        """What comes of a way to draw."""
        each = list(zip(self.moments, way.weights, strict=True))
        traces = np.array([moment.relative(weights) for moment, weights in each])
        ideal = float(self.parts @ [moment.relative(moment.ideal) for moment in self.moments])
        trace, beside, tail = float(self.parts @ traces), 1 + way.beside, (1 - CERTAINTY) / 2
        resampled = self.parts @ [_resampled(moment, weights, self._counts) for moment, weights in each]
        works = beside * (1 - self._noise * (1 - resampled))
        return Forecast(
            way=way,
            trace=trace,
            trace_by_moment=tuple(traces.tolist()),
            survives=(1 - trace) / (1 - ideal) if ideal < 1 else float("nan"),
            time=1 - self.noise * (1 - trace),
            work=beside * (1 - self.noise * (1 - trace)),
            interval=Interval(*np.quantile(works, (tail, 1 - tail)).tolist()),
            by_moment=tuple((beside * (1 - self.noise * (1 - traces))).tolist()),
        )


def _resampled(moment: Moment, weights: Float64s, counts: Float64s) -> Float64s:
    """`Moment.relative` of each resample, shape (R,)."""
    squares, n, true = moment.now.norms**2, len(weights), moment.now.gradient_norm2
    drawn = (counts @ weights / n) * (counts @ (squares / weights) / n) - true
    uniform = counts @ squares / n - true
    return np.divide(drawn, uniform, out=np.ones(len(counts)), where=uniform > 0)


def _quickest(others: Sequence[Forecast], below: float) -> Forecast | None:
    """With as few workers as are about as quick as any."""
    served = [one for one in others if one.way.workers and one.time <= below]
    return next((one for one in served if one.time <= min(other.time for other in served) + PAYS), None)


def _gain(ideal: Forecast, best: Forecast, noise: float) -> str:
    return (
        f"{noise:.0%} of the steps are there because of noise, ideal draws would have {ideal.trace:.2f} of uniform "
        f"draws' variance, and {best.survives:.0%} of that gain survives the age of the norms"
    )


def _obstacle(ideal: Forecast, others: Sequence[Forecast], noise: Sequence[float]) -> str:
    """What is in the way: the first that is enough by itself."""
    if not noise:
        return "the loss has hardly fallen in the trial, which tells nothing; give it more --steps"
    best = min(others, key=lambda one: one.work)
    quick = min((one for one in others if not one.way.workers), key=lambda one: one.time)
    if ideal.trace > 1 - PAYS:
        return f"gradient norms are too even: ideal draws would still have {ideal.trace:.2f} of uniform draws' variance"
    if ideal.time > 1 - PAYS:
        return (
            f"at this learning rate noise holds nothing up: with 1 / {QUIETER} of it the same loss takes "
            f"{1 - np.mean(noise) * (1 - 1 / QUIETER):.2f} of the steps, with ideal draws {ideal.time:.2f}"
        )
    if quick.time > 1 - PAYS:
        return (
            f"norms go stale too fast: ideal draws would take {ideal.time:.2f} of the steps, but norms from an epoch "
            f"ago, of {quick.way.name}, {quick.time:.2f}"
        )
    if best.work > 1 - PAYS:
        return (
            f"norms cost what they bring: {quick.way.name} takes {quick.time:.2f} of the steps, each with "
            f"{quick.way.beside:.0%} more work"
        )
    return (
        f"it cannot be told from these examples: {best.way.name} needs {best.work:.2f} of the work, or "
        f"{best.interval.low:.2f} to {best.interval.high:.2f}"
    )
