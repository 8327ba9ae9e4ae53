"""A run handed to a scheduler, which a stand-in is: what it is given, and what whoever watches is shown and told."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from issgd_cli.clusters import live
from issgd_cli.clusters.cluster import Snapshot, Standing
from issgd_cli.clusters.jobs import add_job, job_ids, script_of
from issgd_cli.config.config import Config
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import RunError
from issgd_cli.experiments import submission
from issgd_cli.runs import folder as runs
from issgd_cli.runs.folder import RunFolder

Configured = Callable[..., Config]


@dataclass
class Scheduler:
    """See Submission. Numbers its jobs from 7 on."""

    known: dict[str, Standing] | None = field(default_factory=dict)
    refuses: bool = False
    scripts: list[Path] = field(default_factory=list)
    then: Callable[[], None] = lambda: None

    def submit(self, script: Path) -> str:
        if self.refuses:
            raise RunError("sbatch says: no.")
        self.scripts.append(script)
        return str(6 + len(self.scripts))

    def standings(self) -> Mapping[str, Standing] | None:
        self.then()
        return self.known

    def cancel(self, job: str) -> None:
        raise AssertionError("nobody asked to")


@pytest.fixture
def config(configured: Configured, data: Prepared, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(submission, "dataset_of", lambda config: data)
    return configured("cluster.kind=slurm")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "x/a/seed-000")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(submission, "ASK_SECONDS", 0.01)
    monkeypatch.setattr(submission, "GONE_SECONDS", 0.1)


def test_a_submitted_run_is_queued_and_has_its_script_and_its_job(config: Config, folder: RunFolder) -> None:
    scheduler = Scheduler()
    assert submission.submit(config, folder, scheduler, command=["issgd"], labels={"method": "sgd"}) == "7"
    assert scheduler.scripts == [script_of(folder)]
    assert job_ids(folder) == ["7"]
    manifest = folder.read_manifest()
    assert (manifest["state"], manifest["cluster"], manifest["method"]) == ("queued", "slurm", "sgd")
    assert not runs.is_locked(folder.path)
    assert folder.read_config().cluster == config.cluster


def test_no_second_job_is_submitted_while_one_waits_or_runs(config: Config, folder: RunFolder) -> None:
    scheduler = Scheduler()
    submission.submit(config, folder, scheduler, command=[])
    scheduler.known = {"7": Standing("queued"), "8": Standing("running")}
    with pytest.raises(RunError, match=r"Job 7 is queued for .*`scancel 7` first"):
        submission.submit(config, folder, scheduler, command=[], resume=True)
    scheduler.known = None  # who does not answer may be at it
    with pytest.raises(RunError, match="Slurm does not say which jobs wait or run"):
        submission.submit(config, folder, scheduler, command=[], resume=True)
    add_job(folder, "9")  # by a script that queued again, and has ended
    scheduler.known = {"7": Standing("running")}
    with pytest.raises(RunError, match=r"Job 7 is running for .*`scancel 7` first"):
        submission.submit(config, folder, scheduler, command=[], resume=True)
    assert submission.at_work(folder, scheduler.known) == "7"
    folder.jobs.write_text("7\n")
    scheduler.known = {"8": Standing("running")}  # somebody else's
    assert submission.submit(config, folder, scheduler, command=[], resume=True) == "8"
    assert job_ids(folder) == ["7", "8"]


def test_a_script_that_is_refused_leaves_a_failed_run(config: Config, folder: RunFolder) -> None:
    with pytest.raises(RunError, match="sbatch says: no"):
        submission.submit(config, folder, Scheduler(refuses=True), command=[])
    assert folder.read_manifest()["failure"] == {"actor": "launcher", "reason": "sbatch says: no."}
    assert submission.submit(config, folder, Scheduler(), command=[], resume=True) == "7"


def test_whoever_watches_sees_the_queue_then_the_run_and_its_end(config: Config, folder: RunFolder) -> None:
    scheduler = Scheduler()
    submission.submit(config, folder, scheduler, command=[])
    seen: list[Snapshot] = []
    answers = iter(
        [{"7": Standing("queued", "Resources")}, None, {"7": Standing("running")}, {"7": Standing("requeued")}]
    )

    def answer() -> None:
        scheduler.known = next(answers, {})
        if scheduler.known == {"7": Standing("running")}:
            live.write(folder, Snapshot(seconds=5.0, notices=["of the run"]))
        if not scheduler.known and scheduler.known is not None:
            runs.end(folder, "finished")

    scheduler.then = answer
    assert submission.watch(folder, scheduler, seen.append, threading.Event())
    assert seen[0].notices == ["job 7 is queued (Resources)"]
    assert seen[-1].seconds == 5.0
    assert seen[-1].notices == [
        "job 7 is queued (Resources)",
        "job 7 is running",
        "job 7 is requeued",
        "of the run",
    ]


def test_a_job_that_has_gone_is_told_of(config: Config, folder: RunFolder) -> None:
    scheduler = Scheduler()
    submission.submit(config, folder, scheduler, command=[])
    with pytest.raises(RunError, match="ended without a word, perhaps killed"):
        submission.watch(folder, scheduler, lambda snapshot: None, threading.Event())
    runs.end(folder, "failed", {"actor": "master", "reason": "not finite at step 3"})
    with pytest.raises(RunError, match="not finite at step 3"):
        submission.watch(folder, scheduler, lambda snapshot: None, threading.Event())


def test_whoever_watches_may_leave(config: Config, folder: RunFolder) -> None:
    scheduler = Scheduler({"7": Standing("running")})
    submission.submit(config, folder, Scheduler(), command=[])
    stop = threading.Event()
    assert not submission.watch(folder, scheduler, lambda snapshot: stop.set(), stop)


def test_a_scheduler_that_does_not_answer_calls_no_job_gone(config: Config, folder: RunFolder) -> None:
    submission.submit(config, folder, Scheduler(), command=[])
    stop, looks = threading.Event(), list[int]()

    def look(snapshot: Snapshot) -> None:
        looks.append(1)
        if len(looks) > 30:
            stop.set()

    assert not submission.watch(folder, Scheduler(known=None), look, stop)
