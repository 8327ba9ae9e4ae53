"""The faults that a run must survive, each of them done to a real one.

A fault that the run cannot survive by itself (no disk, no data, no launcher) must end it with a clear message and
with valid files: once the cause is gone, `--resume` goes on.
"""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import redis

from issgd_cli.database import Chunk, ChunkScores
from issgd_cli.errors import RecordError
from tests.chaos.run import Run
from tests.processes import eventually, servers_of

Random = np.random.Generator
Mend = Callable[[], object]


def nothing() -> None:
    """What there is to mend after most faults."""


@dataclass(frozen=True)
class Fault:
    """One kind.

    Attributes:
        strike: Does it to a run; returns what takes its cause away, to be called once the run has ended of it.
        ends: What the run says as it ends of it, a regular expression; None: it goes on by itself.
    """

    strike: Callable[[Run, Random], Mend]
    ends: str | None = None


def _killed(actor: str) -> Callable[[Run, Random], Mend]:
    def strike(run: Run, random: Random) -> Mend:
        run.pid(actor)
        there = run.pids(actor)
        run.kill(int(random.choice(there or [run.pid(actor)])))
        eventually(lambda: set(run.pids(actor)) - {*there} or run.is_over(), f"another {actor}")
        return nothing

    return strike


def _server_killed(run: Run, random: Random) -> Mend:
    there = run.server()
    run.kill(there)
    eventually(lambda: set(servers_of(run.launcher.pid)) - {there} or run.is_over(), "another server")
    return nothing


def _server_frozen(seconds: float) -> Callable[[Run, Random], Mend]:
    def strike(run: Run, random: Random) -> Mend:
        server = run.server()
        run.kill(server, signal.SIGSTOP)
        time.sleep(seconds)
        run.kill(server, signal.SIGCONT)
        return nothing

    return strike


def _socket_refused(run: Run, random: Random) -> Mend:
    """Nobody can connect for a while, and two who were connected must anew: a worker, and the monitor."""
    socket = run.socket()
    away = socket.with_name("away")
    socket.rename(away)
    try:
        for actor in ("worker", "monitor"):
            run.kill(run.pid(actor))
        time.sleep(4)
    finally:
        with contextlib.suppress(FileNotFoundError):  # the run may be over
            away.rename(socket)
    return nothing


def _worker_frozen(run: Run, random: Random) -> Mend:
    pid = run.pid("worker")
    run.kill(pid, signal.SIGSTOP)
    time.sleep(float(random.uniform(2, 5)))
    run.kill(pid, signal.SIGCONT)
    return nothing


def _worker_slow(run: Run, random: Random) -> Mend:
    """Ten times slower, for three seconds."""
    pid = run.pid("worker")
    for _ in range(30):
        run.kill(pid, signal.SIGSTOP)
        time.sleep(0.09)
        run.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    return nothing


def _worker_leaves(run: Run, random: Random) -> Mend:
    run.kill(run.pid("worker"), signal.SIGTERM)
    return nothing


def _worker_short_of_memory(run: Run, random: Random) -> Mend:
    """From now on it gets no more; it may do with what it has for a while, and then is killed for good."""
    pid = run.pid("worker")
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (1, resource.RLIM_INFINITY))
        with contextlib.suppress(AssertionError):
            eventually(lambda: pid not in run.pids("worker"), "it dies of it", seconds=3)
        os.kill(pid, signal.SIGKILL)
    return nothing


