"""Does the simulated cluster tell how stale weights are? `python -m tests.benchmarks.agreement` asks reality.

A small problem runs on the local cluster, with real processes and a real server, and then on the simulated one, with
the durations that the local run's own events tell. How old the weights in use are, and which part of them a limit
keeps, is what both clusters' masters report of each refresh: the same rows of their traces.

What is a little different by construction, and small where refreshing and pushing are short beside a sweep:

- The simulated database is read, and written to, at the end of the operation; the real one somewhere within it.
- Every operation of a kind takes the same time on the virtual clock, the mean of the real ones. An actor's operations
  follow each other without gaps, in reality too: an operation lasts until the next one begins, so what the actor does
  between them (claiming a chunk, looking for new parameters, handing its events over) is in the durations already.
- Workers that have nothing to do poll in reality and are told at once here; in this problem there is always something.

Actors that share cores take longer for everything, and longer yet on a loaded machine; both is in the durations. What
they can't carry over is a load that comes and goes within a run.
"""

import argparse
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.config.config import Config
from issgd_cli.config.layers import assignments
from issgd_cli.config.sections import Clock, Cluster
from issgd_cli.config.validation import resolve
from issgd_cli.database import SPLITS, Layout
from issgd_cli.experiments import run as training
from issgd_cli.figures import style
from issgd_cli.files import write_text
from issgd_cli.runs import traces
from issgd_cli.runs.folder import RunFolder
from issgd_cli.simulation.clock import from_run
from tests.benchmarks.report import commit, machine

RESULTS = Path(__file__).parents[2] / "results" / "reference" / "agreement"
BAND = 0.25  # how far the simulated cluster's figure may be from the local one's
REPEATS = 3
ENOUGH = 12  # refreshes in its stride that a run needs, for their mean to mean something
QUARTILES = (0.25, 0.5, 0.75)

FEATURES, CLASSES, CHUNK = 768, 10, 384
TRAIN, HELD_OUT = 30 * CHUNK, 2 * CHUNK  # examples: whole chunks
PROBLEM = (
    f"data.validation_fraction={HELD_OUT / (TRAIN + HELD_OUT)}",
    "model.hidden=[512, 512]",
    "optimizer.learning_rate=0.001",
    "proposal.smoothing=1",
    "proposal.limit_mode=fill",  # a limit then changes what is drawn, never who does what when
    "proposal.minimum_usable_fraction=0",
    "master.mode=relaxed",
    "master.minibatch_size=32",
    "master.publish_every_steps=16",
    "master.checkpoint_every_seconds=100000",
    "worker.count=2",
    f"worker.chunk_size={CHUNK}",
    "monitor.every_seconds=0.05",  # it looks ten times a second: sees about every refresh
    "cluster.threads=1",
    "cluster.devices=['cpu']",
)
SECONDS, VERSIONS, KEPT = "staleness/mean_seconds", "staleness/mean_versions", "proposal/kept_fraction"
TICKS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of the figure


class TooShortError(Exception):
    """A run had ended before it was in its stride, or soon after: it needs more steps."""


@dataclass(frozen=True)
class Compared:
    """One quantity on both clusters: means over the refreshes of a local run, and of the run simulated after it.

    Attributes:
        quantity: Its name in the trace.
        limit: proposal.staleness_limit_seconds of both runs; None: no limit.
        local, simulated: The means.
        local_refreshes, simulated_refreshes: How many each is over.
    """

    quantity: str
    limit: float | None
    local: float
    local_refreshes: int
    simulated: float
    simulated_refreshes: int

    @property
    def ratio(self) -> float:
        """The simulated cluster's figure over the local one's."""
        return self.simulated / self.local if self.local else math.inf

    @property
    def label(self) -> str:
        """The quantity, for people."""
        if self.limit is not None:
            return f"kept within {self.limit:g} s"
        return "mean age in seconds" if self.quantity == SECONDS else "mean age in versions"


