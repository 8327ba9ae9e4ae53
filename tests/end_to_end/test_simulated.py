"""`--cluster simulated` on the command line: beside the local cluster, interrupted, and several runs at a time."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issgd_cli.runs import traces
from tests.end_to_end.conftest import EXPERIMENTS, CommandLine
from tests.processes import PATIENCE, is_alive, processes

Eventually = Callable[[Callable[[], object]], None]

FAST = ("--set", "cluster.clock.examples_per_second=2000", "--set", "master.checkpoint_every_seconds=0.5")
RELAXED = (
    "--cluster",
    "simulated",
    "--mode",
    "relaxed",
    "--steps",
    "600",
    *FAST,
    "--set",
    "monitor.audit_every_steps=200",
)

TINY = f"""
extends = "{EXPERIMENTS / "smoke.toml"}"
seeds = "0-1"
[cluster]
kind = "simulated"
clock.examples_per_second = 2000
[master]
mode = "relaxed"
steps = 800
checkpoint_every_seconds = 1.0
[monitor]
audit_every_steps = 400
"""


def lasting(folder: Path) -> list[tuple[Any, ...]]:
    """The rows that exact mode repeats to the bit; audits, which the local cluster leaves to the end, after samples."""
    table = traces.read(folder / "trace.csv")
    kept = table[~table.quantity.str.contains("seconds|work/")][["step", "quantity", "value"]]
    rows = [tuple(row) for row in kept.itertuples(index=False)]
    return sorted(rows, key=lambda row: str(row[1]).startswith("audit/"))


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("trace.csv", "events.csv", "parameters.npz")}


def manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text()))


@pytest.mark.long
def test_exact_mode_gives_the_same_bits_on_real_processes_and_on_a_virtual_clock(issgd: CommandLine) -> None:
    local = issgd(*issgd.train("real", "--cluster", "local"))
    assert local.returncode == 0, local.stderr
    done = issgd.here(*issgd.train("virtual", "--cluster", "simulated"))
    assert done.returncode == 0, done.stderr
    real, virtual = issgd.run_of("real"), issgd.run_of("virtual")
    assert len(lasting(real)) > 50
    assert lasting(virtual) == lasting(real)
    assert (manifest(real)["cluster"], manifest(virtual)["cluster"]) == ("local", "simulated")
    assert manifest(virtual)["clock"]["preset"] == "k20"
    assert "on the virtual clock" in done.stdout
    plotted = issgd.here("plot", virtual)
    assert plotted.returncode == 0, plotted.stderr
    assert "finished" in issgd.here("status").stdout


def interrupted(issgd: CommandLine, eventually: Eventually, name: str, *arguments: str) -> str:
    """Begins a run and interrupts it after its first checkpoint; what it says then."""
    process = issgd.start(*issgd.train(name, *arguments))
    eventually(lambda: list((issgd.place / f"results/{name}").glob("*/seed-000/checkpoint/checkpoint.npz")))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    return err


@pytest.mark.long
def test_an_interrupted_run_goes_on_to_the_same_bytes(issgd: CommandLine, eventually: Eventually) -> None:
    whole = issgd.here(*issgd.train("whole", *RELAXED))
    assert whole.returncode == 0, whole.stderr
    assert "--resume" in interrupted(issgd, eventually, "broken", *RELAXED)
    assert manifest(issgd.run_of("broken"))["state"] == "interrupted"
    resumed = issgd.here(*issgd.train("broken", *RELAXED), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert content(issgd.run_of("broken")) == content(issgd.run_of("whole"))


def test_a_database_elsewhere_is_refused(issgd: CommandLine) -> None:
    refused = issgd.here(*issgd.train("refused", "--cluster", "simulated", "--database", "redis://localhost"))
    assert refused.returncode == 1
    assert "has its own database" in refused.stderr


@pytest.mark.long
def test_several_runs_at_a_time_are_processes_that_end_and_go_on_together(
    issgd: CommandLine, eventually: Eventually
) -> None:
    (issgd.place / "tiny.toml").write_text(TINY)
    command = ("reproduce", "tiny.toml", "--data-dir", issgd.data_dir, "--seeds", "0", "--jobs", "2")
    process = issgd.start(*command)
    eventually(lambda: len(list((issgd.place / "results/tiny").glob("*/*/checkpoint/checkpoint.npz"))) >= 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "goes on from here" in err
    states = [manifest(path.parent)["state"] for path in (issgd.place / "results/tiny").glob("*/*/manifest.json")]
    assert set(states) <= {"interrupted", "finished"}
    assert "interrupted" in states
    done = issgd(*command)
    assert done.returncode == 0, done.stderr
    assert "0 failed" in done.stdout
    assert (issgd.place / "results/tiny/report.md").exists()
    # One of the runs by itself, in the same process as the command line, gives the same bytes.
    alone = issgd.here(
        "train", "tiny.toml", "--method", "issgd", "--data-dir", issgd.data_dir, "--results-dir", "alone"
    )
    assert alone.returncode == 0, alone.stderr
    (one,) = (issgd.place / "results/tiny").glob("issgd-*/seed-000")
    (other,) = (issgd.place / "alone/tiny").glob("issgd-*/seed-000")
    assert content(one) == content(other)


@pytest.mark.long
def test_a_failed_run_in_a_process_of_its_own_is_told_and_tried_again(issgd: CommandLine) -> None:
    (issgd.place / "tiny.toml").write_text(TINY)
    command = ("reproduce", "tiny.toml", "--data-dir", issgd.data_dir, "--seeds", "0", "--only", "method=sgd")
    for _ in range(2):  # the second time it is not taken for done
        failed = issgd(*command, "--set", "optimizer.learning_rate=1e30")
        assert failed.returncode == 1
        assert "not finite" in failed.stdout
    (folder,) = (issgd.place / "results/tiny").glob("*/seed-000")
    assert manifest(folder)["failure"]["actor"] == "master"


def runs_of(parent: int) -> list[int]:
    """The processes of its runs: forks of one that it has started for that."""
    return [run for start in processes("forkserver", parent=parent) for run in processes(parent=start)]


@pytest.mark.parametrize("victim", ["parent", "child"])
@pytest.mark.soak
def test_neither_process_outlives_the_other_for_long(issgd: CommandLine, eventually: Eventually, victim: str) -> None:
    (issgd.place / "tiny.toml").write_text(TINY.replace("steps = 800", "steps = 100_000"))
    command = ("reproduce", "tiny.toml", "--data-dir", issgd.data_dir, "--seeds", "0", "--only", "method=sgd")
    process = issgd.start(*command)
    eventually(lambda: list((issgd.place / "results/tiny").glob("*/*/checkpoint/checkpoint.npz")))
    (child,) = runs_of(process.pid)
    if victim == "parent":
        process.kill()
        process.communicate()
        eventually(lambda: not is_alive(child))
    else:
        os.kill(child, signal.SIGKILL)
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        assert "process ended with status -9" in out
    assert "interrupted" in issgd.here("status").stdout
