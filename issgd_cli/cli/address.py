"""Where the database is: by an option, the environment variable ISSGD_DATABASE, or a file that is its owner's alone."""

import stat
from pathlib import Path
from typing import Annotated

import typer

from issgd_cli.errors import ConfigError

LONGEST = 4096

DatabaseFile = Annotated[
    Path | None, typer.Option("--database-file", help="A file that holds the URL, with its password; chmod 600 it.")
]


def address(url: str | None, file: Path | None) -> str:
    """The database's URL; empty where none is given.

    Raises:
        ConfigError: The file cannot be read, is no line of text, or can be read by other users.
    """
    if file is None:
        return url or ""
    try:
        with file.open() as opened:
            others = stat.S_IMODE(file.stat().st_mode) & 0o077
            text = opened.read(LONGEST).strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{file}, named by --database-file, cannot be read: {reason}.") from None
    if others:
        raise ConfigError(f"{file} holds a password, and other users can read it. `chmod 600 {file}` first.")
    if not text or not text.isprintable():
        raise ConfigError(f"{file}, named by --database-file, must hold one line, the database's URL.")
    return text


def refuse_passwords(arguments: list[str]) -> None:
    """Every user of a machine can read the command lines of all processes.

    Raises:
        ConfigError: A password stands in one of the arguments.
    """
    for argument in arguments:
        if "://" not in argument and "password=" not in argument:
            continue
        from issgd_cli.config import without_password  # heavy, and seldom needed

        if without_password(argument) != argument:
            raise ConfigError(
                "A password on the command line can be read by every user of this machine. Put the URL into the "
                "environment variable ISSGD_DATABASE, or into a file and name it by --database-file."
            )
