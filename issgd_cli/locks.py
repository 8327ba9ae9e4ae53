"""Locks: one process at work on a file or folder, on local disks and shared ones alike.

The kernel drops a lock with its process, however that ends. Where a file system knows no such locks (NFS without its
lock service), a file that says who made it stands for one; what a killed process left behind is recognised on its own
machine, and elsewhere must be removed by hand.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

POLL_SECONDS = 0.05
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
MARKER = ".held"  # ends the name of the file that stands for a lock


class HeldError(Exception):
    """Another process holds the lock. Its text says which, as far as that is known."""


@contextlib.contextmanager
def held(path: Path, patience_seconds: float | None) -> Iterator[None]:
    """Holds the lock of a file, which is made where there is none.

    Args:
        path: The file, which nothing else is kept in.
        patience_seconds: How long to wait for who holds it; None: for ever.

    Raises:
        HeldError: Somebody held it for longer.
        OSError: The file cannot be made.
    """
    wait = -1.0 if patience_seconds is None else patience_seconds
    lock: BaseFileLock = FileLock(path, wait, poll_interval=POLL_SECONDS, fallback_to_soft=False)
    try:
        try:
            lock.acquire()
            with contextlib.suppress(OSError):  # on a full disk the lock holds without our name
                path.write_text(f"{os.getpid()}")
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in NO_LOCKS:
                raise
            lock = SoftFileLock(_marker(path), wait, poll_interval=POLL_SECONDS)
            lock.acquire()
    except Timeout:
        raise HeldError(_holder(path)) from None
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock of this file; also for who may only look at it."""
    try:
        # Who can write, asks as one who can: some file systems look at that. A shared lock is refused while another
        # holds it exclusively, is to be had by who may only read, and keeps nobody else from looking.
        with path.open("r+b" if os.access(path, os.W_OK) else "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return _is_marked(path)
    except OSError as error:
        return error.errno not in NO_LOCKS or _is_marked(path)  # who cannot tell calls nobody dead
    return _is_marked(path)


def forget(path: Path, machine: str) -> None:
    """Removes what a process of this machine, which is known to be dead, has left to stand for the lock of a file."""
    with contextlib.suppress(OSError):
        _, name, *_ = *_marker(path).read_text(errors="replace").splitlines(), "", ""
        if name.partition("?")[0] == machine:  # what follows tells containers of a machine apart
            _marker(path).unlink()


def _marker(path: Path) -> Path:
    return path.with_name(path.name + MARKER)


def _is_marked(path: Path) -> bool:
    marker = _marker(path)
    if not marker.exists():
        return False
    try:
        with SoftFileLock(marker, 0):  # takes over what a process of this machine left behind
            return False
    except (Timeout, OSError):
        return True


def _holder(path: Path) -> str:
    marker = _marker(path)
    if marker.exists():
        return (
            f"process {SoftFileLock(marker).pid or 'unknown'}, perhaps of another machine; if none is, remove {marker}"
        )
    with contextlib.suppress(OSError, ValueError):
        return f"process {path.read_text().strip() or 'unknown'}"
    return "process unknown"
