"""A short plain run of SGD, in which the gradients of the same few examples are measured again and again.

Each of some moments, spread evenly over the run, is measured, and so are the steps 1, 4, 16, 64, ... before it: so it
is known of each moment what norms of every age would have told of the gradients then. A second run, with minibatches
QUIETER times as large and all else the same, shows how much sooner the same losses come with so much less noise.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from issgd_cli.actors import auditing
from issgd_cli.actors.learner import Learner
from issgd_cli.actors.master import take_step
from issgd_cli.config.config import Config
from issgd_cli.database import SPLITS
from issgd_cli.datasets.examples import Examples
from issgd_cli.equations import alain2015
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import ConfigError, RunError
from issgd_cli.experiments.advice.costs import QUIETER, Costs
from issgd_cli.methods.reshuffled import Reshuffled
from issgd_cli.problem import Problem
from issgd_cli.randomness import generator

MOMENTS = 6
AGE_FACTOR = 4  # from each age to the next, the first being a step: the knots of methods/drift.py
LEAST_STEPS = 2 * MOMENTS
MOST_EPOCHS = 20  # of a trial whose length nobody sets: by then most small sets are learned

Watch = Callable[[int], None]


class Measure(NamedTuple):
    """Of n examples, at one step.

    Attributes:
        step: How many were taken before.
        loss: Their mean.
        norms: ||g(x_n)||, shape (n,).
        output_norms: ||dL/dm|| by the network's outputs m alone, shape (n,).
        gradient_norm2: ||g_TRUE||^2 of all N, estimated.
    """

    step: int
    loss: float
    norms: Float64s
    output_norms: Float64s
    gradient_norm2: float


@dataclass(frozen=True)
class Trial:
    """What has been measured.

    Attributes:
        examples: N.
        minibatch_size: B.
        steps: That the trial stands for; the last moment comes before its end.
        planned: How many steps the run has that advice is asked for, at least those.
        moments: Steps.
        measures: By step: of the first, of the moments, and before them.
        quieter: Losses of the second run at the same steps.
        costs: See there.
    """

    examples: int
    minibatch_size: int
    steps: int
    planned: int
    moments: tuple[int, ...]
    measures: Mapping[int, Measure]
    quieter: Mapping[int, float]
    costs: Costs

    @property
    def epoch(self) -> float:
        """Steps that it takes to draw N examples."""
        return self.examples / self.minibatch_size


def moments_of(steps: int) -> tuple[int, ...]:
    """In the middle of each of so many equal parts of a trial.

    Raises:
        ConfigError: They are too few.
    """
    if steps < LEAST_STEPS:
        raise ConfigError(f"--steps {steps}: a trial of {MOMENTS} moments takes {LEAST_STEPS} steps or more.")
    return tuple((2 * part + 1) * steps // (2 * MOMENTS) for part in range(MOMENTS))


def ages_at(moment: int) -> list[int]:
    """How many steps before it there are measures, from the youngest on."""
    ages = [1]
    while ages[-1] * AGE_FACTOR <= moment:
        ages.append(ages[-1] * AGE_FACTOR)
    return ages


def steps_within(seconds: float, config: Config, examples: int, sample: int, costs: Costs) -> int:
    """How long a trial fits into so many seconds: a power of 2, so that hardly a second run has another length.

    No longer than the run that is planned, nor than MOST_EPOCHS where none is.
    """
    size = config.master.minibatch_size
    most = config.master.most_steps or -(-MOST_EPOCHS * examples // size)
    step_seconds, looks = costs.step_seconds, MOMENTS * (1 + len(ages_at(most)))
    looking = looks * min(sample, examples) / size * (1 + costs.scoring.seconds) * step_seconds
    fitting = max(seconds - looking, seconds / 4, 2 * step_seconds) / (step_seconds * (1 + QUIETER))
    return max(LEAST_STEPS, min(most, 1 << max(0, math.floor(math.log2(fitting)))))


def run(
    config: Config, problem: Problem, device: torch.device, steps: int, sample: int, costs: Costs, watch: Watch
) -> Trial:
    """Trains by reshuffled SGD, as the configuration has it otherwise, up to the last moment; and once more, quieter.

    Args:
        config: Of the run that is planned.
        problem: What is learned.
        device: Where.
        steps: That the trial stands for.
        sample: How many training examples are measured, drawn at random; all where there are no more.
        costs: As costs.py tells them.
        watch: Told how many steps were taken, of both runs, after each.

    Raises:
        RunError: It diverges.
        LayerError: The network has no exact norms.
    """
    moments, examples = moments_of(steps), problem.examples("train", device)
    rows = np.arange(len(examples))
    if sample < len(rows):
        rows = np.sort(generator(config.seed, "advised").choice(rows, sample, replace=False))
    wanted = {0} | {moment - age for moment in moments for age in (0, *ages_at(moment)) if age <= moment}
    size, last = config.master.minibatch_size, moments[-1]
    measures = {
        learner.step: measured(learner, examples, rows)
        for learner in _trained(config, problem, examples, size, wanted, watch)
    }
    quieter = {
        learner.step: _loss(learner, examples, rows)
        for learner in _trained(config, problem, examples, QUIETER * size, wanted, lambda step: watch(last + step))
    }
    planned = max(steps, config.master.most_steps or 0)
    return Trial(len(examples), size, steps, planned, moments, measures, quieter, costs)


def _trained(
    config: Config, problem: Problem, examples: Examples, size: int, wanted: AbstractSet[int], watch: Watch
) -> Iterator[Learner]:
    """A learner at each of the wanted steps, with minibatches of this size."""
    learner = Learner(config, problem, examples.device, None)
    method = Reshuffled(config, len(examples), examples.device)
    losses: list[torch.Tensor] = []
    while True:
        if learner.step in wanted:
            _refuse_diverged(learner, losses)
            losses = []
            yield learner
        if learner.step == max(wanted):
            return
        losses.append(take_step(learner, method, examples, size))
        watch(learner.step)


def _loss(learner: Learner, examples: Examples, rows: NDArray[np.int64]) -> float:
    """The mean of these examples'."""
    parts = np.array_split(rows, -(-len(rows) // auditing.AUDIT_MINIBATCH))
    return float(sum(float(learner.look(*examples[part]).losses.double().sum()) for part in parts) / len(rows))


def measured(learner: Learner, examples: Examples, rows: NDArray[np.int64]) -> Measure:
    """Of these training examples, at the learner's parameters, in evaluation mode as workers score them."""
    none = np.zeros(0, np.int64)
    looking = auditing.measured(
        learner.problem.loss,
        learner.model.eval(),
        dict.fromkeys(SPLITS, examples),
        np.ones(len(examples), bool),
        {"train": rows, "valid": none, "test": none},
    )
    while True:
        try:
            next(looking)
        except StopIteration as end:
            found: auditing.Measured = end.value
            break
    learner.model.train()
    gradient_norm2 = float((found.gradients.sum(0) / len(rows)).square().sum())
    if len(rows) < len(examples):
        mean = float(found.squared_norms.mean())
        gradient_norm2 = alain2015.gradient_norm2_unbiased([gradient_norm2], [len(rows)], mean, len(examples))
    norms = np.sqrt(found.squared_norms)
    # Whatever the estimate: no mean of gradients is longer than their mean length.
    gradient_norm2 = min(max(gradient_norm2, 0.0), float(norms.mean()) ** 2)
    return Measure(learner.step, float(found.losses["train"].mean()), norms, found.output_norms, gradient_norm2)


def _refuse_diverged(learner: Learner, losses: list[torch.Tensor]) -> None:
    if (trouble := learner.trouble(torch.stack(losses) if losses else None)) is not None:
        raise RunError(
            f"{trouble}: the plain run that advice is made of has diverged. Look at the data, or try `--set "
            f"optimizer.learning_rate={learner.config.optimizer.learning_rate / 10:g}`."
        )
