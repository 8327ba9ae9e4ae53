"""The arrays of a .npz file, in rows as they stream by; nothing in it is trusted, and nothing of it run."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.sources import open_for_reading
from issgd_cli.errors import DataError

_MOST_INFLATED = 1040
_BLOCK_BYTES = 2**22


class Header(NamedTuple):
    """What an array says that it is."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype} of shape {self.shape}"


class Npz:
    """One file."""

    def __init__(self, path: Path, expected: str) -> None:
        """Opens nothing yet; `expected`: what to say that the file should hold."""
        self.path, self.expected = path, expected

    def names(self) -> list[str]:
        """Of its arrays.

        Raises:
            DataError: It is no .npz file.
        """
        with self._archive() as archive:
            return [member.removesuffix(".npy") for member in archive.namelist()]

    def header(self, name: str) -> Header:
        """Of one array.

        Raises:
            DataError: There is none of this name, or it is damaged, or of Python objects.
        """
        with self._array(name) as (_, header):
            return header

    def whole(self, name: str) -> NDArray[Any]:
        """One array, in memory.

        Raises:
            DataError: As `header`; or it ends early.
        """
        with self._array(name) as (file, (shape, fortran, dtype)):
            values = np.frombuffer(self._read(name, file, math.prod(shape) * dtype.itemsize), dtype)
            return values.reshape(shape, order="F" if fortran else "C")

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """One array, a few rows at a time, (b, features).

        Raises:
            DataError: As `whole`; or its rows do not lie one after the other.
        """
        with self._array(name) as (file, (shape, fortran, dtype)):
            if fortran and len(shape) > 1:
                raise DataError(
                    f"{self.path}: `{name}` is in Fortran order. Save np.ascontiguousarray({name}) instead."
                )
            features = math.prod(shape[1:])
            rows = max(1, _BLOCK_BYTES // (features * dtype.itemsize))
            for first in range(0, shape[0], rows):
                count = min(rows, shape[0] - first)
                values = self._read(name, file, count * features * dtype.itemsize)
                yield np.frombuffer(values, dtype).reshape(count, features)

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        with open_for_reading(self.path) as file:
            try:
                with zipfile.ZipFile(file) as archive:
                    yield archive
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
                raise DataError(f"{self.path} cannot be read as .npz ({error}); {self.expected}.") from error

    @contextmanager
    def _array(self, name: str) -> Iterator[tuple[IO[bytes], Header]]:
        """An array's file, left at its first value, and what it says of itself."""
        with self._archive() as archive:
            if f"{name}.npy" not in archive.namelist():
                raise DataError(f"{self.path} holds no `{name}`; {self.expected}.")
            with archive.open(f"{name}.npy") as file:
                try:
                    version = np.lib.format.read_magic(file)
                    read_header = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    header = Header(*read_header(file))
                except Exception as error:  # numpy's reader raises errors of every kind at what it did not write
                    raise DataError(f"{self.path}: `{name}` is no array ({error}); {self.expected}.") from error
                if header.dtype.hasobject:
                    raise DataError(
                        f"{self.path}: `{name}` holds Python objects, which are never read; {self.expected}."
                    )
                # Nothing deflates to less than a thousandth: who announces more makes us set aside memory for nothing.
                if math.prod(header.shape) * header.dtype.itemsize > _MOST_INFLATED * self.path.stat().st_size:
                    raise DataError(
                        f"{self.path}: `{name}` announces more values than the file can hold; {self.expected}."
                    )
                yield file, header

    def _read(self, name: str, file: IO[bytes], size: int) -> bytes:
        values = file.read(size)
        if len(values) != size:
            raise DataError(f"{self.path}: `{name}` ends early: truncated. Save the file again.")
        return values
