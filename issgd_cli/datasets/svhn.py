"""Street View House Numbers, cropped digits (format 2): 32x32 RGB, ten classes; the paper's dataset.

`svhn` joins the official train and extra parts (73,257 + 531,131 = 604,388), as the original implementation did;
`svhn-train` leaves extra out. Test is the official one (26,032). The files' label 10 stands for the digit 0.

Source: Netzer et al. 2011, http://ufldl.stanford.edu/housenumbers/; for non-commercial use.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets import download, mat5
from issgd_cli.datasets.sources import (
    Block,
    Dataset,
    Part,
    Progress,
    Recipe,
    Request,
    described,
    identities,
    joined,
    refuse_size,
)
from issgd_cli.errors import DataError

# The site is slow at times: ISSGD_SVHN_URL names a mirror. The md5 sums are checked either way.
BASE_URL = os.environ.get("ISSGD_SVHN_URL", "http://ufldl.stanford.edu/housenumbers/")
SHAPE = (3, 32, 32)
CLASSES = 10

OFFICIAL: dict[str, tuple[int, str]] = {  # bytes, md5
    "train_32x32.mat": (182_040_794, "e26dedcc434d2e4c54c9b2d4a06d8373"),
    "extra_32x32.mat": (1_329_278_602, "a93ce644f1a588dc4d68dda5feec44a7"),
    "test_32x32.mat": (64_275_384, "eb5a983be6a315427106f1b164d9cef3"),
}


def with_extra(request: Request) -> Recipe:
    """SVHN with train and extra joined. From a folder without extra, train alone is taken and said so.

    Raises:
        DataError: The folder to read from lacks train or test; or `size` was given.
    """
    return _recipe("svhn", request, extra=True)


def without_extra(request: Request) -> Recipe:
    """SVHN without the extra part.

    Raises:
        DataError: As `with_extra`.
    """
    return _recipe("svhn-train", request, extra=False)


def part(path: Path) -> Part:
    """The examples of one official .mat file: X uint8 (32, 32, 3, N) and y (N, 1) in 1..10.

    Raises:
        DataError: Not such a file, or a damaged one. Damage within the pixels shows when the blocks are read.
    """
    arrays = mat5.variables(path)
    expected = "expected X, uint8 of shape (32, 32, 3, N), and y of shape (N, 1), as in the official SVHN files"
    if "X" not in arrays or "y" not in arrays:
        raise DataError(f"{path} holds {', '.join(sorted(arrays)) or 'no arrays'}; {expected}.")
    pixels, digits = arrays["X"], arrays["y"]
    if pixels.kind != "uint8" or len(pixels.shape) != 4 or pixels.shape[:3] != (32, 32, 3):
        raise DataError(f"{path} holds X, {pixels.kind} of shape {pixels.shape}; {expected}.")
    count = pixels.shape[3]
    if digits.shape not in ((count, 1), (1, count)):
        raise DataError(f"{path} holds y of shape {digits.shape} for {count} images; {expected}.")
    return Part(count, _blocks(pixels, _labels(digits)))


def _recipe(name: str, request: Request, extra: bool) -> Recipe:
    refuse_size(name, request)
    wanted = ["train_32x32.mat", *(["extra_32x32.mat"] if extra else []), "test_32x32.mat"]
    folder = request.source
    if folder is None:
        return Recipe(
            {"origin": "official", "files": wanted},
            lambda progress: _open([_fetched(file, request.downloads, progress) for file in wanted]),
        )
    files = {file: folder / file for file in wanted if (folder / file).is_file()}
    for file in ("train_32x32.mat", "test_32x32.mat"):
        if file not in files:
            raise DataError(
                f"{folder} holds no {file}. Name the folder that holds the official SVHN files, or leave out "
                f"`--from` to fetch them."
            )

    def open_files(progress: Progress) -> Dataset:
        if len(files) < len(wanted):
            progress(f"{folder} holds no extra_32x32.mat: {name} is made from train_32x32.mat alone", 0, 0)
        return _open(list(files.values()))

    return Recipe({"origin": "files", "files": identities(files.values())}, open_files)


def _fetched(file: str, downloads: Path, progress: Progress) -> Path:
    size, md5 = OFFICIAL[file]
    return download.fetch(BASE_URL.rstrip("/") + "/" + file, downloads / "svhn" / file, md5, progress, size=size)


def _open(files: list[Path]) -> Dataset:
    *train, test = files
    md5s = [md5 for _, md5 in OFFICIAL.values()]
    return Dataset(
        SHAPE,
        CLASSES,
        joined(*(part(path) for path in train)),
        part(test),
        lambda: [described(path, md5s) for path in files],
    )


def _labels(digits: mat5.Variable) -> NDArray[np.int64]:
    """y as labels, (N,): 10 becomes 0."""
    values: NDArray[Any] = np.concatenate(list(digits.blocks())).ravel()
    wrong = np.flatnonzero(~np.isin(values, np.arange(1, 11)))
    if len(wrong):
        raise DataError(
            f"{digits.path}: y[{wrong[0]}] is {values[wrong[0]]}; expected 1 to 10, as in the official SVHN files."
        )
    return values.astype(np.int64) % 10


def _blocks(pixels: mat5.Variable, labels: NDArray[np.int64]) -> Iterator[Block]:
    done = 0
    for block in pixels.blocks():  # (b, 3072): in a file, row is the fastest axis, then column, then channel
        images = block.reshape(-1, 3, 32, 32).transpose(0, 1, 3, 2)  # (b, channel, row, column)
        yield images.reshape(len(block), -1), labels[done : done + len(block)]
        done += len(block)
