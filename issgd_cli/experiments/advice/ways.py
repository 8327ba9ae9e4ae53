"""How each method would have drawn throughout a trial, by norms as old as its table would have held them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from issgd_cli.config.config import Config
from issgd_cli.config.validation import resolve
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.experiments.advice.costs import NOTHING, QUIETER, Cost
from issgd_cli.experiments.advice.moment import Moment
from issgd_cli.experiments.advice.noise import shares, steps
from issgd_cli.experiments.advice.trial import Trial
from issgd_cli.methods.blocks import steps_of_block
from issgd_cli.methods.looking import PROMISING, Looking, variance_at_cost_1
from issgd_cli.methods.online import Settings as OnlineSettings
from issgd_cli.methods.trials import PLAIN
from issgd_cli.randomness import generator

WORKERS = (1, 3, 8, 16)
PUBLISHING = (16, 64, 256)  # steps from one publication to the next
ALIKE = 0.005  # of uniform draws' variance: a longer block or interval that costs no more than this is better

Settings = Mapping[str, Mapping[str, Any]]


class Draws(NamedTuple):
    """Of a minibatch, at one moment.

    Attributes:
        weights: What they are in proportion to, shape (n,).
        beside: What is computed beside a plain step.
        trained, looked_at: How many examples are drawn, and of how many, in plain minibatches; infinite: of all.
    """

    weights: Float64s
    beside: Cost = NOTHING
    trained: float = 1.0
    looked_at: float = float("inf")

    def variance(self, trace: Float64s) -> Float64s:
        """Of the minibatch's mean gradient, in a plain one's, by Tr(Sigma) of draws from all, in uniform ones'."""
        return 1 / self.looked_at + trace / self.trained


@dataclass(frozen=True)
class Way:
    """See the module.

    Attributes:
        name: For people.
        label: As an experiment would list it among its methods, for instance issgd-3 with 3 workers.
        settings: What a configuration says for it, by section and key; empty: nothing can.
        draws: At each of the trial's moments.
        keeps: Whether it draws by norms that it has kept.
        workers: That score for it.
        sweep_steps: What it takes them to score all examples; None without workers.
    """

    name: str
    label: str
    settings: Settings
    draws: Sequence[Draws]
    keeps: bool = True
    workers: int = 0
    sweep_steps: float | None = None


