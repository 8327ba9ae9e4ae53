"""The master's hot path: one whole step, against a plain loop of uniform SGD and what a user would write."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from issgd_cli.actors.actor import Operation, Task
from issgd_cli.actors.master import Master
from issgd_cli.config.config import Config
from issgd_cli.datasets.examples import Examples
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import ConfigError
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.methods.online import Online
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from tests.benchmarks import stage
from tests.benchmarks.report import Row
from tests.benchmarks.scale import Scale
from tests.benchmarks.timing import Timings, interleaved
from tests.masters import refresh, train

PATH = "master: one step"
OURS, OWN_NORMS, LOADER = "issgd", "issgd with its own norms", "DataLoader + WeightedRandomSampler"
ALONE = ("online", "low", "infobatch")  # methods that need no workers
OPTIMIZERS: dict[str, dict[str, bool]] = {"default": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}
BARS = {OURS: 1.03, OWN_NORMS: 1.10, "online": 1.03}
PER_REFRESH = 32
NOTES = {
    OURS: "publication (into this process) and refresh on the same thread, spread over 32 steps",
    OWN_NORMS: "likewise, and the norms of its own minibatches",
    **dict.fromkeys(ALONE, "without publication and refresh, which come once in 512 steps"),
    LOADER: "num_workers=0; the sampler's draws spread over 32 steps",
}


def rows(scale: Scale) -> list[Row]:
    """At every batch size, with as many uint8 rows in a memory-mapped file as the paper's dataset has."""
    with stage.dataset(scale) as data, stage.run_folder() as folder:
        return [row for size in scale.batches for row in _of(scale, data, folder, size)]


def _of(scale: Scale, data: Prepared, folder: RunFolder, size: int) -> list[Row]:
    # A step at the end of which the master publishes and refreshes, once in 32, is measured as one of every step.
    candidates: dict[str, Callable[[], Any]] = {
        f"plain, {name}": _plain(scale, data, size, name) for name in OPTIMIZERS
    }
    sums: dict[str, dict[str, float]] = {}
    for name, settings in ((OURS, []), (OWN_NORMS, ["master.reuse_own_norms=true", "proposal.limit_mode=fill"])):
        settings = [*settings, f"master.minibatch_size={size}"]
        try:
            config = stage.config(scale, *settings, "master.publish_every_steps=1")
        except ConfigError as error:
            print(f"  {name}: {error}")
            continue
        candidates[f"{name}: train"] = partial(train, _master(config, data, folder))
        candidates[f"{name}: block"] = _blocks_of_one(_master(config, data, folder))
        sums[name] = {f"{name}: train": 1 - 1 / PER_REFRESH, f"{name}: block": 1 / PER_REFRESH}
    for name in ALONE:
        settings = [f"proposal.method={name}", f"master.minibatch_size={size}", "worker.count=0"]
        settings += ["infobatch.until=1"] if name == "infobatch" else []  # since it has no master.steps
        candidates[name] = partial(train, _filled(_master(stage.config(scale, *settings), data, folder)))
        sums[name] = {name: 1.0}
    candidates["loader: step"], candidates["loader: draws"] = _loader(scale, data, size)
    sums[LOADER] = {"loader: step": 1.0, "loader: draws": 1 / PER_REFRESH}
    timings = interleaved(candidates, scale.repeats).summed(**sums)
    return _rows(timings, size, [*sums])


def _rows(timings: Timings, size: int, names: list[str]) -> list[Row]:
    plain = [f"plain, {name}" for name in OPTIMIZERS]
    reference = timings.fastest(*plain)
    return [
        Row(
            PATH,
            name,
            f"batch {size}",
            timings.ratios(name, reference),
            "x fastest plain",
            timings.seconds(name).median,
            BARS.get(name),
            note=NOTES.get(name, ""),
        )
        for name in [*plain, *names]
    ]


def _master(config: Config, data: Prepared, folder: RunFolder) -> Master:
    layout = stage.layout_of(data, config)
    master = Master.of(config, Problem(config, data), stage.memory_database(layout), folder, stage.CPU)
    master.publishing.version = stage.NEXT_VERSION
    refresh(master)
    return master


def _filled(master: Master) -> Master:
    """With a table of importances as after the first epoch, where its method has one."""
    if isinstance(master.method, Online):
        importances = np.random.default_rng(0).exponential(1.0, len(master.examples))
        master.method.recall({"importances": importances, "is_filled": np.array(True)})
    return master


def _blocks_of_one(master: Master) -> Callable[[], None]:
    """Blocks of a master that publishes after every step; its tasks are done at once, on this thread."""
    life: Iterator[Operation | Task[Any]] = master.run()

    def block() -> None:
        """Trains, then publishes and refreshes."""
        item = next(life)
        while not isinstance(item, Task):
            item = next(life)
        while item.advance() is not None:
            pass

    return block


def _plain(scale: Scale, data: Prepared, size: int, optimizer: str) -> Callable[[], None]:
    examples = Examples(data, data.splits["train"], stage.CPU)
    model = stage.network(scale)
    steps = torch.optim.SGD(model.parameters(), 0.0001, 0.95, nesterov=True, **OPTIMIZERS[optimizer])
    random = torch.Generator().manual_seed(0)

    def step() -> None:
        inputs, labels = examples[torch.randint(len(examples), (size,), generator=random)]
        steps.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        steps.step()

    return step


class _Items(torch.utils.data.Dataset[tuple[Tensor, Tensor, float]]):
    """Examples one by one, as a DataLoader wants them, with their importance weights."""

    def __init__(self, data: Prepared, omega: Tensor) -> None:
        self._split, self._mean, self._std = data.splits["train"], torch.tensor(data.mean), torch.tensor(data.std)
        self._factors = (omega.mean() / omega).tolist()

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, float]:
        image = torch.tensor(self._split.inputs[index])
        return (image - self._mean) / self._std, torch.tensor(self._split.targets[index]), self._factors[index]


def _loader(scale: Scale, data: Prepared, size: int) -> tuple[Callable[[], None], Callable[[], Any]]:
    """A step, and the draws for 32 of them, of the loop that a user would write."""
    layout = stage.layout(scale, len(data.splits["train"]))
    omega = torch.from_numpy(stage.norms_of(layout)) + 10.0
    items, random = _Items(data, omega), torch.Generator().manual_seed(0)
    model = stage.network(scale)
    optimizer = torch.optim.SGD(model.parameters(), 0.0001, 0.95, nesterov=True, fused=True)

    def sampler(minibatches: int) -> torch.utils.data.WeightedRandomSampler:
        # A list, which the annotation asks for, would be turned into this tensor again.
        weights: Any = omega
        return torch.utils.data.WeightedRandomSampler(weights, minibatches * size, generator=random)

    minibatches = iter(torch.utils.data.DataLoader(items, size, sampler=sampler(1000)))

    def step() -> None:
        inputs, labels, factors = next(minibatches)
        optimizer.zero_grad()
        loss = (factors.float() * cross_entropy(model(inputs), labels)).mean()
        loss.backward()
        optimizer.step()

    return step, lambda: list(sampler(PER_REFRESH))
