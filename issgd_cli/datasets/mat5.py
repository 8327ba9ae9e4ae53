"""A streaming reader of MAT-5 files, MATLAB's format up to version 7: arrays come in blocks along the last axis.

scipy.io.loadmat inflates a whole variable at once, 1.6 GB for SVHN's extra part; this reader holds one block.
Reads full numeric arrays of little-endian files, compressed or not: all that the datasets here need.

Source: MathWorks, "MAT-File Format", chapter 1, level 5.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.sources import open_for_reading
from issgd_cli.errors import DataError

_MATRIX, _COMPRESSED = 14, 15
_STORED_AS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_CLASSES = {
    **{6: "double", 7: "single", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16"},
    **{12: "int32", 13: "uint32", 14: "int64", 15: "uint64"},
}
_OTHER_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse"}
_PIECE = 2**20  # of the file: inflating alone is faster with less, but not beside a thread that writes what it gives


@dataclass(frozen=True)
class Variable:
    """A numeric array of a MAT-5 file, known from its header.

    Attributes:
        path: The file.
        name: The variable's name.
        kind: MATLAB class, for instance "uint8" or "double".
        shape: As MATLAB gives it; values are in Fortran order, the first index fastest.
    """

    path: Path
    name: str
    kind: str
    shape: tuple[int, ...]
    _position: int  # of the element's tag in the file
    _stored: str  # dtype of the values in the file: MATLAB stores whole doubles as smaller integers

    def blocks(self, rows: int = 2048) -> Iterator[NDArray[Any]]:
        """The values, a block of at most `rows` along the last axis at a time: (b, product of the other axes).

        A row holds the values of one index of the last axis, the first axis fastest.

        Raises:
            DataError: The file ends early or is corrupted.
        """
        *rest, count = self.shape
        width = math.prod(rest)
        dtype = np.dtype(self._stored)
        with open_for_reading(self.path) as file:
            stream = _element(self.path, file, self._position)
            _header(stream)
            for first in range(0, count, rows):
                block = min(rows, count - first)
                values = np.frombuffer(stream.read(block * width * dtype.itemsize), dtype)
                yield values.reshape(block, width)
            stream.finish()


def variables(path: Path) -> dict[str, Variable]:
    """The numeric arrays of a file by name; only their headers are read.

    Raises:
        DataError: Not a MAT-5 file, or one that is truncated or corrupted.
    """
    found = {}
    with open_for_reading(path) as file:
        size = path.stat().st_size
        _check_file_header(path, file.read(128))
        position = 128
        while position < size:
            stream = _element(path, file, position)
            name, kind, shape, stored = _header(stream)
            if kind in _CLASSES.values():
                found[name] = Variable(path, name, kind, shape, position, stored)
            position = stream.end
    return found


class _Stream:
    """The bytes of one top-level element, inflated if need be."""

    def __init__(self, path: Path, file: BinaryIO, size: int, compressed: bool) -> None:
        self.path = path
        self.end = file.tell() + size
        self._file = file
        self._left = size  # bytes of the element not yet read from the file
        self._inflater = zlib.decompressobj() if compressed else None
        self._pending = b""

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        pieces = []
        while size:
            piece = self._some(size)
            if not piece:
                raise self.damaged("ends in the middle of an array")
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self) -> None:
        """Read to the end, where the checksum of a compressed element is verified."""
        if self._inflater is not None:
            while not self._inflater.eof:
                if not self._some(_PIECE) and not self._inflater.eof:
                    raise self.damaged("ends before the end of a compressed array")

    def damaged(self, what: str) -> DataError:
        """The error that says so."""
        return DataError(f"{self.path} {what}: truncated or corrupted. Fetch the file again.")

    def _some(self, most: int) -> bytes:
        if self._inflater is None:
            return self._raw(most)
        try:
            while not self._inflater.eof:
                self._pending = self._inflater.unconsumed_tail or self._raw(_PIECE)
                piece = self._inflater.decompress(self._pending, most)
                if piece or not self._pending:
                    return piece
        except zlib.error as error:
            raise self.damaged(f"cannot be inflated ({error})") from error
        return b""

    def _raw(self, most: int) -> bytes:
        piece = self._file.read(min(most, self._left))
        self._left -= len(piece)
        return piece


def _check_file_header(path: Path, header: bytes) -> None:
    remedy = "In MATLAB, save it with `-v7`; if it should be an official file, fetch it again."
    if header.startswith(b"MATLAB 7.3") or header.startswith(b"\x89HDF"):
        raise DataError(f"{path} is a MAT file of version 7.3 (HDF5); expected MAT-5. {remedy}")
    if len(header) < 128 or header[126:128] not in (b"IM", b"MI"):
        raise DataError(f"{path} is not a MAT-5 file. {remedy}")
    if header[126:128] == b"MI":
        raise DataError(f"{path} is a big-endian MAT-5 file; expected little-endian. {remedy}")


def _element(path: Path, file: BinaryIO, position: int) -> _Stream:
    """The top-level element at a position, ready to be read after its tag."""
    file.seek(position)
    tag = file.read(8)
    if len(tag) < 8:
        raise DataError(f"{path} ends within a tag: truncated. Fetch the file again.")
    kind, size = struct.unpack("<II", tag)
    stream = _Stream(path, file, size, kind == _COMPRESSED)
    if kind not in (_MATRIX, _COMPRESSED):
        raise stream.damaged(f"holds an element of the unknown type {kind}")
    if stream.end > path.stat().st_size:
        raise stream.damaged(f"has {path.stat().st_size:,} bytes, but an array of it ends at {stream.end:,}")
    if kind == _COMPRESSED and struct.unpack("<I", stream.read(8)[:4])[0] != _MATRIX:
        raise stream.damaged("holds a compressed element that is not an array")
    return stream


def _header(stream: _Stream) -> tuple[str, str, tuple[int, ...], str]:
    """Name, class, shape and storage dtype of the array; the stream is left at its first value."""
    flags = _sub_element(stream)
    kind = flags[0] if len(flags) == 8 else 0
    if kind in _OTHER_CLASSES:
        return "", _OTHER_CLASSES[kind], (), ""
    if kind not in _CLASSES:
        raise stream.damaged(f"holds an array of the unknown class {kind}")
    dimensions = _sub_element(stream)
    if len(dimensions) < 8 or len(dimensions) % 4:
        raise stream.damaged("holds an array without dimensions")
    shape = tuple(int(length) for length in np.frombuffer(dimensions, "<i4"))
    name = _sub_element(stream).decode("ascii", "replace")
    stored, size, _ = _tag(stream)
    if stored not in _STORED_AS:
        raise stream.damaged(f"stores the array {name} as the unknown type {stored}")
    dtype = _STORED_AS[stored]
    # A small element holds its values within the tag, a whole one after it; `size` must be that of the shape.
    if min(shape) < 0 or size != math.prod(shape) * np.dtype(dtype).itemsize:
        raise stream.damaged(f"announces {size:,} bytes for the array {name} of shape {shape}")
    return name, _CLASSES[kind], shape, dtype


def _tag(stream: _Stream) -> tuple[int, int, bool]:
    """Type, size in bytes and whether the element is small (its at most 4 bytes lie in the tag itself)."""
    (word,) = struct.unpack("<I", stream.read(4))
    if word >> 16:
        return word & 0xFFFF, word >> 16, True
    (size,) = struct.unpack("<I", stream.read(4))
    return word, size, False


def _sub_element(stream: _Stream) -> bytes:
    """The bytes of a short sub-element, its padding skipped."""
    _, size, small = _tag(stream)
    if size > 2**12:
        raise stream.damaged("holds an array with an impossible header")
    padded = 4 if small else -(-size // 8) * 8
    return stream.read(padded)[:size]