class Ways:
    """Of one trial.

    Attributes:
        noise: s of noise.py, by each of the last moments' losses.
        block: Steps that one has, of methods without workers.
    """

    def __init__(self, trial: Trial, moments: Sequence[Moment], config: Config) -> None:
        """Of the run that is planned by this configuration."""
        self.trial, self.moments, self.config = trial, moments, config
        self.noise = shares(trial)
        self.block = steps_of_block(config, trial.examples)

    def uniform(self) -> Way:
        """What all others are compared with."""
        draws = [Draws(moment.uniform) for moment in self.moments]
        return Way("reshuffled SGD", "reshuffled", _proposal(method="reshuffled"), draws, keeps=False)

    def ideal(self) -> Way:
        """What none can surpass: by the norms of the very moment, which cost nothing."""
        return Way("ideal, were it free", "ideal", {}, [Draws(moment.ideal) for moment in self.moments])

    def others(self) -> list[Way]:
        """All that can be had."""
        found = [self.larger(), self.looking()]
        if (norms := self.trial.costs.norms) is not None:
            draws = self._each(self._by_own_norms, norms)
            found.append(Way("second-moment", "second-moment", _proposal(method="second-moment"), draws))
        settings = _proposal(method="online", draws="systematic")
        found.append(Way("IS", "online", settings, self._each(self._by_own_outputs, NOTHING)))
        return found + [self.served(workers) for workers in WORKERS]

    def larger(self) -> Way:
        """Minibatches as large as the trial's second run had: what they bring is what it has shown."""
        size, step = QUIETER * self.trial.minibatch_size, self.trial.costs.step(QUIETER)
        draws = [Draws(moment.uniform, _beside(step), trained=QUIETER) for moment in self.moments]
        settings: Settings = {**_proposal(method="reshuffled"), "master": {"minibatch_size": size}}
        return Way(f"minibatches of {size}", f"reshuffled-{size}", settings, draws, keeps=False)

    def looking(self) -> Way:
        """Plain steps, until four epochs are over, and wherever looks do not pay, as if its trials always told."""
        draws = [
            Draws(moment.uniform) if moment.now.step < PLAIN * self.trial.epoch else self._looked(moment)
            for moment in self.moments
        ]
        return Way("looking", "looking", _proposal(method="looking"), draws, keeps=False)

    def _looked(self, moment: Moment) -> Draws:
        """By the output norms of now, at the sizes that the method would choose (methods/looking.py, 3)."""
        size, norms = self.trial.minibatch_size, moment.now.output_norms
        method = Looking(resolve(_proposal(method="looking"), "looking"), self.trial.examples, torch.device("cpu"))
        method.moments = torch.tensor([1.0, norms.mean(), np.square(norms).mean()], dtype=torch.float64)
        plain = Draws(moment.uniform)
        if variance_at_cost_1(method.unevenness) >= PROMISING * method.settings.cost:
            return plain
        looked_at, trained = (count / size for count in method.sizes(size))
        step, look = self.trial.costs.step(trained), self.trial.costs.look
        cost = Cost(step.work + look.work * looked_at, step.seconds + look.seconds * looked_at)
        uniform = method.settings.uniform
        draws = Draws((1 - uniform) * norms / norms.mean() + uniform, _beside(cost), trained, looked_at)
        variance = draws.variance(np.array(moment.relative(draws.weights)))
        noise = np.mean(self.noise) if self.noise else 0.0
        return draws if cost.work * steps(noise, variance) < 1 else plain

    def _each(self, weights: Callable[[Moment, np.random.Generator], Float64s], beside: Cost) -> list[Draws]:
        """At each moment; those of the first epoch, which such methods reshuffle, are uniform."""
        return [
            Draws(
                moment.uniform if moment.now.step < self.trial.epoch else weights(moment, self._random(number)), beside
            )
            for number, moment in enumerate(self.moments)
        ]

    def _random(self, number: int) -> np.random.Generator:
        """For the ages at a moment."""
        return generator(self.config.seed, "advised", 1 + number)

    def _by_own_norms(self, moment: Moment, random: np.random.Generator) -> Float64s:
        """As `second-moment` draws: a block by the norms from each example's last draw before it."""
        q = moment.expected(np.full(len(moment.uniform), float(self.block)), random)
        return moment.expected(self._since_drawn(q, random), random)

    def _by_own_outputs(self, moment: Moment, random: np.random.Generator) -> Float64s:
        """As `online` draws: by the norms of the losses' gradients by the outputs, and a little for each epoch."""
        epsilon, block = OnlineSettings().epsilon, np.full(len(moment.uniform), float(self.block))
        q = moment.at(moment.output_norms, block, random) + epsilon
        ages = self._since_drawn(q / q.mean(), random)
        return moment.at(moment.output_norms, ages, random) + epsilon * np.ceil(ages / self.trial.epoch)

    def _since_drawn(self, q: Float64s, random: np.random.Generator) -> Float64s:
        """How many steps ago examples were drawn, of weights q with mean 1, shape (n,).

        Now is anywhere in a block; the last draw was in some block before it, in each with the same chance, and there
        the last of k, where a block is expected to draw the example k times or more.
        """
        expected, n = q * self.block / self.trial.epoch, len(q)
        blocks = random.geometric(np.clip(expected, 1e-9, 1.0)) - random.random(n) ** (1 / np.maximum(expected, 1.0))
        return np.asarray(self.block * (blocks + random.random(n)))

    def served(self, workers: int) -> Way:
        """ISSGD with so many workers, by the longest blocks and publishing interval that are as good as any."""
        split, scoring = self.config.worker.shares, self.trial.costs.scoring
        sweep = self.trial.epoch * scoring.seconds * sum(split) / split[0] / workers
        epoch = max(1, round(self.trial.epoch))
        tried = {
            (block, interval): [
                self._by_sweeps(moment, sweep, interval, block, self._random(number))
                for number, moment in enumerate(self.moments)
            ]
            for interval in PUBLISHING
            for block in {min(interval, epoch), epoch}
        }
        traces = {
            lengths: np.mean([moment.relative(at) for moment, at in zip(self.moments, weights, strict=True)])
            for lengths, weights in tried.items()
        }
        block, interval = max(lengths for lengths in tried if traces[lengths] <= min(traces.values()) + ALIKE)
        proposal = _proposal(method="issgd", smoothing="second-moment", draws="systematic", limit_mode="fill")
        proposal["proposal"]["block"] = min(1.0, float(f"{block / self.trial.epoch:.4g}"))
        settings: Settings = {
            **proposal,
            "master": {"publish_every_steps": interval},
            "worker": {"count": workers, "pull_every_chunks": 1},
        }
        # While a step is taken, each worker scores what it can, wherever it does.
        beside = Cost(workers * scoring.work / scoring.seconds, float(workers))
        draws = [Draws(weights, beside) for weights in tried[block, interval]]
        name = f"ISSGD, {workers} worker{'s' if workers > 1 else ''}"
        return Way(name, f"issgd-{workers}", settings, draws, workers=workers, sweep_steps=sweep)

    def since_scored(
        self, count: int, sweep: float, interval: int, block: int, random: np.random.Generator
    ) -> Float64s:
        """How old the parameters are that examples' norms are of, at any step of a block, in steps, shape (count,).

        A block begins with what was read at the last publication but that of its own step, which takes a while. A norm
        that was read then came within a sweep, by a chunk that was begun at the newest parameters.
        """
        chunk = self.config.worker.chunk_size / self.trial.minibatch_size * self.trial.costs.scoring.seconds
        at = random.integers(0, block * interval, count)  # of all places in a block and an interval
        begun = at // block * block
        read = (begun - 1) // interval * interval
        scored = np.floor((read - chunk - sweep * random.random(count)) / interval) * interval
        return np.asarray(at - scored)

    def _by_sweeps(
        self, moment: Moment, sweep: float, interval: int, block: int, random: np.random.Generator
    ) -> Float64s:
        """By the norms that a step's block has begun with; the moment stands for any place in it.

        Examples that no worker has come to yet have the mean weight (`fill`).
        """
        ages = self.since_scored(len(moment.uniform), sweep, interval, block, random)
        scored = ages <= moment.now.step
        if not scored.any():
            return moment.uniform
        weights = moment.expected(ages, random)
        return np.where(scored, weights, weights[scored].mean())


def _proposal(**keys: str) -> dict[str, dict[str, Any]]:
    return {"proposal": dict(keys)}


def _beside(cost: Cost) -> Cost:
    return Cost(cost.work - 1, cost.seconds - 1)
