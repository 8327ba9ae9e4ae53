"""Whether importance sampling pays: what each method needs to reach what reshuffled SGD reaches, predicted.

Noise is what methods differ by: a minibatch of B draws in proportion to q has the mean gradient's expected square
||g||^2 + Tr_q / B. Of the steps that SGD takes, a share s is there because of it, and is in proportion to it (noise.py
measures s, by a run with less noise). So

    steps(q) / steps(uniform) = 1 - s + s Tr_q / Tr_uniform

to the same training loss, in the mean over the moments of a plain run (of test errors nothing is said); beyond s = 1
as noise.py has it. Tr_q is eq. 6 on the measured examples, with the weights that they would have had then, by norms as
old as the method's table would have held them (ways.py); Tr_q / B is Tr_uniform / M + Tr_q / m of m draws from M
examples that are looked at. With what is computed beside a step, steps are told as work, by operations, as a scoreboard
counts it (scores/cost.py), and as seconds, by how long that takes on this device, one after the other; by these, what a
user pays, is advised.

Assumed is that the run goes through the same losses and norms, only faster; that the learning rate stays (with less
noise a larger one may do, and gain more); that noise is as harmful whatever its direction; that draws are systematic,
which keeps reshuffling's own gain (independent draws lose it, and short blocks a part, by how much is not predicted);
and that after the trial all is as at its last moment. Intervals know of none of that: only of the examples that were
measured, and of the losses that s is told by.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from issgd_cli.config.config import Config
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.experiments.advice.costs import QUIETER
from issgd_cli.experiments.advice.moment import Moment
from issgd_cli.experiments.advice.noise import steps
from issgd_cli.experiments.advice.trial import Trial
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
    """Of one way to draw; see the module. All is in reshuffled SGD's.

    Attributes:
        way: Which.
        trace: A minibatch's variance, mean over the run.
        trace_by_moment: At each moment.
        survives: The part of the ideal proposal's gain in it; NaN where that has none, and of what keeps no norms.
        steps: That it takes.
        work: With what is computed beside them, by operations.
        seconds: The same, by its time on this device.
        work_error, seconds_error: Sampling error of the trial: a bootstrap over the examples, each resample with one of
            the last moments' s; laws of drift and ||g|| stay as measured. What is assumed may be off by more.
        by_moment: `work` at each moment.
    """

    way: Way
    trace: float
    trace_by_moment: tuple[float, ...]
    survives: float
    steps: float
    work: float
    seconds: float
    work_error: Interval
    seconds_error: Interval
    by_moment: tuple[float, ...]


@dataclass(frozen=True)
class Advice:
    """What a trial tells.

    Attributes:
        trial: Which.
        moments: Of the trial, in order.
        parts: Of the planned run, that each of them stands for.
        noise: s of noise.py, by each of the last moments' losses; none: the loss has hardly fallen.
        uniform, ideal: What all are compared with, and what none can surpass.
        others: All that can be had.
        choice: The one of them that takes the fewest seconds, where it pays; else uniform draws.
        because: Why, in words.
        quickest: The one with workers that takes the fewest steps, as with devices of their own; None: no fewer than
            `choice`.
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
    ways = Ways(trial, moments, config)
    told = _Forecaster(moments, parts, ways.noise, config.seed)
    uniform, ideal, *others = map(told.forecast, (ways.uniform(), ways.ideal(), *ways.others()))
    best = min(others, key=lambda one: one.seconds)
    pays = best.seconds <= 1 - PAYS and best.seconds_error.high < 1
    choice = best if pays else uniform
    because = _gain(ideal, best, others, told.noise) if pays else _obstacle(ideal, others, ways.noise)
    quickest = _quickest(others, choice.steps - PAYS)
    return Advice(trial, moments, parts, ways.noise, uniform, ideal, others, choice, because, quickest)


