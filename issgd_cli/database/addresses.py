"""Where a server of ours listens for workers on other machines: HOST:PORT."""

import re
import socket

from issgd_cli.errors import DatabaseError


def parsed(listen: str) -> tuple[str, int]:
    """HOST, out of its brackets, and PORT; a free one for 0.

    Raises:
        DatabaseError: It is no such thing, or no address of this machine's.
    """
    said = re.fullmatch(r"(\*|\w[\w.-]*|\[[0-9a-fA-F:]+\]):(\d{1,5})", listen, re.ASCII)
    if said is None or int(said[2]) > 65535:
        raise DatabaseError(
            f"{listen!r} is no address to listen on.",
            "Write HOST:PORT, for instance `--listen 192.168.1.5:6379`, * for all addresses, [::1] for one of IPv6; a "
            "port is from 1 to 65535, or 0 for a free one.",
        )
    host = said[1].strip("[]")
    return host, int(said[2]) or _free_port(host)


def _free_port(host: str) -> int:
    """One that nobody listens on. The server binds it a moment later: who comes in between makes its start fail."""
    name = "" if host == "*" else host
    try:
        with socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET) as probe:
            probe.bind((name, 0))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise DatabaseError(
            f"No server can listen on {host}: {error.strerror}.", "Name an address of this machine's, or *."
        ) from None


def is_everywhere(host: str) -> bool:
    """Whether it stands for all addresses of this machine: *, 0.0.0.0, ::"""
    return not host.strip("*0.:")
