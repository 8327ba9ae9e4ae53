"""What is computed beside a plain step: by operations, as a scoreboard counts work, and in seconds on this device."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from issgd_cli.actors.learner import Learner
from issgd_cli.actors.master import take_step
from issgd_cli.config.config import Config
from issgd_cli.config.sections import TRAINING
from issgd_cli.methods.reshuffled import Reshuffled
from issgd_cli.networks.layers import batch_normalised
from issgd_cli.problem import Problem
from issgd_cli.scores import cost, score
from issgd_cli.scores.first_look import plan_of

TIMED_SECONDS, MOST_TIMED, LEAST_TIMED = 5.0, 100, 9  # each thing this often, unless that takes so long
QUIETER = 2  # the minibatches of a trial's second run, in plain ones


class Cost(NamedTuple):
    """Of anything, in plain steps: what they are in operations (scores/cost.py), and how long they take here."""

    work: float
    seconds: float


NOTHING = Cost(0.0, 0.0)


class Costs(NamedTuple):
    """Seconds are with nothing beside them.

    Attributes:
        step_seconds: A step of SGD on one minibatch.
        scoring: Its examples' norms alone.
        norms: What is added to a step that keeps its own examples' norms; None: they have none.
        look: A forward pass of a minibatch.
        larger: What is added to a step by as many examples again.
    """

    step_seconds: float
    scoring: Cost
    norms: Cost | None
    look: Cost
    larger: Cost

    def step(self, size: float) -> Cost:
        """One on `size` minibatches' examples: in seconds, a part that is the same for any size, and one for each."""
        each = self.larger.seconds if size >= 1 else min(self.larger.seconds, 1.0)
        return Cost(size, 1 - each + each * size)


class _WithNorms(Reshuffled):
    """Keeps its examples' norms, and does nothing with them."""

    needs = "norms"


def costs_of(config: Config, problem: Problem, device: torch.device) -> Costs:
    """Counts operations; and times a step, scoring, a look, larger steps and those with norms, in turn; medians."""
    examples, size = problem.examples("train", device), config.master.minibatch_size
    inputs, targets = examples[slice(0, size)]
    many = examples[slice(0, QUIETER * size)]
    scoring, looking = problem.initial_network(config.seed, device).eval(), Learner(config, problem, device, None)

    def step(kind: type[Reshuffled], size: int) -> Callable[[], float]:
        learner, method = Learner(config, problem, device, None), kind(config, len(examples), device)
        return lambda: float(take_step(learner, method, examples, size))  # waits for the device

    # Each with a network of its own, as actors have: one that changes its mode is looked at anew (first_look.py).
    timed: list[Callable[[], float]] = [
        step(Reshuffled, size),
        lambda: float(score(problem.loss, scoring, inputs, targets).norms.sum()),
        lambda: float(looking.look(*many).importances().sum()),
        step(Reshuffled, QUIETER * size),
    ]
    if not batch_normalised(scoring):
        timed.append(step(_WithNorms, size))
    step_seconds, scored, looked, larger, *with_norms = _medians(timed, device)
    plain = step_seconds.own
    plan = plan_of(problem.loss, scoring, inputs, targets)
    norms = cost.norms(problem.loss, scoring, inputs, targets, plan) / TRAINING
    return Costs(
        step_seconds.wall,
        scoring=Cost((TRAINING - 1) / TRAINING + norms, scored.own / plain),  # no weight gradients
        norms=Cost(norms, max(with_norms[0].own / plain - 1, 0.0)) if with_norms else None,
        look=Cost(1 / TRAINING, looked.own / plain * len(inputs) / len(many[0])),
        larger=Cost(1.0, max(larger.own / plain - 1, 0.0) / (QUIETER - 1)),
    )


class _Seconds(NamedTuple):
    """On the wall, and of our own: of a thread alone on a CPU, others on the machine are none of these."""

    wall: float
    own: float


def _medians(timed: list[Callable[[], float]], device: torch.device) -> list[_Seconds]:
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    found: list[list[_Seconds]] = [[] for _ in timed]
    start = time.perf_counter()
    for number in range(MOST_TIMED):
        if number > LEAST_TIMED and time.perf_counter() - start > TIMED_SECONDS:
            break
        for what, taken in zip(timed, found, strict=True):
            since, began = clock(), time.perf_counter()
            what()
            taken.append(_Seconds(time.perf_counter() - began, clock() - since))
    return [_Seconds(*map(statistics.median, zip(*taken, strict=True))) for taken in found]
