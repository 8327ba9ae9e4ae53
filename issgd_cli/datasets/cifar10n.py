"""CIFAR-10N: CIFAR-10, its training images as people have labelled them, who were sometimes wrong.

Each image was labelled by three people: `random1`, `random2` and `random3` are one of them each (17-18% wrong), `aggre`
is what most of them said (9%), `worse` a wrong label wherever one of them gave one (40%). Only what is left for
training after the split has these labels; valid and test keep the true ones, by which a run is judged.

Source: Wei et al. 2022, http://www.noisylabels.com; CC BY-NC 4.0. Its file is torch's, a pickle, which is walked here
without running anything it says.
"""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets import download, pickles
from issgd_cli.datasets.cifar import CIFAR10
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
from issgd_cli.datasets.writing import for_validation
from issgd_cli.errors import DataError

KINDS = {
    "aggre": "aggre_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
    "worse": "worse_label",
}
TRUE = "clean_label"

URL = "http://www.yliuu.com/web-cifarN/files/"
ARCHIVE, SIZE, MD5 = "CIFAR-N-1.zip", 438_874, "666bf3cff3a944c245f2b6f62af4b919"
WITHIN, MD5_WITHIN = "CIFAR-10_human.pt", "96644db5574813cae939af5f7f2a0aec"
FILES = (WITHIN, f"CIFAR-N/{WITHIN}", ARCHIVE, "CIFAR-N.zip")
_MOST_BYTES = 16 * 2**20


def recipe_of(kind: str) -> Callable[[Request], Recipe]:
    """What makes CIFAR-10 with these labels, one of KINDS; fetched, or from a folder with the files of both."""

    def recipe(request: Request) -> Recipe:
        refuse_size(f"cifar10n-{kind}", request)
        source = request.source
        if source is None:
            names = [next(iter(CIFAR10.official)), ARCHIVE]
            place = request.downloads / "cifar10n" / ARCHIVE

            def fetched(progress: Progress) -> Dataset:
                labels = download.fetch(URL + ARCHIVE, place, MD5, progress, size=SIZE)
                return _relabelled(CIFAR10.read(CIFAR10.fetched(request.downloads, progress)), labels, kind, request)

            return Recipe({"origin": "official", "files": names, "labels": kind}, fetched)
        images = CIFAR10.found(source)
        folder = source if source.is_dir() else source.parent
        path = next((folder / name for name in FILES if (folder / name).is_file()), None)
        if path is None:
            raise DataError(
                f"{folder} holds neither {WITHIN} nor {ARCHIVE}. Put one beside CIFAR-10's files; they are to be had "
                "at http://www.noisylabels.com. Or leave out `--from` to fetch both."
            )
        parameters = {"origin": "files", "files": identities([*images.files, path]), "labels": kind}
        return Recipe(parameters, lambda progress: _relabelled(CIFAR10.read(images), path, kind, request))

    return recipe


def labels_of(path: Path, kind: str) -> NDArray[np.int64]:
    """Everybody's labels of one kind, one of KINDS' values or TRUE, from the .pt file or the archive that holds it.

    Raises:
        DataError: Not such a file, or a damaged one.
    """
    try:
        with open_for_reading(path) as file:
            content = file.read(_MOST_BYTES)
        if not _members(content, "data.pkl"):
            content = _member(content, WITHIN)
        labels = pickles.array(pickles.held(_member(content, "data.pkl"))[kind])
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not CIFAR-10N's file of labels, or a damaged one ({error}). Fetch it again."
        ) from error
    if labels.ndim != 1 or labels.dtype != np.int64 or not ((labels >= 0) & (labels < CIFAR10.classes)).all():
        raise DataError(f"{path}: {kind} are not labels from 0 to {CIFAR10.classes - 1}. Fetch it again.")
    return labels


def _members(archive: bytes, name: str) -> list[zipfile.ZipInfo]:
    """Those of this name, in whatever folder of an archive; not what macOS packs beside them."""
    with zipfile.ZipFile(io.BytesIO(archive)) as held:
        return [each for each in held.infolist() if each.filename.split("/")[-1] == name and each.file_size]


def _member(archive: bytes, name: str) -> bytes:
    """The content of the one of this name."""
    members = _members(archive, name)
    if len(members) != 1 or members[0].file_size > _MOST_BYTES:
        raise ValueError(f"it holds no {name} of the right size")
    with zipfile.ZipFile(io.BytesIO(archive)) as held:
        return held.read(members[0])


def _relabelled(data: Dataset, path: Path, kind: str, request: Request) -> Dataset:
    true, given = labels_of(path, TRUE), labels_of(path, KINDS[kind])
    count = data.train.count
    if not len(true) == len(given) == count:
        raise DataError(f"{path} holds {len(true):,} labels for {count:,} training images. Use CIFAR-10's own.")
    is_valid = for_validation(count, request.validation_fraction, request.split_seed)
    train = Part(count, _blocks(data.train, path, true, np.where(is_valid, true, given)))

    def sources() -> list[dict[str, Any]]:
        return [*data.sources(), described(path, (MD5, MD5_WITHIN))]

    return replace(data, train=train, sources=sources)


def _blocks(part: Part, path: Path, true: NDArray[np.int64], given: NDArray[np.int64]) -> Iterator[Block]:
    done = 0
    for images, labels in part.blocks:
        rows = slice(done, done + len(labels))
        if (wrong := np.flatnonzero(true[rows] != labels)).size:
            raise DataError(
                f"{path}: image {done + wrong[0]} has the true label {true[rows][wrong[0]]}, and {labels[wrong[0]]} in "
                "CIFAR-10: these labels are of other images, or in another order. Fetch both again."
            )
        yield images, given[rows]
        done = rows.stop
