"""An experiment's runs handed to a scheduler, as arrays of jobs, and watched from elsewhere."""

import contextlib
import functools
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from issgd_cli.clusters import batch, live
from issgd_cli.clusters.cluster import Snapshot, Submission
from issgd_cli.clusters.jobs import add_job, job_ids
from issgd_cli.clusters.resuming import dataset_of
from issgd_cli.config.config import Config
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import IssgdError, RunError
from issgd_cli.experiments import submission as submitting
from issgd_cli.experiments.experiment import Run
from issgd_cli.experiments.reproduction import Progress, name_of, unfinished
from issgd_cli.experiments.submission import Outlook
from issgd_cli.files import write_text, writing
from issgd_cli.networks import naming
from issgd_cli.runs import folder as folders
from issgd_cli.runs.folder import RunFolder

MOST = 1000  # jobs of an array: Slurm's own limit, where a site sets none

Beside = Callable[[RunFolder], contextlib.AbstractContextManager[object]]


def reproduce(
    runs: Sequence[Run],
    results: Path,
    submission: Submission,
    *,
    command: list[str],
    jobs: int | None,
    watch: Callable[[Progress], None],
    stop: threading.Event,
    beside: Beside = contextlib.nullcontext,
) -> Progress:
    """As `reproduction.reproduce`; runs that a job waits for or is at are watched, and submitted no second time.

    Args:
        runs: Of the experiment.
        results: The folder above the experiment's.
        submission: To whom.
        command: What to note in the manifests.
        jobs: Runs of an array at a time; None: as many as the scheduler lets.
        watch: Called about once a second.
        stop: Set by the caller to leave; the jobs go on.
        beside: Gives for a run's folder what goes on while the run does.

    Raises:
        RunError: The scheduler does not answer, or refuses.
    """
    for run in runs:
        batch.refuse_unfit(run.config)
    progress = Progress(total=len(runs))
    left = unfinished(runs, results, progress)
    if left and (known := submission.standings()) is None:
        raise RunError(submitting.SILENT)
    fresh = [run for run in left if submitting.standing(run.folder(results), known or {}) is None]
    queued = list(_queued(fresh, results, command, progress))
    for group in _groups(queued):
        _submit(group, results, submission, jobs)
    looked_at = {name_of(run, results): Outlook(run.folder(results)) for run in left}
    for name in progress.failed:
        looked_at.pop(name, None)
    _watch(looked_at, submission, progress, watch, stop, beside)
    return progress


def jobs_of(runs: Sequence[Run], results: Path, submission: Submission) -> list[str]:
    """The jobs that wait or run for these runs; of an array each of its own."""
    known = submission.standings() or {}
    return [job for run in runs for job in job_ids(run.folder(results)) if job in known]


def _queued(runs: Sequence[Run], results: Path, command: list[str], progress: Progress) -> Iterator[Run]:
    """The runs whose folders are ready for a job; the others have failed."""

    @functools.cache
    def data_of(identity: str) -> Prepared:
        return dataset_of(configs[identity])

    configs: dict[str, Config] = {}
    for run in runs:
        identity = run.config.data.model_dump_json()
        configs[identity] = run.config
        try:
            submitting.queue(
                run.config, run.folder(results), data_of(identity), command=command, resume=True, labels=run.labels
            )
            yield run
        except IssgdError as error:
            progress.failed[name_of(run, results)] = str(error)


def _groups(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Runs that one script can stand for."""
    groups: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((batch.request(run.config), naming.named(run.config.model.network)), []).append(run)
    for group in groups.values():
        for start in range(0, len(group), MOST):
            yield group[start : start + MOST]


def _submit(runs: list[Run], results: Path, submission: Submission, jobs: int | None) -> None:
    """One array.

    Raises:
        RunError: It is refused.
    """
    config, places = runs[0].config, [run.folder(results) for run in runs]
    # A job that queues again by its script must find its own run there: another list is another script.
    listed = hashlib.sha256("\n".join(str(place.path) for place in places).encode()).hexdigest()[:8]
    path = results / config.name / f"array-{listed}.sh"
    text = batch.array(config, places, path, jobs, naming.named(config.model.network), Path.cwd())
    with writing(path, folders.ELSEWHERE):
        write_text(path, text)
    try:
        job = submission.submit(path)
    except RunError as error:
        for place in places:
            submitting.refused(place, error)
        raise
    for index, place in enumerate(places):
        add_job(place, f"{job}_{index}")


def _watch(
    left: dict[str, Outlook],
    submission: Submission,
    progress: Progress,
    watch: Callable[[Progress], None],
    stop: threading.Event,
    beside: Beside,
) -> None:
    """Until all of them are over, or `stop` is set."""
    with contextlib.ExitStack() as everything:
        followed: dict[str, contextlib.ExitStack] = {}
        for looks in itertools.count():
            now = looks * submitting.LOOK_SECONDS
            if looks % max(1, round(submitting.ASK_SECONDS / submitting.LOOK_SECONDS)) == 0:
                known = submission.standings()
                for outlook in left.values():
                    outlook.learn(known, now)
            for name, outlook in list(left.items()):
                runs = outlook.standing is not None and outlook.standing.state == "running"
                if runs and name not in followed:
                    followed[name] = everything.enter_context(contextlib.ExitStack())
                    followed[name].enter_context(beside(outlook.folder))
                if _look(name, outlook, now, runs, progress):
                    del left[name]
                    if name in followed:
                        followed.pop(name).close()
            progress.queued = sum(outlook.standing is not None for outlook in left.values()) - len(progress.running)
            watch(progress)
            if not left or stop.wait(submitting.LOOK_SECONDS):
                return


def _look(name: str, outlook: Outlook, now: float, runs: bool, progress: Progress) -> bool:
    """Takes in how a run stands; whether it is over, for better or worse."""
    seen = progress.running.pop(name, None)
    if outlook.standing is not None and not runs:
        return False
    try:
        if outlook.is_over(now):
            progress.done[name] = (live.read(outlook.folder) or seen or Snapshot()).seconds
            return True
    except RunError as error:
        progress.failed[name] = str(error)
        return True
    if runs:
        progress.running[name] = live.read(outlook.folder) or seen or Snapshot()
    return False
