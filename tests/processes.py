"""The processes of a run, as the system shows them, and the patience to wait for what they do."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

PATIENCE = 240.0  # seconds that a test waits for what takes a few, on a machine that may be slow and busy
PROC = Path("/proc")


def eventually(holds: Callable[[], object], what: str = "what was waited for", seconds: float = PATIENCE) -> None:
    """Waits until something holds.

    Raises:
        AssertionError: It does not in time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.02)


class Process(NamedTuple):
    """A row of the system's table."""

    pid: int
    parent: int
    state: str  # Z: a zombie
    command: str  # the whole command line; a zombie has none


def table() -> Iterator[Process]:
    """All processes. Where there is /proc it is read: tests ask often, and each `ps` would be a process more."""
    if (PROC / "self" / "stat").exists():
        for place in PROC.iterdir():
            if place.name.isdecimal():
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
                    command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    yield Process(int(place.name), int(parent), state, command)
        return
    ps = ["ps", "-axww", "-o", "pid=,ppid=,stat=,command="]
    for line in subprocess.run(ps, capture_output=True, text=True, check=True).stdout.splitlines():
        pid, parent, state, *rest = line.split(None, 3)
        yield Process(int(pid), int(parent), state[:1], "".join(rest))


def processes(*words: str, parent: int | None = None) -> list[int]:
    """The processes whose command line holds all of some words; those that one process has started, if it is named."""
    return [
        process.pid
        for process in table()
        if parent in (None, process.parent) and all(word in process.command for word in words)
    ]


def servers_of(launcher: int) -> list[int]:
    """The database servers that a launcher has started."""
    children = [process for process in table() if process.parent == launcher]
    return [process.pid for process in children if "server" in process.command.partition(" ")[0].rpartition("/")[2]]


def is_alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    return any(process.pid == pid and process.state != "Z" for process in table())
