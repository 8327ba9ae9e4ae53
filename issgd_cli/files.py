"""Writing files so that a reader finds the old content or the new, never a part."""

import codecs
import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from issgd_cli.errors import RunError


@contextlib.contextmanager
def replacing(path: Path, suffix: str = ".partial", older: Path | None = None) -> Iterator[IO[bytes]]:
    """A binary file that takes `path`'s place when the block ends well, and is removed when it does not.

    Args:
        path: Whose content is replaced.
        suffix: Of the name of what is being written.
        older: Where the file that was at `path` goes; None: it is gone. A kill between the two moves leaves it there
            and none at `path`.
    """
    partial = path.with_name(path.name + suffix)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if older is not None and path.exists():
            path.replace(older)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


# What to do where something cannot be written.
CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free space there"),
    errno.ENOENT: "Put its folder back",
}


@contextlib.contextmanager
def writing(path: Path, remedy: str | None = None) -> Iterator[None]:
    """Within, what keeps `path` from being written is an error for people: a full disk, a folder that is gone.

    Args:
        path: The file or folder.
        remedy: What to do; None: what suits the reason, and then to go on.

    Raises:
        RunError: With the reason, and the remedy.
    """
    try:
        yield
    except OSError as error:
        remedy = remedy or f"{CURES.get(error.errno or 0, 'See to it')} and go on with `--resume`."
        raise RunError(f"{path} cannot be written: {error.strerror}. {remedy}") from None


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Within, whatever else the system refuses, a file or a process, is an error for people.

    Raises:
        RunError: With the reason, and what to do.
    """
    try:
        yield
    except OSError as error:
        what = error.filename or "A file or process"
        raise RunError(f"{what} cannot be used: {error.strerror}. See to it, and go on with `--resume`.") from None


def read_text(path: Path, most: int) -> str:
    """A text that people write: UTF-8, with or without a byte-order mark, of at most so many bytes.

    Raises:
        ValueError: Something else; says what, and what to do.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise ValueError("it is UTF-16, or no text; save it as UTF-8")
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8; save it as UTF-8") from None


def write_text(path: Path, text: str) -> None:
    """Replaces the file's content at once."""
    with replacing(path) as file:
        file.write(text.encode())
