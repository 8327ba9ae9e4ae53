"""`issgd train` end to end: what is left behind, whatever happens meanwhile."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis

from issgd_cli.database.redis import RedisDatabase
from issgd_cli.runs import traces
from tests.end_to_end.conftest import CommandLine, comparable
from tests.processes import PATIENCE, is_alive, servers_of
from tests.servers import administered

Find = Callable[[str], list[int]]
Eventually = Callable[[Callable[[], object]], None]


def manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text()))


def step_of(issgd: CommandLine, name: str) -> int:
    """How far the trace of a run under way has come; -1 before it is there."""
    found = list((issgd.place / "results" / name).glob("*/seed-000/trace.csv"))
    lines = found[0].read_text().splitlines() if found else []
    return int(lines[-1].split(",")[0]) if len(lines) > 1 else -1


def actors_of(issgd: CommandLine, name: str) -> set[str]:
    """Whose events the monitor of a run under way has written so far."""
    found = list((issgd.place / "results" / name).glob("*/seed-000/events.csv"))
    return {line.split(",")[0] for line in found[0].read_text().splitlines()[1:]} if found else set()


@pytest.fixture(scope="module")
def undisturbed(shared: Callable[[str, Callable[[Path], object]], Path], data_dir: Path) -> pd.DataFrame:
    """The smoke run with one worker, and nothing in its way."""

    def run(place: Path) -> None:
        issgd = CommandLine(place, data_dir)
        done = issgd(*issgd.train("one", "--workers", "1"))
        assert done.returncode == 0, done.stderr

    return comparable(CommandLine(shared("undisturbed", run), data_dir).run_of("one"))


@pytest.mark.long
def test_exact_mode_repeats_to_the_bit_with_five_workers(issgd: CommandLine, undisturbed: pd.DataFrame) -> None:
    done = issgd(*issgd.train("five", "--workers", "5"))
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(comparable(issgd.run_of("five")), undisturbed, check_exact=True)


def test_exact_mode_repeats_to_the_bit_with_a_worker_killed(
    issgd: CommandLine, undisturbed: pd.DataFrame, find: Find, eventually: Eventually
) -> None:
    process = issgd.start(*issgd.train("killed"))
    eventually(lambda: step_of(issgd, "killed") >= 0)
    for pid in find("worker --run killed"):
        os.kill(pid, signal.SIGKILL)
        break
    else:
        pytest.fail("there was no worker to kill")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "was killed by signal 9; starting it again" in out
    pd.testing.assert_frame_equal(comparable(issgd.run_of("killed")), undisturbed, check_exact=True)


def test_a_finished_run_leaves_all_its_files(issgd: CommandLine, find: Find, eventually: Eventually) -> None:
    process = issgd.start(*issgd.train("files", "--mode", "relaxed", "--set", "monitor.every_seconds=0.2"))
    # In relaxed mode the master waits for nobody: the other actors might come when all is over.
    eventually(lambda: find("master --run files"))
    (master,) = find("master --run files")
    os.kill(master, signal.SIGSTOP)
    eventually(lambda: actors_of(issgd, "files") == {"monitor", "worker-0", "worker-1"})
    os.kill(master, signal.SIGCONT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    folder = issgd.run_of("files")
    assert manifest(folder)["state"] == "finished"
    assert manifest(folder)["dataset"]["train"] == 2000
    for name in ("config.toml", "trace.csv", "events.csv", "parameters.npz", "logs/master.log", "logs/worker-1.log"):
        assert (folder / name).exists(), name
    assert list((folder / "audits").iterdir()) == []  # all audited
    trace = traces.read(folder / "trace.csv")
    audited = trace[trace.quantity == "audit/trace/in_use"]
    assert audited.step.tolist() == [0, 25, 50, 75, 96]
    assert {"loss/train", "trace/uniform", "proposal/entropy", "work/examples_scored"} <= set(trace.quantity)
    events = traces.read_events(folder / "events.csv")
    assert set(events.actor) == {"master", "monitor", "worker-0", "worker-1"}
    assert (events.end >= events.start).all()
    with np.load(folder / "parameters.npz", allow_pickle=False) as parameters:
        assert parameters["0.weight"].shape == (32, 3072)
    assert "Next: issgd plot" in out
    again = issgd.here(*issgd.train("files", "--mode", "relaxed", "--set", "monitor.every_seconds=0.2"))
    assert again.returncode == 1
    assert "finished run" in again.stderr
    plotted = issgd.here("plot", folder)
    assert plotted.returncode == 0, plotted.stderr
    assert (folder / "run.png").stat().st_size > 10_000
    listed = issgd.here("status")
    assert "finished" in listed.stdout


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
def test_a_signal_ends_every_process_and_resume_finishes_the_same(
    issgd: CommandLine,
    undisturbed: pd.DataFrame,
    find: Find,
    eventually: Eventually,
    number: signal.Signals,
    status: int,
) -> None:
    name = f"stopped-{status}"
    slow = issgd.train(name, "--set", "master.checkpoint_every_seconds=0.1")
    process = issgd.start(*slow)
    eventually(lambda: step_of(issgd, name) >= 32)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    assert "--resume" in err
    assert find(f"--run {name}/") == []
    folder = issgd.run_of(name)
    assert manifest(folder)["state"] == "interrupted"
    assert len(traces.read(folder / "trace.csv")) > 0
    refused = issgd.here(*slow)
    assert refused.returncode == 1
    assert "--resume" in refused.stderr
    resumed = issgd(*slow, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    pd.testing.assert_frame_equal(comparable(folder), undisturbed, check_exact=True)


@pytest.mark.long
def test_no_process_outlives_a_killed_launcher(issgd: CommandLine, find: Find, eventually: Eventually) -> None:
    process = issgd.start(*issgd.train("orphans", "--steps", "100000"))
    eventually(lambda: step_of(issgd, "orphans") >= 0)
    servers = servers_of(process.pid)
    assert len(servers) == 1
    process.kill()
    process.communicate()
    eventually(lambda: not find("--run orphans/"))
    eventually(lambda: not any(is_alive(pid) for pid in servers))
    assert "interrupted" in issgd.here("status").stdout


def test_a_worker_joins_a_run_through_a_shared_server_and_leaves_with_it(
    issgd: CommandLine, undisturbed: pd.DataFrame, eventually: Eventually, tmp_path: Path
) -> None:
    with administered(tmp_path / "server.log") as (server, administrator):
        owner, invitation = tmp_path / "owner", tmp_path / "worker"
        for path, url in ((owner, server.url), (invitation, server.worker_url)):
            path.touch(0o600)
            path.write_text(url)
        alone = issgd.start(*issgd.train("shared", "--database-file", owner, "--workers", "0"))
        eventually(lambda: list((issgd.place / "results/shared").glob("*/seed-000/manifest.json")))
        eventually(lambda: "run_name" in manifest(issgd.run_of("shared")))
        run_name = manifest(issgd.run_of("shared"))["run_name"]
        eventually(lambda: RedisDatabase(server.url, run_name).get("description") is not None)
        worker = issgd.start("worker", "--database-file", invitation, "--run", run_name, "--data-dir", issgd.data_dir)
        _, err = alone.communicate(timeout=PATIENCE)
        assert alone.returncode == 0, err
        _, err = worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0, err
        pd.testing.assert_frame_equal(comparable(issgd.run_of("shared")), undisturbed, check_exact=True)
        # The server outlives the run, and keeps nothing of it but the word to leave.
        with redis.Redis.from_url(administrator) as client:
            assert client.keys() == [f"issgd:{run_name}:stop".encode()]
