"""The proof that a server which we started runs as it was told to.

What is found as redis-server may be a script that drops what it is given or adds to it, and a server that has not heard
of our configuration listens on all addresses and asks for no password.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def flaw(group: int, socket: Path, password: str, port: int, everywhere: bool) -> str | None:
    """What a server that we started does against its configuration; None where it keeps it.

    Args:
        group: Its process group, which it shares with a script that has started it and waits for it.
        socket: Where it shall listen.
        password: Of the user `owner`.
        port: Where it shall listen as well; 0: nowhere.
        everywhere: Whether that port may be open on all of the machine's addresses.

    Raises:
        redis.ConnectionError, redis.TimeoutError: It is not up yet.
    """
    told, away = {}, None
    try:
        with _client(socket, username="owner", password=password) as owner:
            told = owner.info("server")
    except (redis.AuthenticationError, redis.ResponseError):
        return "it does not let us in"
    except (redis.ConnectionError, redis.TimeoutError) as error:
        away = error
    for address, number in listening(group):  # whether it is up or not: one that dropped all never will be
        if number != port or not (everywhere or address.strip("0")):
            return f"it listens on TCP port {number}" + (" of all addresses" if number == port else "")
    if away is not None:
        raise away
    try:
        is_ours = os.getpgid(int(told["process_id"])) == group
    except (OSError, KeyError, TypeError, ValueError):
        is_ours = False
    if not is_ours:
        return "another process than the one that was started answers on its socket"
    if told.get("tcp_port") != port:
        return f"it has TCP port {told.get('tcp_port')}, not {port}"
    with contextlib.suppress(redis.AuthenticationError), _client(socket) as stranger:
        with contextlib.suppress(redis.ResponseError):  # let in, and told what it may not do
            stranger.ping()
        return "it lets in who has no password"
    return None


def _client(socket: Path, **user: Any) -> "redis.Redis":
    # Tried once: we look again soon enough.
    return redis.Redis(unix_socket_path=str(socket), socket_timeout=1, retry=Retry(NoBackoff(), 0), **user)


def listening(group: int) -> set[tuple[str, int]]:
    """The TCP sockets that a process group listens on: address, as hexadecimal digits, and port. Linux alone tells."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if os.getpgid(int(process.name)) == group:
                inodes = {_target(handle) for handle in (process / "fd").iterdir()}
                tables = [process / "net" / name for name in ("tcp", "tcp6")]
                rows = [row.split() for table in tables if table.exists() for row in table.read_text().splitlines()]
                sockets = [row[1].split(":") for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
                found |= {(address, int(port, 16)) for address, port in sockets}
    return found


def _target(handle: Path) -> str:
    try:
        return os.readlink(handle)
    except FileNotFoundError:  # closed meanwhile
        return ""
