"""Writing files so that a reader finds the old content or the new, never a part."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


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


def write_text(path: Path, text: str) -> None:
    """Replaces the file's content at once."""
    with replacing(path) as file:
        file.write(text.encode())
