"""Writing files so that a reader finds the old content or the new, never a part."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replacing(path: Path, suffix: str = ".partial") -> Iterator[IO[bytes]]:
    """A binary file that takes `path`'s place when the block ends well, and is removed when it does not."""
    partial = path.with_name(path.name + suffix)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replaces the file's content at once."""
    with replacing(path) as file:
        file.write(text.encode())
