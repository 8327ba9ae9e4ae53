"""Named arrays in plain .npz files, read without pickle.

Each file holds a sum over all its arrays, so that a damaged one is refused and never gone on from.
"""

import errno
import hashlib
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.database.records import LARGEST_VERSION
from issgd_cli.errors import DamagedError, RunError
from issgd_cli.files import replacing, writing

Arrays = Mapping[str, NDArray[Any]]

SUM = "sha256"  # the member of every file that holds the sum over the others
NO_DAMAGE = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)  # try again later
START_AGAIN = "Remove the run's folder and start it again."


def save_arrays(path: Path, values: Mapping[str, Any], older: Path | None = None) -> None:
    """Replaces the file at once.

    Args:
        path: Of the file.
        values: Arrays, or what numpy makes arrays of.
        older: Where the file that was there goes; None: it is gone.

    Raises:
        RunError: It cannot be written.
    """
    arrays = {name: np.asarray(value) for name, value in values.items()}
    with writing(path), replacing(path, older=older) as file:
        np.savez(file, allow_pickle=False, **arrays, **{SUM: np.asarray(_sum(arrays))})


def load_arrays(path: Path, remedy: str = START_AGAIN) -> dict[str, NDArray[Any]]:
    """The arrays of a file that `save_arrays` wrote, to the bit, but for their sum.

    No member is compressed, so none takes more memory than its file.

    Args:
        path: Of the file.
        remedy: What to do where it is damaged.

    Raises:
        DamagedError: It is not as it was saved.
        RunError: There is none, or it cannot be read just now.
    """
    try:
        limit = path.stat().st_size
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("it is compressed, which ours never are")
            if sum(member.file_size for member in members) > limit:
                raise ValueError("it announces more than it holds")
            arrays = {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
        if SUM not in arrays:
            raise ValueError("it holds no sum, as those of older versions of issgd don't")
        if str(arrays.pop(SUM)) != _sum(arrays):
            raise ValueError("its sum is not that of what it holds")
        return arrays
    except FileNotFoundError:
        raise RunError(f"No {path}. Put it back, or remove the run's folder and start it again.") from None
    except MemoryError:
        raise RunError(f"{path} does not fit into memory. Close other programs and go on with `--resume`.") from None
    except OSError as error:
        if error.errno in NO_DAMAGE:
            raise RunError(f"{path} cannot be read: {error.strerror}. See to it, and go on with `--resume`.") from None
        raise DamagedError(path, error, remedy) from None
    except Exception as error:  # zipfile's and numpy's readers raise errors of every kind at what they did not write
        raise DamagedError(path, error, remedy) from None


def told(path: Path, name: str) -> str | None:
    """One array of such a file, a text, without a look at the rest; None: there is none, or it is damaged."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return str(_array(archive, archive.getinfo(f"{name}.npy")))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{member.filename} is of another version of .npy")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        left = member.file_size - stream.tell()
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != left:
            raise ValueError(f"{member.filename} announces {dtype} of shape {shape}, and holds {left} bytes")
        # A bytearray, since torch wants to be able to write.
        return np.ndarray(shape, dtype, bytearray(stream.read()), order="F" if fortran else "C")


def _sum(arrays: Arrays) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in order of name, hexadecimal."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # no copy: parameters take 76 MB
    return digest.hexdigest()


# What a reader of such a file expects of one of its arrays


def vector(arrays: Arrays, name: str, dtype: str) -> NDArray[Any]:
    """A finite one of this type.

    Raises:
        KeyError: There is no such array.
        ValueError: It is something else.
    """
    array = arrays[name]
    if array.ndim != 1 or array.dtype != np.dtype(dtype):
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite")
    return array


def whole(arrays: Arrays, name: str, low: int = 0) -> int:
    """A whole number, from `low` on, below LARGEST_VERSION.

    Raises:
        KeyError: There is no such array.
        ValueError: It is something else.
    """
    array = arrays[name]
    if array.shape != () or array.dtype.kind not in "iu" or not low <= int(array) < LARGEST_VERSION:
        raise ValueError(f"{name} is {array!r:.60}")
    return int(array)


def number(arrays: Arrays, name: str, finite: bool = True) -> float:
    """A number; not NaN, and infinite only where that is allowed.

    Raises:
        KeyError: There is no such array.
        ValueError: It is something else.
    """
    array = arrays[name]
    if array.shape != () or array.dtype.kind not in "iuf" or np.isnan(array) or (finite and np.isinf(array)):
        raise ValueError(f"{name} is {array!r:.60}")
    return float(array)


def numbers(arrays: Arrays, name: str) -> NDArray[Any]:
    """The array, if it holds finite numbers, or truths.

    Raises:
        KeyError: There is no such array.
        ValueError: It does not.
    """
    array = arrays[name]
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(f"{name} holds what are no finite numbers")
    return array
