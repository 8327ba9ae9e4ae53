"""One process at work on a folder: on disks of any kind, and for those who may only look."""

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issgd_cli.errors import RunError
from issgd_cli.locks import HeldError, forget, held, is_held
from issgd_cli.runs.folder import is_locked, locked

Flock = Callable[[Any, int], None]
FLOCK = fcntl.flock


def nfs4(file: Any, operation: int) -> None:
    """A lock is one of byte ranges there: an exclusive one needs a file open for writing, a shared one for reading."""
    descriptor = file if isinstance(file, int) else file.fileno()
    mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    if (operation & fcntl.LOCK_EX and mode == os.O_RDONLY) or (operation & fcntl.LOCK_SH and mode == os.O_WRONLY):
        raise OSError(errno.EBADF, "Bad file descriptor")
    FLOCK(descriptor, operation)


def unable(number: int) -> Flock:
    def flock(file: Any, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


DISKS: dict[str, Flock] = {
    "local": FLOCK,
    "NFSv4": nfs4,
    "NFS without its lock service": unable(errno.ENOLCK),
    "no locks at all": unable(errno.ENOSYS),
    "locks not supported": unable(errno.EOPNOTSUPP),
}


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(fcntl, "flock", DISKS[request.param])
    return str(request.param)


def test_a_lock_is_held_for_as_long_as_its_block_on_any_disk(disk: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    with held(path, 0):
        assert is_held(path)
        assert is_held(path)  # looking takes nothing away
        with pytest.raises(HeldError, match=f"process {os.getpid()}"), held(path, 0.1):
            pass
        assert is_held(path)
    assert not is_held(path)
    with held(path, 0):
        assert is_held(path)


def test_a_run_that_lives_is_not_called_killed_on_any_disk(disk: str, tmp_path: Path) -> None:
    with locked(tmp_path / "run", "another issgd"):
        assert is_locked(tmp_path / "run")
        with pytest.raises(RunError, match=r"another issgd is already at work on .*\(process \d+.*\)\. Wait for it"):
            with locked(tmp_path / "run", "another issgd"):
                pass
    assert not is_locked(tmp_path / "run")


def test_what_a_killed_process_left_behind_is_taken_over_on_any_disk(disk: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    number = {"no locks at all": errno.ENOSYS, "locks not supported": errno.EOPNOTSUPP}.get(disk, errno.ENOLCK)
    patch = f"""
        def flock(file, operation):
            raise OSError({number}, "no")
        fcntl.flock = flock
    """
    code = f"""
import fcntl, os
from pathlib import Path
{"" if disk in ("local", "NFSv4") else textwrap.dedent(patch)}
from issgd_cli.locks import held
with held(Path({str(path)!r}), 0):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert not is_held(path)
    with held(path, 1):
        assert is_held(path)


def test_what_a_machine_left_behind_that_is_known_dead_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, marker = tmp_path / "lock", tmp_path / "lock.held"
    monkeypatch.setattr(fcntl, "flock", unable(errno.ENOLCK))
    marker.write_text("123\nn1\n")
    with pytest.raises(HeldError, match=r"process 123, perhaps of another machine; if none is, remove .*lock\.held"):
        with held(path, 0):
            pass
    forget(path, "n2")
    assert is_held(path)
    forget(path, "n1")
    forget(path, "n1")
    with held(path, 0):
        assert is_held(path)


def test_a_lock_that_is_waited_for_is_had_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = f"""
import sys
from pathlib import Path
from issgd_cli.locks import held
with held(Path({str(path)!r}), 0):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        assert is_held(path)
        other.stdin.close()
        with held(path, None):
            assert is_held(path)


def test_who_cannot_tell_calls_nobody_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock").touch()
    monkeypatch.setattr(fcntl, "flock", unable(errno.EIO))
    assert is_held(tmp_path / "lock")


def test_who_may_only_look_sees_a_lock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    monkeypatch.setattr(fcntl, "flock", nfs4)
    with held(path, 0):
        path.chmod(0o444)
        monkeypatch.setattr(os, "access", lambda *arguments: False)
        assert is_held(path)
    assert not is_held(path)


def test_a_look_leaves_nothing_behind_and_holds_nobody_up(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # somebody else looks
        assert not is_held(tmp_path / "lock")
