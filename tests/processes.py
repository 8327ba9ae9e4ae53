"""The processes of a run, as `ps` shows them, and the patience to wait for what they do."""

import subprocess
import time
from collections.abc import Callable

PATIENCE = 240.0  # seconds that a test waits for what takes a few, on a machine that may be slow and busy


def eventually(holds: Callable[[], object], what: str = "what was waited for", seconds: float = PATIENCE) -> None:
    """Waits until something holds.

    Raises:
        AssertionError: It does not in time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.02)


def processes(*words: str) -> list[int]:
    """The processes whose command line holds all of some words."""
    table = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in table.splitlines() if all(word in line for word in words)]


def servers_of(launcher: int) -> list[int]:
    """The database servers that a launcher has started."""
    command = ["ps", "-ax", "-o", "pid=,ppid=,comm="]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in table.splitlines()]
    return [int(pid) for pid, parent, name in rows if int(parent) == launcher and "server" in name]


def is_alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip() != "" and not state.strip().startswith("Z")
