"""How processes end, and how often one that has died is started again."""

import signal
import time
from dataclasses import dataclass, field

LONG_LIFE_SECONDS = 60.0  # who lives for so long may die again as often
BACKOFF_SECONDS = 0.5  # before the first start after a short life, doubled before each further one
LONGEST_BACKOFF_SECONDS = 30.0

HINTS: dict[int, str] = {
    signal.SIGKILL: ", by somebody or by the system for want of memory",
    signal.SIGBUS: ": a data file was cut short while it was in use, or a disk is failing",
}


@dataclass
class Restarts:
    """How often each actor, and the server, was started again, and whether it may be once more.

    Attributes:
        most: How many short lives may follow each other.
        counts: Restarts so far.
    """

    most: int
    counts: dict[str, int] = field(default_factory=dict)
    short_lives: dict[str, int] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)

    def began(self, name: str) -> None:
        """Takes note of a start, the first or another."""
        self.started[name] = time.monotonic()

    def lived_long(self, name: str) -> bool:
        """Whether it has lived long enough to be forgiven its deaths so far."""
        return time.monotonic() - self.started[name] >= LONG_LIFE_SECONDS

    def pause(self, name: str, forgiven: bool) -> float | None:
        """How many seconds to wait before starting it again; None: it has died too often since it was last forgiven."""
        lives = self.short_lives[name] = 1 if forgiven else self.short_lives.get(name, 0) + 1
        if lives > self.most:
            return None
        self.counts[name] = self.counts.get(name, 0) + 1
        return float(min(BACKOFF_SECONDS * 2 ** (lives - 1), LONGEST_BACKOFF_SECONDS))


def end_of(status: int) -> str:
    """How a process ended, for people, by its exit status."""
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def hint(status: int) -> str:
    """What may have been the reason; often nothing."""
    return HINTS.get(-status, "")


def was_killed(status: int) -> bool:
    """Whether a signal ended the process, or asked it to end."""
    return status < 0 or status > 128
