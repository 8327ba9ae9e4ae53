"""Doing an experiment's runs: skipping what is finished, several at a time, one process on a folder."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from issgd_cli.clusters.cluster import Snapshot
from issgd_cli.clusters.resuming import dataset_of, refuse_other_data
from issgd_cli.errors import DataError, IssgdError, RunError
from issgd_cli.experiments import isolated as apart
from issgd_cli.experiments import run as training
from issgd_cli.experiments.experiment import Run
from issgd_cli.runs.folder import RunFolder


@dataclass
class Progress:
    """How an experiment stands; the screen draws nothing else.

    Attributes:
        total: Runs in all.
        skipped: Finished before.
        queued: How many wait for a scheduler.
        done: Run -> the seconds it took, for those finished now.
        running: Run -> its newest snapshot.
        failed: Run -> why.
    """

    total: int
    skipped: int = 0
    queued: int = 0
    done: dict[str, float] = field(default_factory=dict)
    running: dict[str, Snapshot] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def seconds_left(self, jobs: int) -> float | None:
        """From the mean of the runs done; None before the first."""
        if not self.done:
            return None
        mean = sum(self.done.values()) / len(self.done)
        ahead = self.total - self.skipped - len(self.done) - len(self.failed)
        under_way = sum(min(mean, snapshot.seconds / (snapshot.pace or 1)) for snapshot in self.running.values())
        return max(0.0, ahead * mean - under_way) / jobs


def reproduce(
    runs: Sequence[Run],
    results: Path,
    *,
    command: list[str],
    jobs: int,
    devices: Sequence[str],
    watch: Callable[[Progress], None],
    stop: threading.Event,
    beside: Callable[[RunFolder], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> Progress:
    """Does the runs that are not finished yet; unfinished and failed ones go on from their checkpoints.

    A run that fails is reported and does not end the others.

    Args:
        runs: Of the experiment.
        results: The folder above the experiment's.
        command: What to note in the manifests.
        jobs: Runs at a time.
        devices: Dealt out to the jobs; none: as each run's configuration says.
        watch: Called when something changes, and about twice a second for each run.
        stop: Set by the caller to interrupt; the runs under way end within seconds, resumable.
        beside: Gives for a run's folder what goes on while the run does.
    """
    progress = Progress(total=len(runs))
    lock = threading.Lock()
    free = list(range(jobs))  # the places in which runs are done; a place has its devices

    def attempt(run: Run) -> None:
        if stop.is_set():
            return
        name, start = name_of(run, results), time.monotonic()
        with lock:
            place = free.pop(0)
            progress.running[name] = Snapshot()

        def see(snapshot: Snapshot) -> None:
            with lock:
                progress.running[name] = snapshot
                watch(progress)

        failure = None
        try:
            config = run.config
            if dealt := tuple(devices[place % len(devices) :: jobs]) if devices else ():
                config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"devices": dealt})})
            train = training.train if config.cluster.kind == "local" else apart.train
            folder = run.folder(results)
            with beside(folder):
                train(
                    config,
                    folder,
                    command=command,
                    resume=True,
                    watch=see,
                    stop=stop,
                    labels=run.labels,
                    jobs=jobs,
                )
        except Exception as error:  # whatever it is, the other runs go on
            failure = str(error) or type(error).__name__
        with lock:
            free.append(place)
            del progress.running[name]
            if failure is None:
                progress.done[name] = time.monotonic() - start
            elif not stop.is_set():
                progress.failed[name] = failure
            watch(progress)

    left = unfinished(runs, results, progress)
    watch(progress)
    with ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(attempt, run) for run in left]:
            done.result()
    return progress


def unfinished(runs: Sequence[Run], results: Path, progress: Progress) -> list[Run]:
    """Those that are left to do; the others are told of in `progress`."""
    left = []
    for run in runs:
        try:
            if run.folder(results).state() == "finished":
                _refuse_other_configuration(run, results)
                with contextlib.suppress(DataError):  # the data may be gone since
                    refuse_other_data(run.folder(results), dataset_of(run.config))
                progress.skipped += 1
            else:
                left.append(run)
        except IssgdError as error:
            progress.failed[name_of(run, results)] = str(error)
    return left


def _refuse_other_configuration(run: Run, results: Path) -> None:
    """A finished run stands for its configuration; one made under other defaults has the same folder.

    Raises:
        RunError: It was.
    """
    folder = run.folder(results)
    if folder.read_config().hash() != run.config.hash():
        raise RunError(
            f"{folder.path} was run with other values than these ({folder.config}): a default has changed since. Move "
            "the folder away to run it anew."
        )


def name_of(run: Run, results: Path) -> str:
    """For people: <setting>-<dataset>-<method>-<hash>/<seed>."""
    return str(run.folder(results).path.relative_to(results / run.config.name))
