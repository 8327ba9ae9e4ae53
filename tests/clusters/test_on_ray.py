"""Workers as Ray actors: by a stand-in for Ray, and, where that is installed, on two nodes of this machine."""

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from issgd_cli.clusters import on_ray
from issgd_cli.clusters.on_ray import Body, RayActors, worker_environment
from issgd_cli.clusters.processes import Processes
from issgd_cli.config.config import Config
from issgd_cli.errors import RunError
from issgd_cli.runs.folder import RunFolder
from tests.clusters.test_on_slurm import processes_of, settings, trace_of
from tests.processes import eventually
from tests.servers import free_port

HOME = Path(__file__).parents[2]
SECONDS = 400.0
BLOCKS = "This command will now block"  # `ray start` says so when its node is up
TOKEN = secrets.token_hex(32)


class Lost(Exception):  # noqa: N818 - stands for one of Ray's
    pass


class Broken(Lost):
    cause = FileNotFoundError(2, "No such file or directory", "/results/worker-0.log")


class StandIn:
    """As much of Ray as we use: an actor's methods are called at once, or not at all where its machine is lost."""

    exceptions = SimpleNamespace(RayError=Lost, RayTaskError=Broken)

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.error: type[Lost] | None = None
        self.killed: list[Any] = []

    def remote(self, kind: type) -> Any:
        def options(**asked: Any) -> Any:
            self.asked = asked
            return SimpleNamespace(remote=lambda: self._actor(kind()))

        return SimpleNamespace(options=options)

    def _actor(self, body: Any) -> Any:
        def later(name: str) -> Any:
            return SimpleNamespace(remote=lambda *given: lambda: getattr(body, name)(*given))

        return SimpleNamespace(live=later("live"))

    def wait(self, refs: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return refs, []

    def get(self, ref: Callable[[], int]) -> int:
        if self.error:
            raise self.error
        return ref()

    def kill(self, actor: Any, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(actor)


@pytest.fixture
def actors(configured: Callable[..., Config], new_folder: Callable[[str], RunFolder]) -> RayActors:
    config = configured("cluster.kind=ray", "cluster.ray.cpus_per_worker=2", "cluster.ray.gpus_per_worker=0.5")
    folder = new_folder("run")
    folder.logs.mkdir(exist_ok=True)
    return RayActors(StandIn(), config, folder, Processes("x/a/seed-000-1", folder, "data"))


def test_a_worker_asks_for_its_share_and_gets_in_by_file(actors: RayActors, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def live(self: Body, *words: object) -> int:
        given.extend(words)
        return 0

    monkeypatch.setattr(Body, "live", live)
    handle = actors.start("worker-1", {"ISSGD_DATABASE": "redis://u:secret@h"})
    assert handle.poll() == 0
    assert actors.ray.asked == {
        "num_cpus": 2.0,
        "num_gpus": 0.5,
        "max_restarts": 5,
        "max_task_retries": 5,
        "scheduling_strategy": "SPREAD",
    }
    words, environment, place, log = given
    assert words[3:5] == ["worker", "--run"]
    assert ["--database-file", str(actors.folder.path / "worker-database")] == words[-4:-2]
    assert "secret" not in str(given)
    assert environment["ISSGD_CORES"] == "2"
    assert (place, log) == (os.getcwd(), str(actors.folder.log_of("worker-1")))


def test_a_workers_status_is_its_processes_and_a_lost_one_was_killed(actors: RayActors, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier life\n")
    body = Body()
    assert body.live([sys.executable, "-c", "print('so'); exit(3)"], dict(os.environ), str(tmp_path), str(log)) == 3
    handle = on_ray.RayActor(actors.ray, None, lambda: 3, log, len("of an earlier life\n"))
    assert handle.poll() == 3
    assert handle.last_words() == "so\n"
    actors.ray.error = Lost
    handle = on_ray.RayActor(actors.ray, None, lambda: 3, log, 0)
    assert handle.poll() == on_ray.KILLED
    handle.kill()
    handle.end()
    assert actors.ray.killed == [None, None]


def test_why_a_worker_cannot_be_started_on_its_node_is_its_last_words(actors: RayActors, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of an earlier life\n")
    handle = on_ray.RayActor(actors.ray, None, lambda: 0, tmp_path / "log", len("of an earlier life\n"))
    actors.ray.error = Broken
    assert [handle.poll(), handle.poll()] == [on_ray.BROKEN] * 2
    assert handle.last_words() == "On its node: [Errno 2] No such file or directory: '/results/worker-0.log'\n"


def test_a_process_is_given_how_python_finds_us_and_no_database() -> None:
    ours = {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/opt/lib",
        "PYTHONPATH": "/x",
        "MALLOC_TOP_PAD_": "1",
        "ISSGD_DATABASE": "redis://u:secret@h",
        "A": "b",
    }
    given = worker_environment(ours)
    del given["OMP_NUM_THREADS"]
    assert given == {"PATH": "/bin", "LD_LIBRARY_PATH": "/opt/lib", "PYTHONPATH": "/x", "MALLOC_TOP_PAD_": "1"}


def test_where_there_is_no_ray_it_is_said(configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"pip install 'issgd\[ray\]'"), on_ray.connected(configured("cluster.kind=ray")):
        pass


@pytest.mark.parametrize(
    ("count", "cpus", "gpus", "wrong"),
    [
        (4, 0.5, 0, ""),
        (2, 1, 0.5, ""),
        (10, 0.2, 0.1, ""),
        (100, 0.0, 0.01, ""),
        (3, 1, 0, "has 2 CPUs for Ray, and 3 workers ask for 3. Lower worker.count or cluster.ray.cpus_per_worker"),
        (2, 1, 1, "has 1 GPUs for Ray, and 2 workers ask for 2. Lower worker.count or cluster.ray.gpus_per_worker"),
    ],
)
def test_more_than_a_new_cluster_has_is_refused(
    configured: Callable[..., Config], count: int, cpus: float, gpus: float, wrong: str
) -> None:
    asked = (f"worker.count={count}", f"cluster.ray.cpus_per_worker={cpus}", f"cluster.ray.gpus_per_worker={gpus}")
    config = configured("cluster.kind=ray", *asked)
    there = {"CPU": 2.0, "GPU": 1.0, "memory": 1e9}
    if not wrong:
        on_ray.refuse_too_much(config, there)
        return
    with pytest.raises(RunError, match=wrong):
        on_ray.refuse_too_much(config, there)


def surroundings() -> dict[str, str]:
    """Of Ray's programs and ours: no proxy between nodes that are all here."""
    ours = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    # At its niceness of 15 Ray would wait for whatever else works here. No other user of this machine has the token.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return {**ours, **token, "PYTHONPATH": str(HOME), "RAY_worker_niceness": "0"}


@pytest.fixture
def ray_nodes(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a cluster of two nodes, 127.0.0.2 and .3, up within the test, and what they were started by."""
    program = shutil.which("ray", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    assert program is not None
    address = f"127.0.0.2:{free_port()}"
    plain = ["--num-cpus=2", "--disable-usage-stats", "--block"]
    head = ["--head", "--node-ip-address=127.0.0.2", f"--port={address[10:]}", "--include-dashboard=false", *plain]
    other = [f"--address={address}", "--node-ip-address=127.0.0.3", *plain]
    nodes: list[subprocess.Popen[bytes]] = []
    with (tmp_path / "ray.log").open("wb") as log:
        try:
            for words in (head, other):
                command = [program, "start", *words]
                nodes.append(subprocess.Popen(command, env=surroundings(), stdout=log, stderr=log))
                eventually(lambda: (tmp_path / "ray.log").read_text().count(BLOCKS) == len(nodes), seconds=SECONDS)
            yield address, nodes
        finally:
            for node in reversed(nodes):
                node.terminate()
                node.wait(60)


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray here; `make test-clusters` installs it")
@pytest.mark.parametrize("killed", ["actors", "a node"])
def test_a_run_on_two_ray_nodes_survives_what_is_killed_and_ends_as_one_on_this_machine(
    tmp_path: Path, ray_nodes: tuple[str, list[subprocess.Popen[bytes]]], killed: str
) -> None:
    address, nodes = ray_nodes
    given = [word for word in settings(tmp_path, 400) if "slurm" not in word]
    command = [sys.executable, "-m", "issgd_cli", "train", *given]
    there = [*command, "--cluster=ray", f"--set=cluster.ray.address={address}"]
    plain: dict[str, Any] = {"cwd": tmp_path, "env": surroundings(), "text": True}
    train = subprocess.Popen(there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **plain)
    eventually(lambda: train.poll() is not None or step_of_trace(tmp_path) > 10, seconds=SECONDS)
    assert train.poll() is None
    actors = bodies()
    assert len(actors) == 2
    other = below(nodes[1].pid)  # the node without the cluster's head
    assert len(set(actors) & other) == 1  # one worker a node
    for pid in actors if killed == "actors" else other:
        with contextlib.suppress(ProcessLookupError):  # it has ended with another
            os.kill(pid, 9)  # workers' processes end with their actors
    said, _ = train.communicate(timeout=SECONDS)
    assert train.returncode == 0, said
    manifest = json.loads(next(tmp_path.glob("results/*/*/*/manifest.json")).read_text())
    assert (manifest["state"], manifest["cluster"]) == ("finished", "ray")
    restarts = manifest.get("restarts") or {}
    assert set(restarts.values()) <= (
        {1} if killed == "a node" else set()
    )  # killed actors Ray itself has started again
    assert len(restarts) <= 1
    eventually(lambda: not processes_of(tmp_path), seconds=60)
    found = trace_of(tmp_path)
    (tmp_path / "results").rename(tmp_path / "results-ray")
    local = subprocess.run([*command, "--cluster=local"], capture_output=True, timeout=SECONDS, check=False, **plain)
    assert local.returncode == 0, local.stdout + local.stderr
    pd.testing.assert_frame_equal(found, trace_of(tmp_path), check_exact=True)


def step_of_trace(place: Path) -> int:
    traces = list(place.glob("results/*/*/*/trace.csv"))
    lines = traces[0].read_text().splitlines()[1:] if traces else []
    return max((int(line.partition(",")[0]) for line in lines), default=0)


def below(pid: int) -> set[int]:
    """A process and all that it, and those, have started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found, new = set[int](), [pid]
    while new:
        found.add(one := new.pop())
        new += children.get(one, [])
    return found


def bodies() -> list[int]:
    """The processes of Ray's that our workers are started by."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::Body"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
