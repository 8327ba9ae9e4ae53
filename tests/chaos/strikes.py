"""How faults are done to a real run: what each waits for, what it does, and what takes its cause away."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import redis

from issgd_cli.database import Chunk, ChunkScores
from issgd_cli.database.contributions import Contribution
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.errors import RecordError
from tests.chaos.run import AWAY, OverError, Run, put_back
from tests.processes import eventually, servers_of

Random = np.random.Generator
STRANGER = 900  # a peer's index, whom the launcher has not started
Mend = Callable[[], object]


def nothing() -> None:
    """What there is to mend after most faults."""


# What is waited for, or done, before a fault strikes.


def anything(run: Run, random: Random) -> None:
    """It can strike at any time."""


def there_is(actor: str) -> Callable[[Run, Random], int]:
    """Waits for one; whichever is there then is struck."""
    return lambda run, random: run.server() if actor == "server" else run.pid(actor)


def begun(run: Run, random: Random) -> None:
    run.awaits(run.has_begun, "the launcher's Python")


def starts_again(run: Run, random: Random) -> None:
    """The launcher is killed and resumed, and meets the fault while it loads, looks at its data or fills its server."""
    run.launcher.kill()
    run.launcher.wait()
    run.start()
    begun(run, random)
    time.sleep(float(random.uniform(0, 3)))


def killed(actor: str) -> Callable[[Run, Random], Mend]:
    def strike(run: Run, random: Random) -> Mend:
        there = run.living(actor)
        run.kill(int(random.choice(there or [run.pid(actor)])))
        run.awaits(lambda: {*run.living(actor)} - {*there}, f"another {actor}")
        return nothing

    return strike


def server_killed(run: Run, random: Random) -> Mend:
    there = run.server()
    run.kill(there)
    run.awaits(lambda: {*servers_of(run.launcher.pid)} - {there}, "another server")
    return nothing


def server_frozen(seconds: float) -> Callable[[Run, Random], Mend]:
    def strike(run: Run, random: Random) -> Mend:
        server = run.server()
        run.kill(server, signal.SIGSTOP)
        time.sleep(seconds)
        run.kill(server, signal.SIGCONT)
        return nothing

    return strike


def socket_refused(run: Run, random: Random) -> Mend:
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


def worker_frozen(run: Run, random: Random) -> Mend:
    pid = run.pid("worker")
    run.kill(pid, signal.SIGSTOP)
    time.sleep(float(random.uniform(2, 5)))
    run.kill(pid, signal.SIGCONT)
    return nothing


def worker_slow(run: Run, random: Random) -> Mend:
    """Ten times slower, for three seconds."""
    pid = run.pid("worker")
    for _ in range(30):
        run.kill(pid, signal.SIGSTOP)
        time.sleep(0.09)
        run.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    return nothing


def worker_leaves(run: Run, random: Random) -> Mend:
    run.kill(run.pid("worker"), signal.SIGTERM)
    return nothing


def worker_short_of_memory(run: Run, random: Random) -> Mend:
    """From now on it gets no more; it may do with what it has for a while, and then is killed for good."""
    pid = run.pid("worker")
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (1, resource.RLIM_INFINITY))
        with contextlib.suppress(AssertionError):
            eventually(lambda: pid not in run.living("worker"), "it dies of it", seconds=3)
        run.kill(pid)
    return nothing


def worker_joins_and_leaves(run: Run, random: Random) -> Mend:
    """From another terminal, in the middle of the run."""
    issgd = (sys.executable, "-m", "issgd_cli")
    command = [*issgd, run.command("worker"), "--run", run.run_name, "--data-dir", str(run.data_dir)]
    environment = {name: value for name, value in os.environ.items() if name != "ISSGD_LAUNCHER"}
    newcomer = subprocess.Popen(
        command,
        env={**environment, "ISSGD_DATABASE": run.url("worker")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        time.sleep(float(random.uniform(3, 6)))
        newcomer.terminate()
        newcomer.wait(run.patience)
    finally:
        newcomer.kill()
        newcomer.wait()
    return nothing


def wrong_scores(run: Run, random: Random) -> Mend:
    """A worker offers norms that are NaN, infinite, negative, too few; and writes nonsense where it can."""
    database = run.database("worker")
    if run.command("worker") == "peer":
        wrong_gradients(run, database)
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


def wrong_gradients(run: Run, database: RedisDatabase) -> None:
    """A peer that is none of the run's hands over what is not finite, of another network, and of a version to come."""
    run.awaits(database.newest, "parameters")
    found = database.parameters()
    if found is None:
        raise OverError("no parameters: the run is over")
    (newest, _), values = found
    for wrong in (np.full(len(values), np.nan, np.float32), np.ones(7, np.float32)):
        number = database.contributed(STRANGER) + 1
        database.contribute(Contribution(STRANGER, number, newest, 0.5, wrong))
        run.awaits(lambda: database.is_taken(STRANGER), "that it is taken")
    try:
        database.contribute(Contribution(STRANGER, number + 1, newest + 10**6, 0.5, values))
    except RecordError:
        return
    raise AssertionError("a gradient of a version that never was is taken")


def clock_set_back(run: Run, random: Random) -> Mend:
    """By an hour. The server's own cannot be changed here: the run's start, which it is counted from, is."""
    database = run.database("master")
    database.advance(-3600)
    database.close()
    return nothing


def checkpoint_damaged(run: Run, random: Random) -> Mend:
    """One byte of it, and the master killed, so that it is read: the one before it must do."""
    path = run.folder / "checkpoint" / "checkpoint.npz"
    run.awaits(lambda: path.with_name("previous.npz").exists(), "a second checkpoint")
    pid = run.pid("master")
    run.kill(pid, signal.SIGSTOP)  # else it writes another meanwhile
    with contextlib.suppress(FileNotFoundError):  # it was just about to put it there: then that is the damage
        content = bytearray(path.read_bytes())
        content[int(random.integers(len(content) // 4, len(content) // 2))] ^= 0xFF
        path.write_bytes(content)
    run.kill(pid)
    run.awaits(lambda: {*run.living("master")} - {pid}, "another master")
    return nothing


def disk_full(actor: str) -> Callable[[Run, Random], Mend]:
    """No file of the actor can grow: what a full disk does, but for the error's number, and without being root."""

    def strike(run: Run, random: Random) -> Mend:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(run.pid(actor), resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return nothing

    return strike


def moved_away(run: Run, path: Path) -> Mend:
    run.awaits(path.exists, f"the {path.name}")
    if not path.exists():
        raise OverError(f"no {path.name}: the run is over")
    away = path.replace(path.with_name(path.name + AWAY))
    return lambda: put_back(away)


def checkpoints_gone(run: Run, random: Random) -> Mend:
    run.awaits((run.folder / "checkpoint" / "checkpoint.npz").exists, "a checkpoint")
    return moved_away(run, run.folder / "checkpoint")


def data_gone(run: Run, random: Random) -> Mend:
    return moved_away(run, run.data_dir / "house-numbers" / "train-images.npy")


def data_changed(run: Run, random: Random) -> Mend:
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


def launcher(number: signal.Signals) -> Callable[[Run, Random], Mend]:
    def strike(run: Run, random: Random) -> Mend:
        run.launcher.send_signal(number)
        return nothing

    return strike
