"""A user's own data: a .npz file with inputs and targets, told apart by their names.

Inputs, (N, ...), are one of

- `inputs` or `images`: uint8 or floats, standardised feature by feature over the train part unless the file has a
  `standardise` that is false. Give images as (N, channels, height, width), (N, height, width) or (N, features).
- `points`: floats that stay as they are: their geometry is what is learned.
- `tokens`: integers from 0, which number the words of a vocabulary, padded to one length.

Targets are one of

- `labels`: integers from 0, classes, (N,) or (N, 1).
- `targets`: numbers to predict, (N,) or (N, K); given to the loss as they are, as float32.

`test_inputs` and `test_labels`, and so on, are optional; without them a seeded 10% is held out as test.
"""

import hashlib
import math
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets.contents import MOST_CLASSES, InputType
from issgd_cli.datasets.npz import Npz
from issgd_cli.datasets.sources import Block, Dataset, Part, Progress, Recipe, Request, described, open_for_reading
from issgd_cli.datasets.writing import TEST_FRACTION, for_test
from issgd_cli.errors import DataError

SUFFIX = ".npz"
INPUTS = ("inputs", "images", "points", "tokens")
TARGETS = ("labels", "targets")
_LONGEST = 200  # bytes of a stem; a file system takes 255 of a name, and ours gets a hash and more
_EXPECTED = (
    "expected `images` or `inputs`, uint8 or floats (N, ...), or `points`, or `tokens`; and `labels`, integers (N,), "
    "or `targets`, numbers (N, K); and optionally `test_images`, `test_labels` and the like"
)


def folder_name(path: Path) -> str:
    """The name of the data, and of their prepared folder: the file's stem and a short hash of its content.

    However the path is spelt and wherever the file lies, the name is the same. A process reads a file once for it.

    Raises:
        DataError: No such file, or a stem that cannot be a folder's name.
    """
    stem = unicodedata.normalize("NFC", path.stem)
    try:
        length = len(stem.encode())
    except UnicodeEncodeError:
        length = 0
    if not (0 < length <= _LONGEST and stem.isprintable()):
        raise DataError(
            f"{str(path)!r} cannot name its data: rename the file to at most {_LONGEST} bytes of printable letters "
            f"before {SUFFIX}."
        )
    with open_for_reading(path) as file:
        stat = os.fstat(file.fileno())
    return f"{stem}-{_short_hash(path.absolute(), stat.st_size, stat.st_mtime_ns)}"


@cache
def _short_hash(path: Path, size: int, modified_ns: int) -> str:
    """Of the file's content; size and time of change are those of the cached answer."""
    with open_for_reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def recipe(request: Request) -> Recipe:
    """The data of the .npz file that request.source names."""
    path = request.source
    if path is None:
        raise DataError("No .npz file was named. Give its path, for instance `issgd prepare mine.npz`.")
    if request.size is not None:
        raise DataError(f"`size` is for generated data; {path} has the size it has. Leave it out.")
    parameters = {"origin": "npz", "folder": folder_name(path), "test_fraction": TEST_FRACTION}
    return Recipe(parameters, lambda progress: dataset(path, request.split_seed, progress))


@dataclass(frozen=True)
class _Held:
    """Examples that the file holds: inputs by their array's name, and all of their targets."""

    file: Npz
    name: str
    shape: tuple[int, ...]
    inputs: InputType
    targets: NDArray[Any]

    @classmethod
    def of(cls, file: Npz, name: str, of_targets: str) -> "_Held":
        shape, count, inputs = _inputs(file, name)
        return cls(file, name, shape, inputs, _targets(file, of_targets, count))

    def part(self, wanted: NDArray[np.bool_] | None = None) -> Part:
        """The wanted ones, (count,), as a stream; None: all."""
        wanted = np.ones(len(self.targets), bool) if wanted is None else wanted
        return Part(int(wanted.sum()), self._blocks(wanted))

    def _blocks(self, wanted: NDArray[np.bool_]) -> Iterator[Block]:
        first = 0
        for block in self.file.blocks(self.name):
            rows = slice(first, first + len(block))
            numbers = _finite(self.file, self.name, block, first) if self.inputs == "float32" else block
            yield numbers[wanted[rows]].astype(self.inputs), self.targets[rows][wanted[rows]]
            first = rows.stop


