"""Actors as processes of this machine: how one is started, polled and ended, and what it said last."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from issgd_cli.clusters.cluster import arguments
from issgd_cli.runs.folder import RunFolder

# For the environment of processes that compute: keeps glibc from handing back and faulting in again the same megabytes
# at every step, 14% of a CPU step.
ALLOCATION = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}


def process_environment() -> dict[str, str]:
    """Of a process of ours: it imports what we do, from where we do, and nothing that lies in the current folder."""
    ours = [path for path in sys.path if os.path.isabs(path) and os.path.exists(path) and os.pathsep not in path]
    home = str(Path(__file__).parents[2])  # for a checkout that was never installed
    paths = ours if home in ours else [*ours, home]
    return {**os.environ, **ALLOCATION, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}


def text_of(log: Path, start: int = 0) -> str:
    """What a log holds from its byte `start` on; empty where it cannot be read."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")
    return ""


@dataclass(frozen=True)
class Process:
    """See Handle.

    Attributes:
        popen: The process.
        log: The actor's.
        log_from: Where this life's part of it begins, bytes.
    """

    popen: subprocess.Popen[bytes]
    log: Path
    log_from: int

    def poll(self) -> int | None:
        return self.popen.poll()

    def end(self) -> None:
        self.popen.terminate()

    def kill(self) -> None:
        self.popen.kill()

    def last_words(self) -> str:
        return text_of(self.log, self.log_from)


@dataclass(frozen=True)
class Processes:
    """Starts a run's actors here; see Launcher.

    Attributes:
        run_name: In the database.
        folder: The run's.
        data_dir: Where the prepared datasets are.
        jobs: How many runs share this machine, and so its cores.
        model: See `arguments`.
    """

    run_name: str
    folder: RunFolder
    data_dir: str
    jobs: int = 1
    model: str | None = None

    def start(self, actor: str, environment: Mapping[str, str]) -> Process:
        words = arguments(actor, self.run_name, self.data_dir, self.folder.path, self.model)
        log = self.folder.log_of(actor)
        with log.open("ab") as output:
            start = output.tell()  # now: the process moves it on
            popen = subprocess.Popen(
                [sys.executable, "-m", "issgd_cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={
                    **process_environment(),
                    "ISSGD_LAUNCHER": str(os.getpid()),  # with which it ends
                    "ISSGD_JOBS": str(self.jobs),
                    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
                    **environment,
                },
                start_new_session=True,  # Ctrl-C at the terminal is for the launcher alone
            )
            return Process(popen, log, start)
