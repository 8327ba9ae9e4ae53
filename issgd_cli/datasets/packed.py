"""A folder of official files, or the .zip that it comes in: read alike, and nothing is unpacked.

with folder:
    names = folder.words("names.txt")
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from issgd_cli.datasets.sources import open_for_reading
from issgd_cli.errors import DataError

MOST_BYTES = 2**28  # of one file
_MOST_LINE = 1000


@dataclass
class Folder:
    """See the module.

    Attributes:
        path: The folder, or the .zip.
        name: What the folder is called within the .zip.
    """

    path: Path
    name: str

    def __post_init__(self) -> None:
        self._archive: zipfile.ZipFile | None = None

    @staticmethod
    def holds(source: Path, name: str) -> bool:
        """Whether a place is this folder or its .zip, or has one of them in it."""
        return source.name in (name, f"{name}.zip") or any((source / each).exists() for each in (name, f"{name}.zip"))

    @classmethod
    def of(cls, source: Path, name: str) -> "Folder":
        """The one that `holds` has seen, unpacked rather than packed."""
        if source.name not in (name, f"{name}.zip"):
            source = source / name if (source / name).is_dir() else source / f"{name}.zip"
        return cls(source, name)

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the .zip, which opens again when it is read from."""
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def content(self, file: str) -> bytes:
        """Of a file, by its name in the folder.

        Raises:
            DataError: It is missing, damaged or too large.
        """
        with self._opened(file) as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise DataError(f"{self.path}: {file} has more than {MOST_BYTES:,} bytes. Fetch it again.")
        return content

    def lines(self, file: str, most: int) -> list[bytes]:
        """The first so many of a file, of which no more is read; without their ends.

        Raises:
            DataError: It is missing or damaged.
        """
        with self._opened(file) as stream:
            return [line.strip() for line in islice(iter(lambda: stream.readline(_MOST_LINE), b""), most)]

    def words(self, file: str) -> list[str]:
        """All of a file, in order; what stands between them is of no matter.

        Raises:
            DataError: It is missing, damaged or empty.
        """
        words = self.content(file).decode("utf-8", "replace").split()
        if not words:
            raise DataError(f"{self.path}: {file} is empty. Fetch it again.")
        return words

    def files(self, suffix: str) -> list[str]:
        """Names of all files in it that end so, in order.

        Raises:
            DataError: The .zip is damaged.
        """
        if self.path.is_dir():
            found = [path.relative_to(self.path).as_posix() for path in self.path.rglob(f"*{suffix}")]
        else:
            start = f"{self.name}/"
            names = [name for name in self._zip().namelist() if name.startswith(start) and name.endswith(suffix)]
            found = [name.removeprefix(start) for name in names]
        return sorted(found)

    def _zip(self) -> zipfile.ZipFile:
        """Opened once within a `with`: the list of its thousands of files takes a while to read."""
        if self._archive is None:
            try:
                self._archive = zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError) as error:
                raise DataError(
                    f"{self.path} cannot be read as a .zip ({error}): damaged. Delete it and fetch it again."
                ) from error
        return self._archive

    @contextmanager
    def _opened(self, file: str) -> Iterator[IO[bytes]]:
        if self.path.is_dir():
            if not (self.path / file).is_file():
                raise DataError(f"{self.path} lacks {file}. Fetch it again.")
            with open_for_reading(self.path / file) as stream:
                yield stream
            return
        try:
            with self._zip().open(f"{self.name}/{file}") as stream:
                yield stream
        except KeyError:
            raise DataError(f"{self.path} lacks {file}. Fetch it again.") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise DataError(f"{self.path}: {file} cannot be read ({error}): damaged. Fetch it again.") from error
