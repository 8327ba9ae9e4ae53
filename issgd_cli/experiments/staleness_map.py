"""How stale may the weights be? sqrt Tr(Sigma) of the proposal against the number of workers and the publish interval.

One trajectory of plain SGD a seed, with every example's gradient norm at every publication, is computed once. Which
version's norm the master's table would hold for each chunk is a matter of time alone, so a schedule is simulated once
for each cluster, with the real actors but without any computing. Every cell of the map is then a look-up.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from issgd_cli.actors.devices import computing, device_of
from issgd_cli.actors.learner import Learner
from issgd_cli.actors.master import take_step
from issgd_cli.clusters.resuming import dataset_of
from issgd_cli.config.config import Config
from issgd_cli.config.layers import merged
from issgd_cli.config.sections import StalenessMap
from issgd_cli.config.validation import resolve
from issgd_cli.database import Layout
from issgd_cli.datasets.examples import Examples
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.equations import alain2015
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import ConfigError
from issgd_cli.experiments.experiment import Experiment
from issgd_cli.files import write_text
from issgd_cli.methods.proposal import proposal
from issgd_cli.methods.sgd import SGD
from issgd_cli.methods.smoothing import smoothing
from issgd_cli.problem import Problem
from issgd_cli.scores import score
from issgd_cli.simulation.clock import resolved
from issgd_cli.simulation.estimate import measured
from issgd_cli.simulation.schedule import Schedule, schedule

Watch = Callable[[str], None]

MINIBATCH = 512  # of scoring: of no consequence but speed


class Cell(NamedTuple):
    """Of one cluster and smoothing, at one step of the trajectory."""

    workers: int
    publish_every_steps: int
    smoothing: str
    step: int
    in_use: float  # Tr(Sigma), not square-rooted, the exact ||g_TRUE||^2 subtracted
    ideal: float
    uniform: float
    mean_age_steps: float  # NaN where nothing is scored


@dataclass(frozen=True)
class Part:
    """A setting and seed of the map: one trajectory, and the file of its cells."""

    setting: str
    seed: int
    config: Config
    path: Path


def parts(
    experiment: Experiment, results: Path, seeds: Sequence[int] | None, overrides: Mapping[str, object]
) -> list[Part]:
    """Of an experiment that has a [map]; none of one that has not."""
    asked = experiment.map
    if asked is None:
        return []
    found = []
    for seed, setting in product(experiment.seeds if seeds is None else seeds, experiment.settings):
        values = merged(
            experiment.run(setting, next(iter(experiment.methods)), overrides).config.model_dump(exclude_none=True),
            {
                "seed": seed,
                "proposal": {"method": "sgd", "source": "workers"},
                "master": {"mode": "relaxed", "steps": asked.steps, "seconds": None, "reuse_own_norms": False},
                "monitor": {"audit_every_steps": asked.audit_every_steps},
            },
        )
        config = resolve(values, experiment.where)
        told = json.dumps([config.hash(), asked.model_dump(mode="json")]).encode()
        place = results / config.name / "map" / f"{setting}-{hashlib.sha256(told).hexdigest()[:8]}"
        found.append(Part(setting, seed, config, place / f"seed-{seed:03d}.csv"))
    if len({json.dumps(_cluster(part.config), sort_keys=True) for part in found}) > 1:
        raise ConfigError(
            f"{experiment.where}: [map] needs settings of one dataset, chunk size and clock, since they share their "
            "schedules. Make an experiment of its own for each."
        )
    return found


def _cluster(config: Config) -> dict[str, object]:
    """What a schedule depends on, but for the workers and the publish interval."""
    values = config.model_dump(mode="json")
    return {name: values[name] for name in ("data", "model", "worker", "cluster")}


def compute(wanted: Sequence[Part], asked: StalenessMap, watch: Watch) -> None:
    """Writes the files that are not there yet.

    Args:
        wanted: As `parts` gives them.
        asked: What the map covers.
        watch: Told now and then what is being done.
    """
    missing = [part for part in wanted if not part.path.exists()]
    if not missing:
        return
    config = missing[0].config
    data = dataset_of(config)
    device = torch.device(device_of(config, "master", 0))
    layout = Layout(**data.sizes, chunk_size=config.worker.chunk_size)
    problem = Problem(config, data)
    with computing(config):
        clock = resolved(config.cluster.clock, layout.train, lambda: measured(config, problem, device))
        schedules = []
        for workers, every in product(asked.workers, asked.publish_every_steps):
            watch(f"the schedule of {workers} workers, publishing every {every} steps")
            cluster = {"worker": {"count": workers}, "master": {"publish_every_steps": every}}
            values = merged(config.model_dump(exclude_none=True), cluster)
            schedules.append(schedule(resolve(values, "the map"), problem, layout, clock).since(asked.audit_from_step))
        for part in missing:
            _compute(part, asked, layout, schedules, data, device, watch)


def _compute(
    part: Part,
    asked: StalenessMap,
    layout: Layout,
    schedules: Sequence[Schedule],
    data: Prepared,
    device: torch.device,
    watch: Watch,
) -> None:
    """One trajectory, and its file."""
    name = f"{part.setting} seed {part.seed}"
    problem, audits = Problem(part.config, data), schedules[0].steps
    path = trajectory(part.config, problem, device, asked, audits, lambda step: watch(f"{name}, step {step:,}"))
    watch(f"{name}, looking up")
    rows = [row for one in schedules for row in cells(path, one, layout, asked.smoothings)]
    part.path.parent.mkdir(parents=True, exist_ok=True)
    write_text(part.path, as_csv(rows))


@dataclass(frozen=True)
class Trajectory:
    """What plain SGD went through.

    Attributes:
        norms: step -> ||g(x_n)||, float32, shape (N,); at every publication.
        true_norm2: step -> ||g_TRUE||^2, at the audited steps.
    """

    norms: Mapping[int, NDArray[np.float32]]
    true_norm2: Mapping[int, float]


def trajectory(
    config: Config,
    problem: Problem,
    device: torch.device,
    asked: StalenessMap,
    audits: Sequence[int],
    watch: Callable[[int], None],
) -> Trajectory:
    """Trains by plain SGD, and scores all examples at every publication.

    Args:
        config: Of the run.
        problem: What is learned.
        device: Where.
        asked: The map, for its shortest publish interval.
        audits: Steps at which ||g_TRUE||^2 is needed.
        watch: Told the step now and then.
    """
    examples, learner = problem.examples("train", device), Learner(config, problem, device, None)
    method = SGD(config, len(examples), device)
    every = min(asked.publish_every_steps)
    norms: dict[int, NDArray[np.float32]] = {}
    true_norm2: dict[int, float] = {}
    for number in range(max(audits) + 1):
        if number > 0:
            take_step(learner, method, examples, config.master.minibatch_size)
        if number % every == 0:
            norms[number], norm2 = _scored(learner, examples, with_gradient=number in audits)
            if norm2 is not None:
                true_norm2[number] = norm2
            watch(number)
    return Trajectory(norms, true_norm2)


def _scored(learner: Learner, examples: Examples, with_gradient: bool) -> tuple[NDArray[np.float32], float | None]:
    """Norms of all training examples at the learner's parameters, and ||g_TRUE||^2 where it is asked for."""
    norms = np.zeros(len(examples), np.float32)
    total = torch.zeros(learner.trained.shape, dtype=torch.float64)
    learner.model.eval()
    for first in range(0, len(norms), MINIBATCH):
        span = slice(first, min(first + MINIBATCH, len(norms)))
        scores = score(learner.problem.loss, learner.model, *examples[span], with_gradient)
        norms[span] = scores.norms.cpu().numpy()
        if (gradient := scores.gradient) is not None:
            total += gradient.cpu()
    learner.model.train()
    return norms, float((total / len(norms)).square().sum()) if with_gradient else None


