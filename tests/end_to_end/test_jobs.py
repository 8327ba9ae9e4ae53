"""Runs as Slurm's jobs, by stand-ins for Slurm's commands: all that happens but what a scheduler decides."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.clusters.stand_ins import stand_ins
from tests.end_to_end.conftest import EXPERIMENTS, CommandLine, comparable, undisturbed
from tests.processes import eventually, processes


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-ins, which come first on PATH."""
    place = stand_ins(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return place


def manifest_of(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "manifest.json").read_text()))


def step_of(run: Path) -> int:
    with contextlib.suppress(OSError, KeyError):
        return int(json.loads((run / "live.json").read_text())["statuses"]["master"]["step"])
    return 0


def runs_of(issgd: CommandLine, name: str) -> list[Path]:
    return sorted(issgd.place.glob(f"results/{name}/*/seed-*"))


def reproduce(issgd: CommandLine, *words: object) -> tuple[object, ...]:
    given = ("--only", "method=issgd", "--seeds", "0-1", "--data-dir", issgd.data_dir, "--cluster", "slurm", *words)
    return ("reproduce", EXPERIMENTS / "smoke.toml", *given)


@pytest.mark.long
def test_a_job_that_is_warned_queues_again_and_ends_as_the_undisturbed_run(issgd: CommandLine, slurm: Path) -> None:
    calm = undisturbed(issgd, "jobs")
    watcher = issgd.start(*issgd.train("jobs", "--cluster", "slurm"))
    eventually(lambda: watcher.poll() is not None or any(step_of(run) > 0 for run in runs_of(issgd, "jobs")))
    run = issgd.run_of("jobs")
    subprocess.run([slurm / "scancel", "--batch", "--signal=USR2", "1"], check=True)
    out, err = watcher.communicate(timeout=240)
    assert watcher.returncode == 0, out + err
    assert "Submitted job 1" in out
    assert "Finished: 96 steps" in out
    assert manifest_of(run)["jobs"] == ["1"]
    assert "resumed" in manifest_of(run)
    assert (slurm / "1.job").read_text().split("\n")[-1] == "1"  # it has queued again once
    pd.testing.assert_frame_equal(comparable(run), calm, check_exact=True)


@pytest.mark.long
def test_seeds_are_a_job_array_that_is_watched_again_and_reported_on(issgd: CommandLine, slurm: Path) -> None:
    watcher = issgd.start(*reproduce(issgd))
    eventually(lambda: watcher.poll() is not None or len(list(issgd.place.glob("results/*/*/*/live.json"))) == 2)
    watcher.send_signal(signal.SIGINT)
    out, err = watcher.communicate(timeout=60)
    assert watcher.returncode == 130, out + err
    assert "2 jobs left to themselves" in out
    again = issgd(*reproduce(issgd))
    assert again.returncode == 0, again.stdout + again.stderr
    assert len((slurm / "calls").read_text().splitlines()) == 1
    runs = runs_of(issgd, "smoke")
    assert [manifest_of(run)["jobs"] for run in runs] == [["1_0"], ["1_1"]]
    assert [manifest_of(run)["state"] for run in runs] == ["finished", "finished"]
    assert [manifest_of(run)["method"] for run in runs] == ["issgd", "issgd"]
    assert all(list((run / "logs").glob("job-*.log")) for run in runs)
    assert (issgd.place / "results/smoke/report.md").exists()
    third = issgd(*reproduce(issgd))
    assert "0 runs done, 2 were finished before, 0 failed." in third.stdout


@contextlib.contextmanager
def at_a_terminal(issgd: CommandLine, *words: object) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """A command that talks to somebody: the terminal's other end, and the process."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "issgd_cli", *map(str, words)],
        cwd=issgd.place,
        env={**os.environ, "ISSGD_DATABASE": ""},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def text_until(terminal: int, word: str) -> str:
    """What the terminal shows up to a word; all where that does not come."""
    text = ""
    with contextlib.suppress(OSError):  # whoever wrote has ended
        while word not in text:
            text += os.read(terminal, 4096).decode(errors="replace")
    return text


@pytest.mark.parametrize(("answer", "leaves"), [("\n", True), ("n\n", False)])
@pytest.mark.soak
def test_ctrl_c_asks_whether_the_job_is_left_to_itself(
    issgd: CommandLine, slurm: Path, answer: str, leaves: bool
) -> None:
    words = issgd.train("asked", "--cluster", "slurm", "--steps", 1_000_000)
    with at_a_terminal(issgd, *words) as (terminal, process):
        text_until(terminal, "Submitted job 1")
        run = issgd.run_of("asked")
        eventually(lambda: os.read(terminal, 65536) and step_of(run) > 0)
        process.send_signal(signal.SIGINT)
        assert "Leave job 1 to itself? [Y/n]" in text_until(terminal, "[Y/n]")
        os.write(terminal, answer.encode())
        said = text_until(terminal, "ends it." if leaves else "--resume`.")
        assert process.wait(60) == (0 if leaves else 130)
    if leaves:
        assert "Job 1 goes on" in said
        assert manifest_of(run)["state"] == "running"
        subprocess.run([slurm / "scancel", "1"], check=True)
    else:
        assert "Cancelled job 1" in said
    eventually(lambda: manifest_of(run)["state"] == "interrupted")
    eventually(lambda: not processes(str(run.relative_to(issgd.place)), "issgd_cli"))
    assert not (run / "worker-database").exists()
