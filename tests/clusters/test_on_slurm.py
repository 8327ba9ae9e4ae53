"""Runs on a real Slurm with two nodes, both on this machine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from issgd_cli.clusters.slurm import standings
from tests.clusters.slurms import NODE_SECONDS, end_node, killed, missing, slurm
from tests.processes import eventually

pytestmark = [pytest.mark.long, pytest.mark.cluster, pytest.mark.skipif(bool(missing()), reason=missing())]

HOME = Path(__file__).parents[2]
SECONDS = 240.0

Issgd = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def configuration() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="issgd-slurm-", dir="/tmp") as place, slurm(Path(place)) as path:
        yield path


@pytest.fixture
def environment(configuration: Path) -> dict[str, str]:
    return {**os.environ, "SLURM_CONF": str(configuration), "PYTHONPATH": str(HOME)}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose name Slurm and the shell must be kept from reading anything into."""
    there = tmp_path / "a b'c$HOME#%j"
    there.mkdir()
    return there


def settings(place: Path, steps: int) -> list[str]:
    random = np.random.default_rng(5)
    labels = random.integers(0, 3, 120)
    points = random.normal(0, 1, (120, 16)).astype(np.float32) + labels[:, None]
    np.savez(place / "mine.npz", inputs=points, labels=labels)
    values = {
        "model.hidden": "[7,6]",
        "model.initial_weight_std": 0.5,
        "optimizer.learning_rate": 0.05,
        "master.steps": steps,
        "master.minibatch_size": 8,
        "master.publish_every_steps": 3,
        "master.mode": "exact",
        "master.checkpoint_every_seconds": 0.5,
        "worker.chunk_size": 10,
        "cluster.slurm.nodes": 2,
    }
    return ["--data=mine.npz", "--workers=2", *(f"--set={key}={value}" for key, value in values.items())]