def dataset(path: Path, split_seed: int, progress: Progress) -> Dataset:
    """What the file holds; inputs are streamed from it, never held whole.

    Raises:
        DataError: Not a .npz file, or arrays missing, of the wrong type, or that do not belong together.
    """
    file = Npz(path, _EXPECTED)
    names = file.names()
    name, of_targets = _only(file, names, INPUTS), _only(file, names, TARGETS)
    held = _Held.of(file, name, of_targets)
    shape, inputs, targets = held.shape, held.inputs, held.targets
    if f"test_{name}" in names:
        others = _Held.of(file, f"test_{name}", f"test_{of_targets}")
        if (others.shape, others.inputs) != (shape, inputs):
            raise DataError(
                f"{path}: {name} are {inputs} of shape {shape}, test_{name} {others.inputs} of {others.shape}. "
                "Make them the same."
            )
        if others.targets.shape[1:] != targets.shape[1:]:
            raise DataError(f"{path}: {of_targets} and test_{of_targets} are not of one length. Make them the same.")
        train, test, targets = held.part(), others.part(), np.concatenate([targets, others.targets])
    else:
        held_out, count = for_test(len(targets), split_seed), len(targets)
        progress(f"{path.name} has no test_{name}: {held_out.sum()} of its {count} examples are held out as test", 0, 0)
        train, test = held.part(~held_out), held.part(held_out)
    tokens = _tokens(file, [each for each in (name, f"test_{name}") if each in names]) if inputs == "int32" else 0
    are_classes = of_targets == "labels"
    outputs = int(targets.max(initial=0)) + 1 if are_classes else targets.shape[1]
    learned = f"{len(np.unique(targets))} classes" if are_classes else f"{outputs} numbers to predict"
    progress(f"{path.name}: inputs of shape {shape}, {f'{tokens} tokens' if tokens else inputs}; {learned}", 0, 0)
    return Dataset(
        shape,
        outputs,
        train,
        test,
        lambda: [described(path, ())],
        inputs,
        "classes" if are_classes else "numbers",
        tokens,
        standardise=name != "points" and ("standardise" not in names or _flag(file, "standardise")),
    )


def _only(file: Npz, held: list[str], names: tuple[str, ...]) -> str:
    """The one of these names that the file holds."""
    found = [name for name in names if name in held]
    if not found:
        *others, last = (f"`{name}`" for name in names)
        raise DataError(
            f"{file.path} holds {', '.join(held) or 'nothing'}, but no {', '.join(others)} or {last}; {file.expected}."
        )
    if len(found) > 1:
        raise DataError(f"{file.path} holds {' and '.join(found)}, where one is expected. Leave the other out.")
    return found[0]


def _inputs(file: Npz, name: str) -> tuple[tuple[int, ...], int, InputType]:
    """Shape of one example, how many there are, and as what they are prepared."""
    header = file.header(name)
    (shape, _, dtype), kind = header, name.removeprefix("test_")
    if kind == "tokens":
        fits, remedy = np.issubdtype(dtype, np.integer), "Tokens are integers from 0, (N, length)."
    else:
        fits = np.issubdtype(dtype, np.floating) or (dtype == np.uint8 and kind != "points")
        remedy = f"Save {name}.astype(np.float32), or call them `tokens` if they number words."
    if not fits or len(shape) < 2 or math.prod(shape) == 0:
        raise DataError(f"{file.path}: `{name}` is {header}; {file.expected}. {remedy}")
    if kind == "tokens":
        return shape[1:], shape[0], "int32"
    return shape[1:], shape[0], "uint8" if dtype == np.uint8 else "float32"


def _targets(file: Npz, name: str, count: int) -> NDArray[Any]:
    """Labels, int64, (count,), or numbers, float32, (count, K)."""
    header = file.header(name)
    (shape, _, dtype), are_labels = header, name.endswith("labels")
    kinds = (np.integer,) if are_labels else (np.integer, np.floating, np.bool_)
    shapes = ((count,), (count, 1)) if are_labels else ((count,), (count, *shape[1:2]))
    if not any(np.issubdtype(dtype, kind) for kind in kinds) or shape not in shapes or 0 in shape:
        remedy = "Give one to each example."
        if shape in shapes and are_labels:
            remedy = (
                "Call numbers to predict `targets`; number classes from 0, for instance by "
                f"np.unique({name}, return_inverse=True)[1]."
            )
        raise DataError(f"{file.path}: `{name}` is {header}, for {count} examples; {file.expected}. {remedy}")
    values = file.whole(name)
    if not are_labels:
        return _finite(file, name, values.reshape(count, -1), 0)
    labels = values.reshape(count).astype(np.int64)
    if (wrong := np.flatnonzero((labels < 0) | (labels >= MOST_CLASSES) | (labels != values.reshape(count)))).size:
        raise DataError(
            f"{file.path}: `{name}`[{wrong[0]}] is {values.reshape(count)[wrong[0]]}. Number the classes from 0, to "
            f"{MOST_CLASSES - 1} at most."
        )
    return labels


def _tokens(file: Npz, names: list[str]) -> int:
    """One more than the largest; a pass over the file."""
    largest, done = 0, 0
    for name in names:
        for block in file.blocks(name):
            if (wrong := np.argwhere((block < 0) | (block >= 2**31 - 1))).size:
                row, column = wrong[0]
                raise DataError(
                    f"{file.path}: `{name}`[{done + row}] holds {block[row, column]}. Number the words from 0."
                )
            largest, done = max(largest, int(block.max())), done + len(block)
        done = 0
    return largest + 1


def _flag(file: Npz, name: str) -> bool:
    header = file.header(name)
    if header.shape != () or header.dtype != np.bool_:
        raise DataError(f"{file.path}: `{name}` is {header}, where one true or false is expected.")
    return bool(file.whole(name))


def _finite(file: Npz, name: str, values: NDArray[Any], first: int) -> NDArray[np.float32]:
    """As float32; `first`: the first one's number."""
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        row, column = np.argwhere(~np.isfinite(numbers))[0]
        raise DataError(
            f"{file.path}: `{name}`[{first + row}] holds {values[row, column]}, which is not finite in float32. Leave "
            "out such examples, or put a number in its place."
        )
    return numbers