def _worker_joins_and_leaves(run: Run, random: Random) -> Mend:
    """From another terminal, in the middle of the run."""
    command = [sys.executable, "-m", "issgd_cli", "worker", "--run", run.run_name, "--data-dir", str(run.data_dir)]
    environment = {name: value for name, value in os.environ.items() if name != "ISSGD_LAUNCHER"}
    newcomer = subprocess.Popen(
        command,
        env={**environment, "ISSGD_DATABASE": run.url("worker")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(float(random.uniform(3, 6)))
    newcomer.terminate()
    newcomer.wait(60)
    return nothing


def _wrong_scores(run: Run, random: Random) -> Mend:
    """A worker offers norms that are NaN, infinite, negative, too few; and writes nonsense where it can."""
    database = run.database("worker")
    layout = database.layout()
    size = int(layout.sizes("train")[0])
    for value, count in ((np.nan, size), (np.inf, size), (-1.0, size), (1.0, size - 1)):
        wrong = np.full(count, value, np.float32)
        try:
            database.push(Chunk("train", 0), 10**6, ChunkScores(wrong, wrong, np.zeros(count, np.uint8), None))
        except RecordError:
            continue
        raise AssertionError(f"norms of {value}, {count} of {size}, were taken")
    database.close()
    with redis.Redis.from_url(run.url("worker")) as client:
        for key in ("status", "events"):
            client.hset(f"issgd:{run.run_name}:{key}", f"nonsense-{random.integers(1000)}", random.bytes(40))
    return nothing


def _clock_set_back(run: Run, random: Random) -> Mend:
    """By an hour. The server's own cannot be changed here: the run's start, which it is counted from, is."""
    database = run.database("master")
    database.advance(-3600)
    database.close()
    return nothing


def _checkpoint_damaged(run: Run, random: Random) -> Mend:
    """One byte of it, and the master killed, so that it is read: the one before it must do."""
    path = run.folder / "checkpoint" / "checkpoint.npz"
    eventually(lambda: path.with_name("previous.npz").exists() or run.is_over(), "a second checkpoint")
    pid = run.pid("master")
    run.kill(pid, signal.SIGSTOP)  # else it writes another meanwhile
    content = bytearray(path.read_bytes())
    content[int(random.integers(len(content) // 4, len(content) // 2))] ^= 0xFF
    path.write_bytes(content)
    run.kill(pid)
    eventually(lambda: set(run.pids("master")) - {pid} or run.is_over(), "another master")
    return nothing


def _disk_full(actor: str) -> Callable[[Run, Random], Mend]:
    """No file of the actor can grow: what a full disk does, but for the error's number, and without being root."""

    def strike(run: Run, random: Random) -> Mend:
        pid = run.pid(actor)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        return nothing

    return strike


def _moved_away(place: Callable[[Run], Path]) -> Callable[[Run, Random], Mend]:
    def strike(run: Run, random: Random) -> Mend:
        path = place(run)
        eventually(lambda: path.exists() or run.is_over(), f"there is a {path.name}")
        away = path.with_name(path.name + ".away")
        path.rename(away)
        return lambda: away.rename(path)

    return strike


def _data_changed(run: Run, random: Random) -> Mend:
    """A byte of the training images, as somebody might who prepares them anew."""
    path = run.data_dir / "house-numbers" / "train-images.npy"
    place = int(random.integers(2000, path.stat().st_size))

    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 0xFF]))

    flip()
    return flip


def _launcher(number: signal.Signals) -> Callable[[Run, Random], Mend]:
    def strike(run: Run, random: Random) -> Mend:
        run.launcher.send_signal(number)
        return nothing

    return strike


FAULTS: dict[str, Fault] = {
    "worker killed": Fault(_killed("worker")),
    "worker frozen for 2 to 5 s": Fault(_worker_frozen),
    "worker ten times slower for 3 s": Fault(_worker_slow),
    "worker told to leave": Fault(_worker_leaves),
    "worker short of memory": Fault(_worker_short_of_memory),
    "worker joins late and leaves": Fault(_worker_joins_and_leaves),
    "worker writes what cannot be true": Fault(_wrong_scores),
    "master killed": Fault(_killed("master")),
    "monitor killed": Fault(_killed("monitor")),
    "server killed": Fault(_server_killed),
    "server frozen for 3 s": Fault(_server_frozen(3)),
    "server frozen for 30 s": Fault(_server_frozen(30)),
    "server's socket gone for 4 s, worker and monitor killed": Fault(_socket_refused),
    "server's clock set back by an hour": Fault(_clock_set_back),
    "newest checkpoint damaged, master killed": Fault(_checkpoint_damaged),
    "no disk for the trace": Fault(_disk_full("monitor"), r"(trace|events)\.csv cannot be written: File too large"),
    "no disk for checkpoints": Fault(_disk_full("master"), r"\.npz cannot be written: File too large"),
    "folder of checkpoints gone": Fault(
        _moved_away(lambda run: run.folder / "checkpoint"), r"checkpoint\.npz cannot be written: No such file"
    ),
    "training images gone": Fault(
        _moved_away(lambda run: run.data_dir / "house-numbers" / "train-images.npy"), r"train-images\.npy .*--resume"
    ),
    "training images changed": Fault(_data_changed, r"train-images\.npy .*--resume"),
    "launcher killed": Fault(_launcher(signal.SIGKILL), r"^(?!.*issgd: )"),
    "launcher interrupted (Ctrl-C)": Fault(_launcher(signal.SIGINT), r"Interrupted\. Go on with `--resume`"),
}


def is_clear(said: str, expected: str) -> bool:
    """Whether a run that has ended says why, and no traceback."""
    return "Traceback" not in said and re.search(expected, said, re.DOTALL) is not None
