"""A Redis server of our own: found on this machine, started for a run, guarded, ended with it."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlparse

import redis

from issgd_cli.database.addresses import is_everywhere, parsed
from issgd_cli.database.binaries import INSTEAD, binary_version, find_binary
from issgd_cli.database.guard import flaw
from issgd_cli.database.permissions import KEYS, OWNER_COMMANDS, WORKER_COMMANDS, WORKER_KEYS, allowed
from issgd_cli.errors import DatabaseError

START_SECONDS = 20.0
STARTS = 3  # of one that somebody kills before it is up
FIRST_WITH_USERS = 6
FIRST_WITH_KEY_PERMISSIONS = 7
SOCKET = "database.sock"

# Standard input is a pipe from the launcher, which ends with it, however it ends. The actors get a moment to notice.
_WATCHDOG = 'read -r _; sleep 3; kill -s TERM -- "-$1"; kill -s CONT -- "-$1"; rm -rf -- "$2"'


@dataclass
class Server:
    """A running server.

    Attributes:
        binary: What runs.
        version: For instance `valkey 9.1.2`.
        place: Its folder: socket and invitation.
        log: Where its own log goes.
        url: For launcher, master and monitor, password included.
        worker_url: For workers on this machine.
        limits_workers: Whether a worker can write nothing but its records, status and events.
        invitation: The file with the URL for workers on other machines; None where it listens on no address.
        process: Its process, or a script's that waits for it; another one after `restart`.
        was_killed: Whether somebody has killed it while it came up.
    """

    binary: Path
    version: str
    place: Path
    log: Path
    url: str = field(repr=False)
    worker_url: str = field(repr=False)
    limits_workers: bool
    invitation: Path | None
    _configuration: str = field(repr=False)
    _host: str
    _port: int
    process: subprocess.Popen[bytes] = field(init=False)
    watchdog: subprocess.Popen[bytes] = field(init=False)
    was_killed: bool = field(init=False, default=False)

    def start(self) -> None:
        """Starts it, at its address and with its passwords; it ends, and its folder goes, when we are killed.

        Raises:
            DatabaseError: It does not come up, or not as it was told to.
        """
        try:
            self._spawn()
        except OSError as error:
            raise DatabaseError(
                f"{self.binary} cannot be started in {self.place}: {error.strerror}.", f"See to it, or {INSTEAD}"
            ) from None
        try:
            self._wait()
        except BaseException:
            self.was_killed = (self.process.poll() or 0) < 0  # by somebody else: we have not ended it yet
            self.end()
            raise

    def _spawn(self) -> None:
        with self.log.open("ab") as output:
            # A session of its own: Ctrl-C at the terminal is for the launcher, who ends the actors first. Nothing that
            # it reads is on disk or has a path: what a name like j[1] means to it is none of our business.
            self.process = subprocess.Popen(
                [self.binary, "-"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.place,
                start_new_session=True,
            )
        try:
            assert self.process.stdin is not None
            with contextlib.suppress(BrokenPipeError), self.process.stdin as told:  # it ended, as we shall see
                told.write(self._configuration.encode())
            self.watchdog = subprocess.Popen(
                ["sh", "-c", _WATCHDOG, "watchdog", str(self.process.pid), str(self.place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            self._end_group()
            raise

    def _wait(self) -> None:
        """Until it is up, and proven to be ours."""
        password = str(urlparse(self.url).password)
        deadline = time.monotonic() + START_SECONDS
        everywhere = is_everywhere(self._host)
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
                wrong = flaw(self.process.pid, self.place / SOCKET, password, self._port, everywhere)
                if wrong is None:
                    return
                raise DatabaseError(
                    f"{self.binary} does not run as it was told to: {wrong}. It was ended at once.",
                    "If that is a script, it must hand its arguments and standard input on as they are; else take it "
                    f"off PATH and {INSTEAD}",
                )
            time.sleep(0.02)
        last = "".join(f"\n  {line}" for line in self.log.read_text(errors="replace").splitlines()[-5:])
        how = f"it does not answer within {START_SECONDS:.0f} s" if self.process.poll() is None else "it ended"
        raise DatabaseError(f"The database server did not come up: {how}. The end of {self.log}:{last}")

    def end(self) -> None:
        """Ends it, however it stands."""
        self.watchdog.kill()  # before its standard input is closed, which it would take for our death
        self.watchdog.communicate()
        self._end_group()

    def _end_group(self) -> None:
        """Ends the server, and the script that may have started it."""
        self._signal(signal.SIGCONT)  # one that was stopped would not hear that it shall end
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; macOS says the latter of zombies
            os.killpg(self.process.pid, number)

    def restart(self) -> None:
        """Starts it again after its death, empty."""
        self.end()
        self.start()


@contextlib.contextmanager
def serving(log: Path, listen: str = "") -> Iterator[Server]:
    """A server for as long as the block lasts, or this process.

    It listens on a unix socket that only this user can reach; whoever connects needs a password all the same, so that
    a worker can be held to a worker's business. Nothing of it is written to disk but its log: what a run needs again
    is in its checkpoint.

    Args:
        log: Where the server's own log goes.
        listen: HOST:PORT to listen on as well, for workers on other machines; port 0 is a free one.

    Raises:
        DatabaseError: It does not come up as it was told to, or is older than 6.0 and knows no users.
    """
    host, port = parsed(listen) if listen else ("", 0)
    binary = find_binary()
    version = binary_version(binary)
    major = int(re.split(r"[ .]", version)[1])
    if major < FIRST_WITH_USERS:
        raise DatabaseError(
            f"{binary} is {version}, which cannot tell one user from another; 6.0 is the first that can.",
            f"Take it off PATH and {INSTEAD}",
        )
    passwords = {user: secrets.token_hex(32) for user in ("owner", "worker")}
    limits_workers = major >= FIRST_WITH_KEY_PERMISSIONS
    configuration = _configuration(passwords, limits_workers, host, port)
    place = _new_folder()
    try:
        path = quote(str(place / SOCKET))
        owner, worker = (f"unix://{user}:{passwords[user]}@{path}" for user in ("owner", "worker"))
        invitation = _invitation(place, host, port, passwords["worker"]) if listen else None
        server = Server(
            binary, version, place, log, owner, worker, limits_workers, invitation, configuration, host, port
        )
        for left in reversed(range(STARTS)):
            try:
                server.start()
                break
            except DatabaseError:
                if not server.was_killed or left == 0:
                    raise
        try:
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _new_folder() -> Path:
    """A folder of this user's alone, with a path that a socket's address and a line of text can hold.

    Raises:
        DatabaseError: There is no place for one.
    """
    reasons = []
    for parent in (None, "/tmp", "/var/tmp"):
        try:
            place = Path(tempfile.mkdtemp(prefix="issgd-", dir=parent))  # made with mode 0700
        except OSError as error:
            reasons.append(str(error.strerror or error))
            continue
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.bind(str(place / SOCKET))
            (place / SOCKET).unlink()
            if str(place).isprintable():
                return place
            reasons.append("its name is not printable")
        except OSError as error:
            reasons.append(str(error.strerror or error))
        shutil.rmtree(place, ignore_errors=True)
    raise DatabaseError(
        f"The database server's socket has no place in the folder for temporary files ({reasons[0]}), nor in /tmp or "
        f"/var/tmp ({', '.join(reasons[1:])}).",
        "Set TMPDIR to a folder that you can write to and whose path is short.",
    )


def _configuration(passwords: dict[str, str], limits_workers: bool, host: str, port: int) -> str:
    """What the server is told: no path, and of the passwords the hashes."""
    lines = [
        f"port {port}",
        *([f"bind {host}"] if host not in ("", "*") else []),
        "protected-mode yes",
        f"unixsocket {SOCKET}",
        "unixsocketperm 700",
        'save ""',
        "appendonly no",
        "maxmemory-policy noeviction",
        "daemonize no",
        "user default off resetpass resetkeys -@all",
    ]
    for user, keys, commands in (
        ("owner", [KEYS], OWNER_COMMANDS),
        ("worker", WORKER_KEYS if limits_workers else [KEYS], WORKER_COMMANDS),
    ):
        digest = hashlib.sha256(passwords[user].encode()).hexdigest()
        lines.append(f"user {user} on #{digest} {' '.join(keys)} -@all {allowed(commands)}")
    return "\n".join(lines) + "\n"


def _invitation(place: Path, host: str, port: int, password: str) -> Path:
    """Writes the URL that workers on other machines need into a file that only this user can read."""
    name = socket.gethostname() if is_everywhere(host) else f"[{host}]" if ":" in host else host
    path = place / "worker-database"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"redis://worker:{password}@{name}:{port}\n")
    return path
