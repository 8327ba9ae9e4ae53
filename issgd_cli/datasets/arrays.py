"""Arrays in .npy files: read with distrust, and written so that a full disk is told."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.errors import DataError


def array_of(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], remedy: str, mapped: bool = False
) -> NDArray[Any]:
    """A .npy file's array, which must have this dtype and shape.

    Args:
        path: The file.
        dtype: Of the array.
        shape: Likewise.
        remedy: What to say that is to be done where it is not so.
        mapped: Whether it is to stay on the disk; else it is read.

    Raises:
        DataError: It is missing, damaged or another one.
    """
    expected = f"{dtype} of shape {shape}"
    try:
        # Mapped in any case, so that a header that announces terabytes takes none; but an empty array cannot be.
        array = np.load(path, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; expected {expected}. {remedy}") from None
    except Exception as error:  # numpy's reader raises errors of every kind at what it did not write
        raise DataError(f"{path} cannot be read as {expected}: {error}. {remedy}") from error
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape or array.flags.fnc:
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "another kind of file"
        raise DataError(f"{path}: expected {expected}, found {found}. {remedy}")
    return array if mapped else np.array(array)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """As np.save, which on a full disk raises an error that does not say so."""
    content = io.BytesIO()
    np.save(content, array)
    path.write_bytes(content.getbuffer())