def cells(path: Trajectory, schedule: Schedule, layout: Layout, smoothings: Sequence[float | str]) -> Iterator[Cell]:
    """Looks up what the table holds at each audit, and computes the trace of each smoothing's proposal.

    Examples never scored get the mean weight (`fill`), so that all proposals are over the same examples.
    """
    for step, now, before in zip(schedule.steps, schedule.scored_at, schedule.previous_at, strict=True):
        squared_norms = np.square(path.norms[step].astype(np.float64))
        g2 = path.true_norm2[step]
        ideal, uniform = alain2015.ideal_trace(squared_norms, g2), alain2015.uniform_trace(squared_norms, g2)
        table, scored = _looked_up(path, layout, now)
        previous, paired = _looked_up(path, layout, before)
        ages = step - now[now >= 0]
        age = float(np.average(ages, weights=layout.sizes("train")[now >= 0])) if len(ages) else float("nan")
        for setting in smoothings:
            constant = smoothing(setting)(table[scored], previous[paired], table[paired]) if scored.any() else 0.0
            weights = proposal(table, scored, constant, "fill", minimum_usable_fraction=0.0).weights
            in_use = alain2015.trace_of_covariance(squared_norms, weights, g2)
            name = setting if isinstance(setting, str) else f"+{setting:g}"
            yield Cell(schedule.workers, schedule.publish_every_steps, name, step, in_use, ideal, uniform, age)


def _looked_up(path: Trajectory, layout: Layout, steps: NDArray[np.int64]) -> tuple[Float64s, NDArray[np.bool_]]:
    """Each example's norm at its chunk's step, and which examples have one; steps of shape (chunks,), -1: never."""
    norms = np.zeros(layout.train)
    for chunk, step in enumerate(steps.tolist()):
        if step >= 0:
            span = layout.span("train", chunk)
            norms[span] = path.norms[step][span]
    return norms, layout.spread("train", steps >= 0)


def as_csv(rows: Sequence[Cell]) -> str:
    """Floats in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Cell._fields)
    writer.writerows([repr(value) if isinstance(value, float) else value for value in row] for row in rows)
    return text.getvalue()
