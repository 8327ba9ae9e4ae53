"""What the examples of a dataset are, and in which files prepared data hold them: formats 1 and 2.

A folder holds, for each of train, valid and test, the inputs, (n, features) in the order of their shape, and the
targets; `mean.npy` and `std.npy` (float32, (features,), over the train part); and `meta.json`.

Format 1 is for uint8 inputs in at most 256 classes: `<split>-images.npy` and `<split>-labels.npy` (uint8, (n,)).
Format 2 is for all others: `<split>-inputs.npy` (uint8, float32, or int32 tokens) and `<split>-targets.npy` (int32,
(n,), class numbers; or float32, (n, K)), and whatever belongs to them, such as a vocabulary. What format 1 can hold is
written in it, so that a dataset's fingerprint does not depend on the version that has prepared it.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
InputType = Literal["uint8", "float32", "int32"]
TargetType = Literal["classes", "numbers"]

MOST_CLASSES = 65_536
_MOST = 2**31  # of all other numbers: features, tokens, outputs
# Number -> what the files of inputs and of targets are called, and the most classes.
FORMATS = {1: ("images", "labels", 256), 2: ("inputs", "targets", MOST_CLASSES)}


@dataclass(frozen=True)
class Contents:
    """What the examples of a dataset are: all that a network and a loss must know of them.

    Attributes:
        shape: Of one example's inputs, for instance (3, 32, 32): channels, height, width.
        outputs: That a network gives for them: the number of classes, or K, the length of a vector of targets.
        inputs: Type of the inputs; int32 are tokens, which number the words of a vocabulary.
        targets: "classes", numbered 0..outputs - 1, or "numbers", float32 vectors of length K.
        tokens: These lie in 0..tokens - 1; 0: inputs are none.
        others: Names of the files that belong to the data besides the arrays.
    """

    shape: tuple[int, ...]
    outputs: int
    inputs: InputType = "uint8"
    targets: TargetType = "classes"
    tokens: int = 0
    others: tuple[str, ...] = ()

    @property
    def format(self) -> int:
        """1 where that can hold it, else 2."""
        plain = (self.inputs, self.targets, self.others) == ("uint8", "classes", ()) and self.outputs <= FORMATS[1][2]
        return 1 if plain else 2

    @property
    def features(self) -> int:
        """Numbers in one example's inputs: the product of their shape."""
        return math.prod(self.shape)

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Of the inputs' files, little-endian."""
        return np.dtype(self.inputs).newbyteorder("<")

    @property
    def target_dtype(self) -> np.dtype[Any]:
        """Of the targets' files, little-endian."""
        if self.targets == "numbers":
            return np.dtype("<f4")
        return np.dtype(np.uint8 if self.format == 1 else "<i4")

    def targets_shape(self, count: int) -> tuple[int, ...]:
        """Of the targets of so many examples."""
        return (count, self.outputs) if self.targets == "numbers" else (count,)

    def files_of(self, split: SplitName) -> tuple[str, str]:
        """Names of the files of a split's inputs and targets."""
        inputs, targets, _ = FORMATS[self.format]
        return f"{split}-{inputs}.npy", f"{split}-{targets}.npy"

    @property
    def files(self) -> tuple[str, ...]:
        """All but meta.json, in the fingerprint's order."""
        return (*(name for split in SPLITS for name in self.files_of(split)), "mean.npy", "std.npy", *self.others)

    def heading(self) -> bytes:
        """What a fingerprint begins with: all that a run can see of the data beside the files."""
        if self.format == 1:
            return json.dumps([1, list(self.shape), self.outputs]).encode()
        return json.dumps([2, self.described()], sort_keys=True).encode()

    def described(self) -> dict[str, Any]:
        """Its entries in meta.json."""
        if self.format == 1:
            return {"classes": self.outputs, "shape": list(self.shape)}
        return {
            "shape": list(self.shape),
            "inputs": self.inputs,
            "targets": self.targets,
            "classes" if self.targets == "classes" else "outputs": self.outputs,
            **({"tokens": self.tokens} if self.tokens else {}),
            "others": list(self.others),
        }


def contents_of(meta: Mapping[str, Any]) -> Contents | None:
    """What meta.json says of a folder's contents, by its `format`; None where that lacks a key or makes no sense."""
    form: Any = meta.get("format")
    shape: Any = meta.get("shape")
    whole = form in [*FORMATS] and isinstance(shape, list) and all(map(_is_count, shape))
    if not whole or math.prod(shape) > _MOST:
        return None
    described: dict[str, Any] = {"inputs": "uint8", "targets": "classes", "tokens": 0, "others": []}
    if form == 2:
        described |= {key: meta[key] for key in described if key in meta}
    inputs, targets, tokens, others = described.values()
    outputs: Any = meta.get("classes" if targets == "classes" else "outputs")
    fits = (
        inputs in get_args(InputType)
        and targets in get_args(TargetType)
        and (_is_count(tokens) if inputs == "int32" else tokens == 0)
        and isinstance(others, list)
        and all(isinstance(name, str) and re.fullmatch(r"[a-z]+\.[a-z]+", name) for name in others)
        and _is_count(outputs)
        and (targets == "numbers" or outputs <= FORMATS[form][2])
    )
    if not fits:
        return None
    contents = Contents(tuple(shape), outputs, inputs, targets, tokens, tuple(others))
    return contents if contents.format == form else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 < value <= _MOST