class _Forecaster:
    """What all forecasts of a trial share.

    Attributes:
        noise: s of noise.py, the mean.
    """

    def __init__(self, moments: Sequence[Moment], parts: Float64s, noise: Sequence[float], seed: int) -> None:
        self.moments, self.parts = moments, parts
        self.noise = float(np.mean(noise)) if noise else 0.0
        random, n = generator(seed, "bootstrap"), len(moments[0].uniform)
        self._counts = random.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)  # (R, n)
        self._noise = random.choice(noise or [0.0], RESAMPLES)  # (R,)

    def forecast(self, way: Way) -> Forecast:
        """What comes of a way to draw."""
        each = list(zip(self.moments, way.draws, strict=True))
        traces = np.array([draws.variance(np.array(moment.relative(draws.weights))) for moment, draws in each])
        ideal = float(self.parts @ [moment.relative(moment.ideal) for moment in self.moments])
        trace, taken = float(self.parts @ traces), steps(self.noise, traces)
        costs = 1 + np.array([draws.beside for _, draws in each])  # (moments, 2): work and seconds of a step
        work, seconds = (self.parts * taken) @ costs
        resampled = [draws.variance(_resampled(moment, draws.weights, self._counts)) for moment, draws in each]
        errors = (self.parts[:, None] * costs).T @ steps(self._noise, np.array(resampled))  # (2, R)
        tail = (1 - CERTAINTY) / 2
        of_work, of_seconds = (Interval(*np.quantile(one, (tail, 1 - tail)).tolist()) for one in errors)
        return Forecast(
            way=way,
            trace=trace,
            trace_by_moment=tuple(traces.tolist()),
            survives=(1 - trace) / (1 - ideal) if way.keeps and ideal < 1 else float("nan"),
            steps=float(self.parts @ taken),
            work=float(work),
            seconds=float(seconds),
            work_error=of_work,
            seconds_error=of_seconds,
            by_moment=tuple((costs[:, 0] * taken).tolist()),
        )


def _resampled(moment: Moment, weights: Float64s, counts: Float64s) -> Float64s:
    """`Moment.relative` of each resample, shape (R,)."""
    squares, n, true = moment.now.norms**2, len(weights), moment.now.gradient_norm2
    drawn = (counts @ weights / n) * (counts @ (squares / weights) / n) - true
    uniform = counts @ squares / n - true
    return np.divide(drawn, uniform, out=np.ones(len(counts)), where=uniform > 0)


def _quickest(others: Sequence[Forecast], below: float) -> Forecast | None:
    """With as few workers as are about as quick as any."""
    served = [one for one in others if one.way.workers and one.steps <= below]
    return next((one for one in served if one.steps <= min(other.steps for other in served) + PAYS), None)


def _gain(ideal: Forecast, best: Forecast, others: Sequence[Forecast], noise: float) -> str:
    held_up = (
        f"{noise:.0%} of the steps are there because of noise"
        if noise <= 1
        else "less noise saves more steps than in proportion"
    )
    if not best.way.keeps:
        text = (
            f"{held_up}, and its minibatches have {best.trace:.2f} of the variance for {best.work / best.steps:.2f} "
            "times the work"
        )
        sampled = [one for one in others if one.way.settings["proposal"]["method"] != "reshuffled"]
        if best in sampled:
            return text
        rival = min(sampled, key=lambda one: one.seconds)
        if rival.seconds > 1 - PAYS:
            return f"{text}; importance sampling would save less than {PAYS:.0%} of the seconds"
        return f"{text}; of importance sampling, {rival.way.name} would take {rival.seconds:.2f} of the seconds"
    return (
        f"{held_up}, ideal draws would have {ideal.trace:.2f} of uniform draws' variance, and {best.survives:.0%} of "
        "that gain survives the age of the norms"
    )


def _obstacle(ideal: Forecast, others: Sequence[Forecast], noise: Sequence[float]) -> str:
    """What is in the way: the first that is enough by itself."""
    if not noise:
        return "the loss has hardly fallen in the trial, which tells nothing; give it more --steps"
    best = min(others, key=lambda one: one.seconds)
    kept = min((one for one in others if one.way.keeps and not one.way.workers), key=lambda one: one.steps)
    if ideal.trace > 1 - PAYS:
        return f"gradient norms are too even: ideal draws would still have {ideal.trace:.2f} of uniform draws' variance"
    if ideal.steps > 1 - PAYS:
        return (
            f"at this learning rate noise holds nothing up: with 1 / {QUIETER} of it the same loss takes "
            f"{steps(np.mean(noise), 1 / QUIETER):.2f} of the steps, with ideal draws {ideal.steps:.2f}"
        )
    if best.seconds <= 1 - PAYS:
        low, high = best.seconds_error
        return (
            f"it cannot be told from these examples: {best.way.name} needs {best.seconds:.2f} of the seconds, and "
            f"sampling error alone is {low:.2f} to {high:.2f}"
        )
    others_too = "what keeps no norms costs what it brings"
    if kept.steps > 1 - PAYS:
        return (
            f"norms go stale too fast: ideal draws would take {ideal.steps:.2f} of the steps, but norms from an epoch "
            f"ago, of {kept.way.name}, {kept.steps:.2f}; {others_too}"
        )
    return (
        f"norms cost what they bring: {kept.way.name} takes {kept.steps:.2f} of the steps, each with "
        f"{kept.seconds / kept.steps - 1:.0%} more seconds on this device; {others_too}"
    )
