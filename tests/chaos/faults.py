"""The faults that a run must survive, and what it may say as it ends of one.

A fault that the run cannot survive by itself (no disk, no data, no launcher) must end it with a clear message and
with valid files: once the cause is gone, `--resume` goes on.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos import strikes
from tests.chaos.run import Run
from tests.chaos.strikes import Mend, Random, begun, starts_again, there_is


@dataclass(frozen=True)
class Fault:
    """One kind.

    Attributes:
        strike: Does it to a run; returns what takes its cause away, to be called once the run has ended of it.
        before: What must be there, or happen, for it to strike.
        ends: What the run may say as it ends of it, at whatever moment it strikes: words of the product's messages.
            None: it goes on by itself. Empty: it can say nothing.
        names: What the message must name before those words.
        statuses: With which the launcher may end. Where a signal has ended it at once (below 0), it says nothing.
        every: It is planned in one of so many rounds.
    """

    strike: Callable[[Run, Random], Mend]
    before: Callable[[Run, Random], object] = strikes.anything
    ends: tuple[str, ...] | None = None
    names: str = ""
    statuses: tuple[int, ...] = (1,)
    every: int = 1


_INTERRUPTED = ("Interrupted. Go on with `--resume`", "issgd: interrupted")
_FULL = ("cannot be written: File too large",)
_NO_CHECKPOINTS = ("cannot be written: No such file or directory", ". Put it back, or remove")
_OTHER_DATA = ("since it was loaded", "does not hold what was prepared there")
_NO_DATA = ("since it was loaded", "is missing; expected", "cannot be read: No such file or directory")

FAULTS: dict[str, Fault] = {
    "worker killed": Fault(strikes.killed("worker"), there_is("worker")),
    "worker frozen for 2 to 5 s": Fault(strikes.worker_frozen, there_is("worker")),
    "worker ten times slower for 3 s": Fault(strikes.worker_slow, there_is("worker")),
    "worker told to leave": Fault(strikes.worker_leaves, there_is("worker")),
    "worker short of memory": Fault(strikes.worker_short_of_memory, there_is("worker")),
    "worker joins late and leaves": Fault(strikes.worker_joins_and_leaves, there_is("worker")),
    "worker writes what cannot be true": Fault(strikes.wrong_scores, there_is("worker")),
    "master killed": Fault(strikes.killed("master"), there_is("master")),
    "monitor killed": Fault(strikes.killed("monitor"), there_is("monitor")),
    "server killed": Fault(strikes.server_killed, there_is("server")),
    "server frozen for 3 s": Fault(strikes.server_frozen(3), there_is("server")),
    "server frozen for 30 s": Fault(strikes.server_frozen(30), there_is("server"), every=4),
    "server's socket gone for 4 s, worker and monitor killed": Fault(strikes.socket_refused, there_is("worker")),
    "server's clock set back by an hour": Fault(strikes.clock_set_back, there_is("master")),
    "newest checkpoint damaged, master killed": Fault(strikes.checkpoint_damaged, there_is("master")),
    "no disk for the trace": Fault(strikes.disk_full("monitor"), there_is("monitor"), _FULL, ".csv"),
    "no disk for checkpoints": Fault(strikes.disk_full("master"), there_is("master"), _FULL, ".npz"),
    "folder of checkpoints gone": Fault(strikes.checkpoints_gone, ends=_NO_CHECKPOINTS, names="checkpoint.npz"),
    "training images gone": Fault(strikes.data_gone, ends=_NO_DATA, names="train-images.npy"),
    "training images changed": Fault(strikes.data_changed, ends=_OTHER_DATA, names="house-numbers"),
    "training images changed while the launcher starts": Fault(
        strikes.data_changed, starts_again, _OTHER_DATA, names="house-numbers"
    ),
    "launcher killed": Fault(strikes.launcher(signal.SIGKILL), ends=(), statuses=(-signal.SIGKILL,)),
    "launcher interrupted (Ctrl-C)": Fault(strikes.launcher(signal.SIGINT), begun, _INTERRUPTED, statuses=(130,)),
    "launcher interrupted (Ctrl-C) while it starts": Fault(
        strikes.launcher(signal.SIGINT), starts_again, _INTERRUPTED, statuses=(130,)
    ),
    "launcher told to end (SIGTERM)": Fault(
        strikes.launcher(signal.SIGTERM), ends=_INTERRUPTED, statuses=(143, -signal.SIGTERM)
    ),
}


def is_clear(said: str, status: int, fault: Fault) -> bool:
    """Whether a run that has ended of a fault says why, and no traceback.

    Args:
        said: All that the launcher has printed.
        status: With which it has ended.
        fault: One that ends a run.
    """
    message = said[said.find("issgd: ") :] if "issgd: " in said else ""
    if "Traceback" in said or status not in fault.statuses:
        return False
    if status < 0:
        return message == ""
    return any(words in message and fault.names in message[: message.index(words)] for words in fault.ends or ())
