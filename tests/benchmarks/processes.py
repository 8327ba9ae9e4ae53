"""Processes and their memory, as Linux tells it."""

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

POLL_SECONDS = 0.01


class Done(NamedTuple):
    """What a command took."""

    seconds: float
    peak_bytes: int  # resident, mapped libraries included, the cache of files that it reads and writes left out


def command(arguments: Sequence[str | Path]) -> Done:
    """Runs a command.

    The peak is the kernel's own high-water mark, looked at until the end. (The one of `getrusage` would not do: it
    starts from the size of the process that started the command.)

    Raises:
        CalledProcessError: It fails.
    """
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, _status(process.pid, "VmHWM"))
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(map(str, arguments)))
    return Done(time.perf_counter() - start, peak)


def in_another(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A function's result, computed in a fresh process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def at_once(function: Callable[Concatenate[Barrier, P], T], count: int, *args: P.args, **kwargs: P.kwargs) -> list[T]:
    """A function's results in so many fresh processes; they are handed a barrier to begin and end together."""
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(count, context) as pool:
        barrier = manager.Barrier(count)
        running = [pool.submit(function, barrier, *args, **kwargs) for _ in range(count)]
        return [one.result() for one in running]


def private_bytes(process: int | str = "self") -> int:
    """Memory that is this process's alone: no code, no mapped files."""
    return _kilobytes(Path(f"/proc/{process}/smaps_rollup"), "Anonymous")


class PeakWatch:
    """Within, watches this process's private memory for its peak."""

    def __enter__(self) -> "PeakWatch":
        self.peak_bytes, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            self.peak_bytes = max(self.peak_bytes, _status("self", "RssAnon"))


def _status(process: int | str, field: str) -> int:
    return _kilobytes(Path(f"/proc/{process}/status"), field)


def _kilobytes(path: Path, field: str) -> int:
    """A field of such a file in bytes; 0 where there is none, since the process is just ending."""
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
