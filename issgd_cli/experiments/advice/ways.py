"""How each method would have drawn throughout a trial, by norms as old as its table would have held them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from issgd_cli.config.config import Config
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.experiments.advice.moment import Moment
from issgd_cli.experiments.advice.trial import Trial
from issgd_cli.methods.blocks import steps_of_block
from issgd_cli.methods.online import Settings as OnlineSettings
from issgd_cli.randomness import generator

WORKERS = (1, 3, 8, 16)
PUBLISHING = (16, 64, 256)  # steps from one publication to the next
ALIKE = 0.005  # of uniform draws' variance: an interval that costs no more than this is better than a shorter one

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Way:
    """See the module.

    Attributes:
        name: For people.
        label: As an experiment would list it among its methods, for instance issgd-3 with 3 workers.
        settings: What a configuration says for it, by section and key; empty: nothing can.
        beside: What it computes beside its steps, in such steps.
        weights: At each of the trial's moments, shapes (n,).
        workers: That score for it.
        sweep_steps: What it takes them to score all examples; None without workers.
    """

    name: str
    label: str
    settings: Settings
    beside: float
    weights: Sequence[Float64s]
    workers: int = 0
    sweep_steps: float | None = None


class Ways:
    """Of one trial."""

    def __init__(self, trial: Trial, moments: Sequence[Moment], config: Config) -> None:
        """Of the run that is planned by this configuration."""
        self.trial, self.moments, self.config = trial, moments, config
        self.block = steps_of_block(config, trial.examples)

    def uniform(self) -> Way:
        """What all others are compared with."""
        return Way(
            "reshuffled SGD",
            "reshuffled",
            _proposal(method="reshuffled"),
            0.0,
            [moment.uniform for moment in self.moments],
        )

    def ideal(self) -> Way:
        """What none can surpass: by the norms of the very moment, which cost nothing."""
        return Way("ideal, were it free", "ideal", {}, 0.0, [moment.ideal for moment in self.moments])

    def others(self) -> list[Way]:
        """All that can be had."""
        found = []
        if self.trial.costs.norms is not None:
            settings = _proposal(method="second-moment")
            found.append(
                Way("second-moment", "second-moment", settings, self.trial.costs.norms, self._each(self._by_own_norms))
            )
        settings = _proposal(method="online", draws="systematic")
        found.append(Way("IS", "online", settings, 0.0, self._each(self._by_own_outputs)))
        return found + [self.served(workers) for workers in WORKERS]

    def _each(self, weights: Callable[[Moment, np.random.Generator], Float64s]) -> list[Float64s]:
        """At each moment; those of the first epoch, which such methods reshuffle, are uniform."""
        return [
            moment.uniform if moment.now.step < self.trial.epoch else weights(moment, self._random(number))
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
        """ISSGD with so many workers, at the longest publishing interval that is as good as any."""
        shares = self.config.worker.shares
        sweep = self.trial.epoch * self.trial.costs.scoring * sum(shares) / shares[0] / workers
        tried = {
            interval: [
                self._by_sweeps(moment, sweep, interval, self._random(number))
                for number, moment in enumerate(self.moments)
            ]
            for interval in PUBLISHING
        }
        traces = {
            interval: np.mean([moment.relative(at) for moment, at in zip(self.moments, weights, strict=True)])
            for interval, weights in tried.items()
        }
        interval = max(interval for interval in PUBLISHING if traces[interval] <= min(traces.values()) + ALIKE)
        settings: Settings = {
            **_proposal(method="issgd", smoothing="second-moment", draws="systematic", limit_mode="fill"),
            "master": {"publish_every_steps": interval},
            "worker": {"count": workers},
        }
        name = f"ISSGD, {workers} worker{'s' if workers > 1 else ''}"
        return Way(name, f"issgd-{workers}", settings, float(workers), tried[interval], workers, sweep)

    def _by_sweeps(self, moment: Moment, sweep: float, interval: int, random: np.random.Generator) -> Float64s:
        """By norms of a publication ago, the youngest of them; the oldest are a sweep older.

        Examples that no worker has come to yet have the mean weight (`fill`).
        """
        ages = interval + sweep * random.random(len(moment.uniform))
        scored = ages <= moment.now.step
        if not scored.any():
            return moment.uniform
        weights = moment.expected(ages, random)
        return np.where(scored, weights, weights[scored].mean())


def _proposal(**keys: str) -> dict[str, dict[str, Any]]:
    return {"proposal": keys}