def train(place: Path, environment: dict[str, str], *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "issgd_cli", "train", *words]
    return subprocess.Popen(
        command, cwd=place, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run_of(place: Path) -> Path:
    return next((place / "results").glob("*/*/seed-*"))


def queue(environment: dict[str, str]) -> dict[str, str]:
    columns = "--Format=JobID:24,State:24,RestartCnt:12,Reason:64"
    done = subprocess.run(["squeue", "--noheader", columns], env=environment, capture_output=True, text=True)
    return {job: standing.state for job, standing in standings(done.stdout)}


def step_of(place: Path) -> int:
    try:
        return int(json.loads((run_of(place) / "live.json").read_text())["statuses"]["master"]["step"])
    except (OSError, StopIteration, KeyError):
        return 0


def processes_of(place: Path) -> list[str]:
    """Command lines of whatever of ours works in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            here = os.readlink(path.parent / "cwd")
        except OSError:
            continue
        if b"issgd_cli" in words and here == str(place):
            found.append(b" ".join(words).decode())
    return found


def is_answered(address: str) -> bool:
    """Whether anybody listens at this HOST:PORT, the database server of a job."""
    host, _, port = address.strip().rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), 5):
        return True
    return False


def trace_of(place: Path) -> pd.DataFrame:
    trace = pd.read_csv(run_of(place) / "trace.csv")
    clocked = trace.quantity.str.contains("seconds") | trace.quantity.str.startswith("work/")
    return trace[~clocked].drop(columns="seconds").reset_index(drop=True)


def test_a_run_on_two_nodes_ends_as_one_on_this_machine_and_leaves_nothing(
    place: Path, environment: dict[str, str]
) -> None:
    watcher = train(place, environment, *settings(place, 60), "--cluster=slurm")
    said, _ = watcher.communicate(timeout=SECONDS)
    assert watcher.returncode == 0, said
    assert "Submitted job" in said
    assert "Finished: 60 steps" in said
    run = run_of(place)
    manifest = json.loads((run / "manifest.json").read_text())
    assert (manifest["state"], manifest["cluster"]) == ("finished", "slurm")
    assert manifest["jobs"] == (run / "jobs").read_text().split()
    assert not (run / "worker-database").exists()
    eventually(lambda: not processes_of(place), seconds=30)
    there = trace_of(place)
    (place / "results").rename(place / "results-slurm")
    local = train(place, environment, *settings(place, 60), "--cluster=local")
    said, _ = local.communicate(timeout=SECONDS)
    assert local.returncode == 0, said
    pd.testing.assert_frame_equal(there, trace_of(place), check_exact=True)


def test_a_warned_job_queues_again_goes_on_and_is_cancelled_whole(place: Path, environment: dict[str, str]) -> None:
    watcher = train(place, environment, *settings(place, 1_000_000), "--cluster=slurm")
    eventually(lambda: step_of(place) > 10, seconds=SECONDS)
    run = run_of(place)
    (job,) = (run / "jobs").read_text().split()
    invitation = run / "worker-database"
    assert invitation.stat().st_mode & 0o777 == 0o600
    secret, _, address = invitation.read_text().partition("worker:")[2].partition("@")
    assert len(secret) == 64
    assert is_answered(address)
    shown = [["scontrol", "show", "job", "--details", job], ["scontrol", "write", "batch_script", job, "-"]]
    told = "".join(subprocess.run(words, env=environment, capture_output=True, text=True).stdout for words in shown)
    assert job in told
    assert all(secret not in text for text in (told, *processes_of(place), (run / "job.sh").read_text()))

    watcher.send_signal(signal.SIGINT)
    said, _ = watcher.communicate(timeout=SECONDS)
    assert f"`scancel {job}` ends it" in said
    again = train(place, environment, *settings(place, 1_000_000), "--cluster=slurm", "--resume")
    said, _ = again.communicate(timeout=SECONDS)
    assert again.returncode == 1
    assert f"Job {job} is running" in said

    before = step_of(place)
    subprocess.run(["scancel", "--batch", "--signal=USR2", job], env=environment, check=True)
    eventually(lambda: queue(environment).get(job) == "requeued", seconds=SECONDS)
    assert not invitation.exists()
    words = [sys.executable, "-m", "issgd_cli", "status"]
    listed = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True).stdout
    assert "requeued" in listed
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=environment, check=True)
    eventually(lambda: queue(environment).get(job) == "running", seconds=SECONDS)
    eventually(lambda: invitation.exists() and step_of(place) > before, seconds=SECONDS)
    second = invitation.read_text().partition("@")[2]
    assert is_answered(second)

    subprocess.run(["scancel", job], env=environment, check=True)
    eventually(lambda: not queue(environment) and not processes_of(place), seconds=SECONDS)
    assert json.loads((run / "manifest.json").read_text())["state"] == "interrupted"
    assert not invitation.exists()
    assert not is_answered(address)
    assert not is_answered(second)


def test_seeds_are_an_array_of_jobs(place: Path, environment: dict[str, str]) -> None:
    (place / "x.toml").write_text('[[methods]]\nname = "issgd"\n')
    given = [word for word in settings(place, 40) if word.startswith("--set")]
    words = ["reproduce", "x.toml", "--cluster=slurm", "--seeds=0-2", "--jobs=2", "--set=data.name=mine.npz"]
    command = [sys.executable, "-m", "issgd_cli", *words, "--set=worker.count=2", *given]
    done = subprocess.run(
        command, cwd=place, env=environment, text=True, capture_output=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 runs done, 0 were finished before, 0 failed." in done.stdout
    runs = sorted((place / "results/x").glob("*/seed-*"))
    (array,) = {json.loads((run / "manifest.json").read_text())["jobs"][0].partition("_")[0] for run in runs}
    assert [(run / "jobs").read_text() for run in runs] == [f"{array}_{index}\n" for index in range(3)]
    assert (place / "results/x/report.md").exists()
    eventually(lambda: not processes_of(place), seconds=30)


def test_a_node_that_is_killed_costs_an_exact_run_nothing(
    place: Path, environment: dict[str, str], configuration: Path
) -> None:
    steps = 5_000  # more than it takes within NODE_SECONDS, at 75 a second: else it ends before its node is given up
    watcher = train(place, environment, *settings(place, steps), "--cluster=slurm")
    try:
        eventually(lambda: step_of(place) > 10, seconds=SECONDS)
        (job,) = (run_of(place) / "jobs").read_text().split()
        with killed(place, "n2", configuration):
            eventually(lambda: queue(environment).get(job) == "requeued", seconds=10 * NODE_SECONDS)
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=environment, check=False)
        said, _ = watcher.communicate(timeout=SECONDS)
        assert watcher.returncode == 0, said
    finally:
        watcher.kill()
        end_node("n2", configuration)
    assert f"Finished: {steps:,} steps" in said
    there = trace_of(place)
    (place / "results").rename(place / "results-slurm")
    local = train(place, environment, *settings(place, steps), "--cluster=local")
    said, _ = local.communicate(timeout=SECONDS)
    assert local.returncode == 0, said
    pd.testing.assert_frame_equal(there, trace_of(place), check_exact=True)
