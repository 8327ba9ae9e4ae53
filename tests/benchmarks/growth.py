"""What grows with N and with the number of workers: a step, a refresh, and scoring throughput; and a figure of it."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Barrier

import numpy as np
import torch
from matplotlib.axes import Axes

from issgd_cli.actors.master import Master
from issgd_cli.actors.worker import Worker
from issgd_cli.database import Published
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.datasets.prepared import Prepared, Split
from issgd_cli.figures import style
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from tests.benchmarks import processes, stage
from tests.benchmarks.report import Row
from tests.benchmarks.scale import Scale
from tests.benchmarks.timing import Quartiles, interleaved
from tests.masters import refresh, train

STEP, REFRESH, THROUGHPUT = "growth: step of the master", "growth: refresh", "growth: scoring throughput"


def rows(scale: Scale) -> list[Row]:
    """Against N, with synthetic weights, and against the number of workers on this machine."""
    with stage.dataset(scale) as data:
        found = [row for examples in scale.many for row in _against_n(scale, data, examples)]
        return [*found, *_against_workers(scale, data)]


def draw(rows: Sequence[Row], stem: Path) -> list[Path]:
    """One figure: times against N, throughput against workers.

    Args:
        rows: From `rows`.
        stem: Where it goes; .png and .pdf are added.
    """
    with style.style():
        figure = style.new_figure(9, 3.6)
        figure.set_layout_engine("constrained")
        left, right = figure.subplots(1, 2)
        for path, label, line in (
            (STEP, "step", {"color": style.GREEN, "linestyle": "-", "marker": "o"}),
            (REFRESH, "refresh, once in 32 steps", {"color": style.BLUE, "linestyle": "--", "marker": "s"}),
        ):
            _line(left, [row for row in rows if row.path == path], label, line)
        left.set(xscale="log", yscale="log", xlabel="training examples N", ylabel="milliseconds")
        left.legend()
        found = [row for row in rows if row.path == THROUGHPUT]
        _line(right, found, "measured", {"color": style.GREEN, "linestyle": "-", "marker": "o"})
        counts, cores = [row.at or 0.0 for row in found], os.cpu_count() or 1
        first = found[0].value
        assert first is not None
        right.plot(
            counts,
            [first.median / counts[0] * min(count, cores) for count in counts],
            color="#777777",
            linestyle=":",
            label=f"in proportion, up to {cores} cores",
        )
        right.set(xlabel="workers", ylabel="examples scored a second", ylim=(0, None), xticks=counts)
        right.legend()
        return style.save(figure, stem)


def _line(axes: Axes, rows: Sequence[Row], label: str, line: dict[str, str]) -> None:
    lower, median, upper = zip(*(row.value for row in rows), strict=True)
    positions = [row.at or 0.0 for row in rows]
    axes.fill_between(positions, lower, upper, color=line["color"], alpha=0.2, linewidth=0)
    axes.plot(positions, median, label=label, color=line["color"], linestyle=line["linestyle"], marker=line["marker"])


def _against_n(scale: Scale, data: Prepared, examples: int) -> list[Row]:
    layout = stage.layout(scale, examples)
    with stage.real_database(layout) as (database, _, _):
        # Neither of the two writes anything into its folder.
        master = Master.of(
            stage.config(scale),
            Problem(stage.config(scale), _resized(data, examples)),
            database,
            RunFolder(Path()),
            stage.CPU,
        )
        master.publishing.version = stage.NEXT_VERSION
        refresh(master)
        timings = interleaved({STEP: partial(train, master), REFRESH: partial(refresh, master)}, scale.repeats)
    size = f"N = {examples:,}"
    return [
        Row(path, "issgd", size, timings.seconds(path).times(1e3), "ms", at=float(examples)) for path in timings.rounds
    ]


def _resized(data: Prepared, examples: int) -> Prepared:
    """As many training examples as asked for, of which those that the file has no room for overlap.

    So 10 million, 31 GB, are as spread over memory as 600,000 are, and no page of them has to come from a disk.
    """
    pixels, features = data.splits["train"].inputs.reshape(-1), data.features
    stride = min(features, (len(pixels) - features) // (examples - 1))
    images = np.lib.stride_tricks.as_strided(pixels, (examples, features), (stride, 1), writeable=False)
    labels = np.random.default_rng(0).integers(0, data.classes, examples)
    return replace(data, splits={**data.splits, "train": Split(images, labels)})


def _against_workers(scale: Scale, data: Prepared) -> list[Row]:
    cores = os.cpu_count() or 1
    powers = [2**power for power in range(12)]
    counts = scale.worker_counts or sorted({cores, *(count for count in powers if count <= 2 * cores)})
    layout = stage.layout(scale)
    found = []
    with stage.real_database(layout) as (database, url, _):
        folder = stage.folder_of(data)
        parameters = flatten_parameters(stage.network(scale)).numpy()
        for number, count in enumerate(counts):
            database.publish(Published(stage.NEXT_VERSION + number, 0), parameters)
            rates = processes.at_once(_rate, count, scale, url, folder)
            found.append(
                Row(
                    THROUGHPUT,
                    "issgd",
                    f"{count} worker{'s' * (count > 1)}",
                    Quartiles.exactly(sum(rates)),
                    "examples/s",
                    note=f"{cores} cores; a process and a torch thread each",
                    at=float(count),
                )
            )
    return found


def _rate(barrier: Barrier, scale: Scale, url: str, folder: Path) -> float:
    """Examples a second; in a process of its own, a worker's life for a while, begun and ended with the others'."""
    torch.set_num_threads(1)
    data, database = stage.opened(folder, scale.classes), RedisDatabase(url, "bench")
    operations = Worker.of(stage.config(scale), Problem(stage.config(scale), data), database, stage.CPU).run()
    for operation in operations:
        if operation.name == "push":  # it is warm
            break
    barrier.wait()
    start, scored, examples, elapsed = time.perf_counter(), 0, 0, 0.0
    for operation in operations:
        now = time.perf_counter() - start
        if operation.name == "push":  # what was announced to be scored is
            scored, elapsed = scored + examples, now
        examples = operation.examples or examples
        if operation.name == "wait" or (scored and now >= scale.seconds):
            break
    barrier.wait()  # nobody leaves the others more of the machine
    database.close()
    return scored / elapsed if scored else 0.0
