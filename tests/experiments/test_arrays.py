"""Runs handed to a scheduler as arrays, which a stand-in is: what it is given, and how their ends are told."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from issgd_cli.clusters import live
from issgd_cli.clusters.cluster import Snapshot, Standing
from issgd_cli.clusters.jobs import job_ids
from issgd_cli.config.config import Config
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import RunError
from issgd_cli.experiments import arrays, submission
from issgd_cli.experiments.experiment import Run
from issgd_cli.experiments.reproduction import Progress
from issgd_cli.runs import folder as runs
from issgd_cli.runs.folder import RunFolder
from tests.experiments.test_submission import Scheduler

Configured = Callable[..., Config]
Reproduce = Callable[..., Progress]


@pytest.fixture
def planned(configured: Configured) -> list[Run]:
    settings = "cluster.kind=slurm", "name=x"
    many = [Run(configured(*settings, f"seed={seed}"), "a", "issgd") for seed in range(3)]
    return [*many, Run(configured(*settings, "worker.count=7"), "b", "issgd")]


@pytest.fixture
def reproduce(tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch) -> Reproduce:
    monkeypatch.setattr(arrays, "dataset_of", lambda config: data)
    monkeypatch.setattr(submission, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(submission, "ASK_SECONDS", 0.01)
    monkeypatch.setattr(submission, "GONE_SECONDS", 0.05)

    def of(
        planned: list[Run],
        scheduler: Scheduler,
        look: Callable[[Progress], None] = lambda progress: None,
        stop: threading.Event | None = None,
        beside: arrays.Beside = contextlib.nullcontext,
    ) -> Progress:
        return arrays.reproduce(
            planned,
            tmp_path,
            scheduler,
            command=["issgd"],
            jobs=2,
            watch=look,
            stop=stop or threading.Event(),
            beside=beside,
        )

    return of


def ends(planned: list[Run], results: Path, *states: runs.State) -> None:
    for run, state in zip(planned, states, strict=True):
        failure = None if state == "finished" else {"actor": "master", "reason": "not finite"}
        runs.end(run.folder(results), state, failure)


def test_runs_that_ask_for_the_same_are_jobs_of_one_array(
    planned: list[Run], reproduce: Reproduce, tmp_path: Path
) -> None:
    scheduler = Scheduler()

    def answer() -> None:
        if len(scheduler.scripts) == 2:
            ends(planned, tmp_path, "finished", "finished", "finished", "finished")

    scheduler.then = answer
    progress = reproduce(planned, scheduler)
    assert len(progress.done) == 4
    assert [job_ids(run.folder(tmp_path)) for run in planned] == [["7_0"], ["7_1"], ["7_2"], ["8_0"]]
    many, one = (script.read_text() for script in scheduler.scripts)
    assert "--array=0-2%2" in many
    assert "--array=0-0%2" in one
    assert "--ntasks=8" in one
    manifest = planned[0].folder(tmp_path).read_manifest()
    assert (manifest["cluster"], manifest["setting"]) == ("slurm", "a")


def test_another_list_of_runs_is_another_script(planned: list[Run], reproduce: Reproduce, tmp_path: Path) -> None:
    scheduler = Scheduler()
    stop = threading.Event()
    stop.set()
    reproduce(planned[:2], scheduler, stop=stop)
    scheduler.known = {"7_0": Standing("queued")}
    reproduce(planned[:3], scheduler, stop=stop)
    first, second = scheduler.scripts
    assert first != second  # a job of the first queues again by its script
    assert [job_ids(run.folder(tmp_path)) for run in planned[:3]] == [["7_0"], ["7_1", "8_0"], ["8_1"]]


def test_whoever_watches_sees_what_waits_what_runs_and_what_has_failed(
    planned: list[Run], reproduce: Reproduce, tmp_path: Path
) -> None:
    scheduler, seen, followed = Scheduler(), list[tuple[int, list[float]]](), list[str]()
    one, other = planned[:2]
    answers: Iterator[Mapping[str, Standing]] = iter(
        [
            {},
            {"7_0": Standing("running"), "7_1": Standing("queued")},
            {"7_0": Standing("requeued"), "7_1": Standing("running")},
        ]
    )

    def answer() -> None:
        scheduler.known = dict(next(answers, {}))
        if "7_0" in scheduler.known:
            live.write(one.folder(tmp_path), Snapshot(seconds=5.0))
        elif scheduler.scripts:
            ends([one, other], tmp_path, "finished", "failed")

    @contextlib.contextmanager
    def beside(folder: RunFolder) -> Iterator[None]:
        followed.append(folder.path.name)
        yield
        followed.append(f"{folder.path.name} left")

    scheduler.then = answer
    progress = reproduce(
        [one, other],
        scheduler,
        lambda progress: seen.append((progress.queued, [run.seconds for run in progress.running.values()])),
        beside=beside,
    )
    assert (1, [5.0]) in seen
    assert (1, [0.0]) in seen
    assert seen[-1] == (0, [])
    assert list(progress.done.values()) == [5.0]
    ((name, reason),) = progress.failed.items()
    assert name.endswith("seed-001")
    assert "not finite" in reason
    assert followed == ["seed-000", "seed-001", "seed-000 left", "seed-001 left"]
    scheduler.known, scheduler.then = {}, lambda: None
    again = reproduce([one], scheduler)
    assert (again.skipped, len(scheduler.scripts)) == (1, 1)


def test_who_does_not_answer_is_given_nothing(planned: list[Run], reproduce: Reproduce, tmp_path: Path) -> None:
    scheduler = Scheduler(known=None)
    with pytest.raises(RunError, match="whether `squeue --me` works"):
        reproduce(planned, scheduler)
    assert scheduler.scripts == []


def test_an_array_that_is_refused_leaves_failed_runs(planned: list[Run], reproduce: Reproduce, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="sbatch says: no"):
        reproduce(planned[:2], Scheduler(refuses=True))
    assert [run.folder(tmp_path).state() for run in planned[:2]] == ["failed", "failed"]


def test_a_run_that_cannot_be_begun_keeps_no_other_from_it(
    planned: list[Run], reproduce: Reproduce, tmp_path: Path
) -> None:
    scheduler, stop = Scheduler(), threading.Event()
    stop.set()
    with runs.locked(planned[0].folder(tmp_path).path, "another issgd"):
        progress = reproduce(planned[:2], scheduler, stop=stop)
    assert ["already at work" in reason for reason in progress.failed.values()] == [True]
    assert job_ids(planned[1].folder(tmp_path)) == ["7_0"]


def test_an_array_has_no_more_jobs_than_slurm_lets(
    planned: list[Run], reproduce: Reproduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MOST", 2)
    scheduler, stop = Scheduler(), threading.Event()
    stop.set()
    reproduce(planned[:3], scheduler, stop=stop)
    assert [script.read_text().count("/seed-") for script in scheduler.scripts] == [2, 1]
