"""CIFAR-10: 32x32 RGB photographs, ten classes, 50,000 for train and valid, 10,000 for test.

The same shape as SVHN. Reads the official binary version and the official Python version; the latter's batches are
pickles, which are walked here without running anything they say.

Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import pickletools
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from issgd_cli.datasets import download
from issgd_cli.datasets.sources import (
    Block,
    Dataset,
    Part,
    Progress,
    Recipe,
    Request,
    described,
    identities,
    open_for_reading,
    refuse_size,
)
from issgd_cli.errors import DataError

BASE_URL = "https://www.cs.toronto.edu/~kriz/"
SHAPE = (3, 32, 32)
CLASSES = 10
FEATURES = 3072
MOST_BYTES = 64 * 2**20

BINARY_SIZE = 170_052_171  # bytes of the archive that is fetched
OFFICIAL = {
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
}
_BATCHES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
_FOLDERS = {".bin": "cifar-10-batches-bin", "": "cifar-10-batches-py"}


def recipe(request: Request) -> Recipe:
    """CIFAR-10, fetched, or read from an official archive or a folder.

    The folder may hold an archive, an extracted folder (cifar-10-batches-bin or -py), or the batches themselves.

    Raises:
        DataError: No CIFAR-10 in the folder; or `size` was given.
    """
    refuse_size("cifar10", request)
    if request.source is None:
        archive = request.downloads / "cifar10" / "cifar-10-binary.tar.gz"

        def fetch(progress: Progress) -> Dataset:
            md5 = OFFICIAL[archive.name]
            return _from_archive(download.fetch(BASE_URL + archive.name, archive, md5, progress, size=BINARY_SIZE))

        return Recipe({"origin": "official", "files": [archive.name]}, fetch)
    files, suffix = _found(request.source)
    parameters = {"origin": "files", "files": identities(files)}
    if suffix is None:
        return Recipe(parameters, lambda progress: _from_archive(files[0]))
    return Recipe(parameters, lambda progress: _from_folder(files, suffix))


def binary_batch(content: bytes, what: str) -> Block:
    """A batch of the binary version: records of one label byte and 3072 pixels in CHW order.

    Raises:
        DataError: The content is not whole records.
    """
    if not content or len(content) % (FEATURES + 1):
        raise DataError(f"{what} has {len(content):,} bytes, not a multiple of 3,073: truncated. Fetch it again.")
    records = np.frombuffer(content, np.uint8).reshape(-1, FEATURES + 1)
    return records[:, 1:], records[:, 0]


def python_batch(content: bytes, what: str) -> Block:
    """A batch of the Python version, a pickle of {"data": uint8 (N, 3072), "labels": list, ...}.

    Nothing in it is imported or called: a call in the pickle stays a record of itself, and the one array is taken
    from the bytes of such a record.

    Raises:
        DataError: Not such a pickle.
    """
    wrong = DataError(
        f"{what} is not a CIFAR-10 batch of the Python version, or a damaged one. Fetch it again, "
        "or use cifar-10-binary.tar.gz."
    )
    try:
        batch = _inert(content)
        array, labels = batch["data"], batch["labels"]
        called = (array.function, array.state[2].function, array.state[2].arguments[0])
        _, shape, _, fortran, pixels = array.state
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, struct.error) as error:
        raise wrong from error
    names = (("numpy.core.multiarray", "_reconstruct"), ("numpy", "dtype"), "u1")
    if called != names or fortran or not isinstance(pixels, str) or not isinstance(labels, list):
        raise wrong
    if shape != (len(labels), FEATURES) or len(pixels) != len(labels) * FEATURES or not labels:
        raise wrong
    if not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise wrong
    images = np.frombuffer(pixels.encode("latin-1"), np.uint8).reshape(shape)
    return images, np.array(labels, np.uint8)


def _limited(file: IO[bytes], what: str) -> bytes:
    """The content of a batch, which is never more than some 31 MB."""
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DataError(f"{what} has more than {MOST_BYTES:,} bytes: not CIFAR-10's. Fetch it again.")
    return content


class _Mark(NamedTuple):
    """Where a tuple, list or dict begins on the stack."""


class _Call:
    """What a pickle would have called, kept as data."""

    def __init__(self, function: Any, arguments: Any) -> None:
        self.function = function
        self.arguments = arguments
        self.state: Any = None


def _inert(content: bytes) -> Any:
    """What a protocol-2 pickle holds, its imports as names and its calls as `_Call`. Byte strings are latin-1 str.

    Raises:
        ValueError, IndexError, KeyError, TypeError: Anything but the operations that a batch needs.
    """
    stack: list[Any] = []
    memory: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        position = max(index for index, value in enumerate(stack) if isinstance(value, _Mark))
        values = stack[position + 1 :]
        del stack[position:]
        return values

    def popped(count: int) -> list[Any]:
        values = stack[-count:]
        del stack[-count:]
        return values

    argument: Any
    for opcode, argument, _ in pickletools.genops(content):
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "BINPUT" | "LONG_BINPUT":
                memory[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memory[argument])
            case "BININT" | "BININT1" | "BININT2" | "SHORT_BINSTRING" | "BINSTRING" | "BINUNICODE":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "MARK":
                stack.append(_Mark())
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(popped(int(opcode.name[-1]))))
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                values = since_mark()
                stack[-1].extend(values)
            case "SETITEM":
                key, value = popped(2)
                stack[-1][key] = value
            case "SETITEMS":
                values = since_mark()
                stack[-1].update(zip(values[::2], values[1::2], strict=True))
            case "GLOBAL":
                stack.append(tuple(argument.split(" ")))
            case "REDUCE":
                function, arguments = popped(2)
                stack.append(_Call(function, arguments))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case name:
                raise ValueError(f"the operation {name}")
    raise ValueError("no end")


_READERS: dict[str, Callable[[bytes, str], Block]] = {".bin": binary_batch, "": python_batch}


def _found(source: Path) -> tuple[list[Path], str | None]:
    """An archive alone (suffix None), or the six batch files and their suffix."""
    if source.is_file():
        return [source], None
    for folder in (source, *(source / name for name in _FOLDERS.values())):
        for suffix in _FOLDERS:
            files = [folder / (batch + suffix) for batch in _BATCHES]
            if any(path.is_file() for path in files):
                for path in files:
                    if not path.is_file():
                        raise DataError(f"{folder} lacks {path.name}. Fetch CIFAR-10 again, or leave out `--from`.")
                return files, suffix
    for name in OFFICIAL:
        if (source / name).is_file():
            return [source / name], None
    raise DataError(
        f"{source} holds no CIFAR-10: neither {' nor '.join(OFFICIAL)} nor {' nor '.join(_FOLDERS.values())}. "
        "Name the folder that holds one of them, or leave out `--from` to fetch it."
    )


def _dataset(batches: Iterator[tuple[str, Block]], files: list[Path]) -> Dataset:
    """From all six batches by name, in any order; 184 MB of memory. The files are what they were read from."""
    held = dict(batches)
    missing = [name for name in _BATCHES if name not in held]
    if missing:
        raise DataError(f"{files[0]} lacks {missing[0]}: not CIFAR-10, or truncated. Fetch it again.")

    def part(names: list[str]) -> Part:
        return Part(sum(len(held[name][1]) for name in names), (held[name] for name in names))

    def sources() -> list[dict[str, Any]]:
        return [described(path, OFFICIAL.values()) for path in files]

    return Dataset(SHAPE, CLASSES, part(_BATCHES[:5]), part(_BATCHES[5:]), sources)


def _from_folder(files: list[Path], suffix: str) -> Dataset:
    def batches() -> Iterator[tuple[str, Block]]:
        for path in files:
            with open_for_reading(path) as file:
                yield path.name.removesuffix(suffix), _READERS[suffix](_limited(file, str(path)), str(path))

    return _dataset(batches(), files)


def _from_archive(path: Path) -> Dataset:
    """The batches are read from the archive; nothing is extracted to the disk."""

    def batches() -> Iterator[tuple[str, Block]]:
        with open_for_reading(path) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                name = Path(member.name)
                suffix = ".bin" if name.suffix == ".bin" else ""
                batch = name.name.removesuffix(suffix)
                content = archive.extractfile(member) if member.isfile() and batch in _BATCHES else None
                if content is not None:
                    yield batch, _READERS[suffix](_limited(content, f"{path}: {batch}"), f"{path}: {batch}")

    try:
        return _dataset(batches(), [path])
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} cannot be read as a .tar.gz ({error}): damaged. Fetch it again.") from error