def problem(place: Path, steps: int) -> Config:
    """The configuration of a relaxed run on ten noisy patterns, whose data are written into a folder."""
    random = np.random.default_rng(0)
    patterns = random.integers(60, 190, (CLASSES, FEATURES))

    def drawn(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        labels = random.integers(0, CLASSES, count)
        noisy = patterns[labels] + random.normal(0, 60, (count, FEATURES))
        return noisy.clip(0, 255).astype(np.uint8), labels

    path = place / "patterns.npz"
    (images, labels), (test_images, test_labels) = drawn(TRAIN + HELD_OUT), drawn(HELD_OUT)
    np.savez(path, images=images, labels=labels, test_images=test_images, test_labels=test_labels)
    settings = [*PROBLEM, f"data.name={path}", f"data.dir={place}", f"master.steps={steps}"]
    return resolve(assignments(settings), "the comparison")


def compare(config: Config, place: Path, repeats: int, limited_repeats: int) -> list[Compared]:
    """Ages without a limit, then the kept fractions with limits at about the quartiles of the ages.

    Args:
        config: Of the local runs.
        place: Where all runs are written.
        repeats: Runs without a limit.
        limited_repeats: Runs with each of the limits.

    Raises:
        TooShortError: A run took too few steps for this machine.
    """
    found = [one for number in range(repeats) for one in compare_one(config, place / f"free-{number}", None)]
    # A chunk's turn comes once a sweep, so ages are spread evenly from nothing to twice their mean.
    longest = 2 * float(np.median([one.local for one in found if one.quantity == SECONDS]))
    for part in QUARTILES:
        for number in range(limited_repeats):
            found += compare_one(config, place / f"limit-{part}-{number}", float(f"{part * longest:.2g}"))
    return found


def compare_one(config: Config, place: Path, limit: float | None) -> list[Compared]:
    """A local run and the simulated one with its durations: their ages, or with a limit, their kept fractions."""
    proposal = config.proposal.model_copy(update={"staleness_limit_seconds": limit})
    quantities = (SECONDS, VERSIONS) if limit is None else (KEPT,)
    local = run(config.model_copy(update={"proposal": proposal}), place / "local")
    real = settled_means(local, quantities)
    simulated = run(on_paper(local.read_config(), from_run(local)), place / "simulated")
    virtual = settled_means(simulated, quantities)
    return [Compared(name, limit, *real[name], *virtual[name]) for name in quantities]


def on_paper(config: Config, clock: Clock) -> Config:
    """The same run on the simulated cluster."""
    cluster = Cluster.model_validate({**config.cluster.model_dump(), "kind": "simulated", "clock": clock.model_dump()})
    return config.model_copy(update={"cluster": cluster})


def run(config: Config, place: Path) -> RunFolder:
    """Does a run."""
    folder = RunFolder(place / "seed-000")
    training.train(config, folder, command=["tests.benchmarks.agreement"])
    return folder


def settled_means(folder: RunFolder, quantities: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Means over a run's refreshes from `settled_at` on, and of how many; raises TooShortError below ENOUGH."""
    trace, since = traces.read(folder.trace), settled_at(folder)
    rows = trace[trace.seconds >= since]
    found = {name: (float((values := rows.value[rows.quantity == name]).mean()), len(values)) for name in quantities}
    if (least := min(count for _, count in found.values())) < ENOUGH:
        config = folder.read_config()
        raise TooShortError(
            f"a run of {config.master.steps} steps on the {config.cluster.kind} cluster had {least} refreshes "
            f"in its stride, {ENOUGH} are needed: take more steps"
        )
    return found


def settled_at(folder: RunFolder) -> float:
    """When, with all workers at work, as many chunks had been scored as there are: from then on a run is in its stride.

    Local workers start at different times, seconds after the master's clock; infinity if the run ended before.
    """
    config, sizes = folder.read_config(), folder.read_manifest()["dataset"]
    layout = Layout(sizes["train"], sizes["valid"], sizes["test"], config.worker.chunk_size)
    events = traces.read_events(folder.events)
    pushes = events[events.event == "push"]
    first = pushes.groupby("actor").end.min()
    together = pushes.end[pushes.end >= first.max()].sort_values()
    sweep = sum(layout.chunks(split) for split in SPLITS)
    return float(together.iloc[sweep]) if len(first) == config.worker.count and len(together) > sweep else math.inf


def ratios(found: Sequence[Compared]) -> dict[str, list[float]]:
    """Simulated over local, of each quantity and limit, run by run."""
    return {
        label: [one.ratio for one in found if one.label == label] for label in dict.fromkeys(o.label for o in found)
    }


def deviation(ratio: float) -> float:
    """How far the simulated figure is from the local one, as a part of it."""
    return abs(ratio - 1)


def write(found: Sequence[Compared], loads: tuple[float, float], directory: Path) -> list[Path]:
    """The numbers, the figure and the page.

    Args:
        found: From `compare`.
        loads: How many processes wanted to run, on the minute's average: before the comparison, and at its end.
        directory: Where the files go.
    """
    directory.mkdir(parents=True, exist_ok=True)
    medians = {label: float(np.median(values)) for label, values in ratios(found).items()}
    content = {
        "command": "python -m tests.benchmarks.agreement",
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "load": {"before": round(loads[0], 2), "after": round(loads[1], 2)},
        "settings": list(PROBLEM),
        "examples": {"train": TRAIN, "valid": HELD_OUT, "test": HELD_OUT},
        "band": BAND,
        "median_ratios": medians,
        "runs": [{**asdict(one), "ratio": one.ratio} for one in found],
    }
    numbers, page = directory / "agreement.json", directory / "README.md"
    write_text(numbers, json.dumps(content, indent=1) + "\n")
    write_text(page, markdown(found, content))
    return [numbers, page, *draw(found, directory / "agreement")]


def markdown(found: Sequence[Compared], content: dict[str, Any]) -> str:
    """The page: what was compared, a table, and how loaded the machine was."""
    about, commit = content["machine"], content["commit"]
    state = f"commit {commit.removesuffix('+')[:12] or 'unknown'}{' with changes' if commit.endswith('+') else ''}"
    within = all(deviation(ratio) <= BAND for ratio in content["median_ratios"].values())
    lines = [
        "# The simulated cluster beside the local one",
        "",
        f"{content['date']}, {state}; {about['cpu']}, {about['cores']} cores; load {content['load']['before']} before, "
        f"{content['load']['after']} at the end (the local cluster alone makes about 3).",
        "",
        f"A small problem ({TRAIN:,} examples in {TRAIN // CHUNK} chunks, 2 workers) ran on the local cluster, and "
        "then on the simulated one with the durations in that local run's own `events.csv`. Compared are means over "
        "the refreshes once all workers are at work and have scored everything once. Each row: medians over its pairs "
        f"of runs. {'All' if within else 'NOT all'} median ratios are within {BAND:.0%}.",
        "",
        "| quantity | local | simulated | simulated / local | run by run |",
        "|---|---|---|---|---|",
    ]
    for label, values in ratios(found).items():
        local, simulated = (
            np.median([getattr(one, cluster) for one in found if one.label == label])
            for cluster in ("local", "simulated")
        )
        each = ", ".join(f"{value:.2f}" for value in values)
        lines.append(f"| {label} | {local:.3g} | {simulated:.3g} | {np.median(values):.2f} | {each} |")
    lines += ["", "![Simulated against local](agreement.png)", "", f"Made by `{content['command']}`."]
    return "\n".join(lines) + "\n"


def draw(found: Sequence[Compared], stem: Path) -> list[Path]:
    """Each quantity on both clusters, and the ratio run by run; the band is what counts as agreement.

    Args:
        found: From `compare`.
        stem: Where it goes; .png and .pdf are added.
    """
    by_label = ratios(found)
    with style.style():
        figure = style.new_figure(9.5, 3.8)
        figure.set_layout_engine("constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        values = [value for one in found for value in (one.local, one.simulated)]
        ends = np.array([min(values) / 1.5, max(values) * 1.5])
        left.fill_between(ends, (1 - BAND) * ends, (1 + BAND) * ends, color="#dddddd", label=f"within {BAND:.0%}")
        left.plot(ends, ends, color="#777777", linestyle=":")
        kinds = ((SECONDS, "age, seconds", style.GREEN, "o"), (VERSIONS, "age, versions", style.BLUE, "s"))
        for quantity, label, colour, marker in (*kinds, (KEPT, "kept fraction", style.ORANGE, "^")):
            points = [one for one in found if one.quantity == quantity]
            x, y = [one.local for one in points], [one.simulated for one in points]
            left.plot(x, y, linestyle="", marker=marker, color=colour, label=label, alpha=0.8)
        left.set(xscale="log", yscale="log", xlabel="local cluster", ylabel="simulated cluster")
        for axis in (left.xaxis, left.yaxis):
            axis.set_ticks(TICKS, labels=[f"{tick:g}" for tick in TICKS])
            axis.set_ticks([], minor=True)
        left.set(xlim=tuple(ends), ylim=tuple(ends))
        left.legend()
        right.axvspan(1 - BAND, 1 + BAND, color="#dddddd")
        right.axvline(1, color="#777777", linestyle=":")
        for place, each in enumerate(by_label.values()):
            right.plot(each, [place] * len(each), linestyle="", marker="o", color=style.GREEN, alpha=0.6)
            right.plot(np.median(each), place, linestyle="", marker="|", markersize=18, color="black")
        right.set_yticks(range(len(by_label)), list(by_label))
        right.invert_yaxis()
        right.set(xlim=(1 - 2 * BAND, 1 + 2 * BAND), xlabel="simulated / local, each run; the bar is the median")
        return style.save(figure, stem)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares, and keeps what is found."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.agreement", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files go")
    parser.add_argument("--steps", type=int, default=800, help="of the master, in each run")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="runs of each kind")
    options = parser.parse_args(arguments)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="issgd-agreement-") as place:
        config = problem(Path(place), options.steps)
        found = compare(config, Path(place), options.repeats, options.repeats)
    for label, values in ratios(found).items():
        print(f"{label}: simulated / local {np.median(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})")
    write(found, (before, os.getloadavg()[0]), options.results)


if __name__ == "__main__":
    main()
