"""Where the database is: by an option, the environment variable ISSGD_DATABASE, or a file that is its owner's alone."""

import contextlib
import dataclasses
import os
import shlex
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from issgd_cli.config.passwords import without_password
from issgd_cli.errors import ConfigError, DatabaseError, GoneError
from issgd_cli.files import read_text

if TYPE_CHECKING:
    from issgd_cli.experiments.experiment import Run

VARIABLE = "ISSGD_DATABASE"
LONGEST = 4096
POLL_SECONDS = 0.5

DatabaseFile = Annotated[
    Path | None, typer.Option("--database-file", help="A file that holds the URL, with its password; chmod 600 it.")
]


def address(url: str | None, file: Path | None, patience_seconds: float = 0.0) -> str | None:
    """The database's URL, as the command line says; None where it says nothing.

    Args:
        url: By itself.
        file: That holds it.
        patience_seconds: How long to wait for that file, which another machine may have written just now.

    Raises:
        ConfigError: The file cannot be read, is no line of text, or can be read by other users.
    """
    if file is None:
        return url
    deadline = time.monotonic() + patience_seconds
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    try:
        others = stat.S_IMODE(file.stat().st_mode) & 0o077
        text = read_text(file, LONGEST).strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{file}, named by --database-file, cannot be read: {reason}.") from None
    if others:
        raise ConfigError(
            f"{file} holds a password, and other users can read it. `chmod 600 {shlex.quote(str(file))}` first."
        )
    if not text or not text.isprintable():
        raise ConfigError(f"{file}, named by --database-file, must hold one line, the database's URL.")
    return text


def default() -> str:
    """The URL that ISSGD_DATABASE holds; empty: none."""
    return os.environ.get(VARIABLE, "").strip()


def on_default(run: "Run", overrides: Mapping[str, Any]) -> "Run":
    """The run on the server of ISSGD_DATABASE, if it can use one and nothing else says which.

    Read here and not by the option: nobody could tell then whether the variable or the user has named it.
    """
    database, url = run.config.database, default()
    named = "url" in overrides.get("database", {}) or (database.url and "***@" not in database.url)
    if not url or named or database.listen or run.config.cluster.kind != "local":
        return run
    config = run.config.model_copy(update={"database": database.model_copy(update={"url": url})})
    return dataclasses.replace(run, config=config)


@contextlib.contextmanager
def blaming(url: str) -> Iterator[None]:
    """Within, what is wrong with a server is said to be wrong with ISSGD_DATABASE's, if the URL is that one.

    Raises:
        DatabaseError: As it was, with the variable's name.
    """
    try:
        yield
    except GoneError:  # a run is missing, not a server
        raise
    except DatabaseError as error:
        if not url or url != default() or "ISSGD_LAUNCHER" in os.environ:  # a launcher sets it for its actors
            raise
        remedy = f"{error.remedy} The URL is the one in {VARIABLE}: set it right, or unset it.".lstrip()
        raise type(error)(error.what, remedy) from None


def refuse_passwords(arguments: list[str]) -> None:
    """Every user of a machine can read the command lines of all processes.

    Raises:
        ConfigError: A password stands in one of the arguments.
    """
    for argument in arguments:
        if "://" not in argument and "password=" not in argument:
            continue
        if without_password(argument) != argument:
            raise ConfigError(
                "A password on the command line can be read by every user of this machine. Put the URL into the "
                "environment variable ISSGD_DATABASE, or into a file and name it by --database-file."
            )
