"""Oxford's 102 flowers: photographs of many sizes, here of 64x64 RGB; 2,040 for train and valid, 6,149 for test.

The official train and valid parts are joined, and split as any other. Of each photograph the middle square is taken,
and made smaller.

Source: Nilsback and Zisserman 2008, https://www.robots.ox.ac.uk/~vgg/data/flowers/102/; no licence is stated, for
research.
"""

import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
    open_for_reading,
    refuse_size,
)
from issgd_cli.errors import DataError

BASE_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
SIDE = 64
SHAPE = (3, SIDE, SIDE)
CLASSES = 102
MOST = 100_000
VERSION = 1

ARCHIVE, LABELS, PARTS = OFFICIAL = "102flowers.tgz", "imagelabels.mat", "setid.mat"
SIZES = {ARCHIVE: 344_862_509}
MD5S = {
    ARCHIVE: "52808999861908f626f3c1f4e79d11fa",
    LABELS: "e0620be6f572b9609742df49c70aed4d",
    PARTS: "a5357ecc9cb78c4bef273ce3793fc85c",
}
_NAME = re.compile(r"image_(\d{5})\.jpg")


class Flowers(NamedTuple):
    """What the two .mat files say: the class of each photograph, (N,), and which are of train and test, from 0."""

    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    test: NDArray[np.int64]


def recipe(request: Request) -> Recipe:
    """The flowers, fetched, or read from a folder with the official files; the archive may be unpacked, as jpg/.

    Raises:
        DataError: The folder lacks a file; or `size` was given.
    """
    refuse_size("flowers-102", request)
    how = {"side": SIDE, "version": VERSION}
    if request.source is None:
        place = request.downloads / "flowers-102"

        def fetched(progress: Progress) -> Dataset:
            files = [
                download.fetch(BASE_URL + name, place / name, MD5S[name], progress, size=SIZES.get(name))
                for name in OFFICIAL
            ]
            return _opened(progress, *files)

        return Recipe({"origin": "official", "files": list(OFFICIAL), **how}, fetched)
    folder = request.source
    images = folder / "jpg" if (folder / "jpg").is_dir() else folder / ARCHIVE
    for path in (images, folder / LABELS, folder / PARTS):
        if not path.exists():
            raise DataError(
                f"{folder} holds no {path.name}. Name the folder that holds {', '.join(OFFICIAL)}, or leave out "
                "`--from` to fetch them."
            )
    files = [images, folder / LABELS, folder / PARTS]
    parameters = {"origin": "files", "files": identities(files), **how}
    return Recipe(parameters, lambda progress: _opened(progress, *files))


def flowers(labels: Path, parts: Path) -> Flowers:
    """What imagelabels.mat and setid.mat say.

    Raises:
        DataError: They are not such files, or do not belong together.
    """
    classes = _numbers(labels, "labels", CLASSES) - 1
    ids = {name: _numbers(parts, name, len(classes)) - 1 for name in ("trnid", "valid", "tstid")}
    train, test = np.concatenate([ids["trnid"], ids["valid"]]), ids["tstid"]
    if len(np.unique(np.concatenate([train, test]))) != len(train) + len(test):
        raise DataError(f"{parts} has a photograph in two parts. Fetch the file again.")
    return Flowers(classes, np.sort(train), np.sort(test))


def _numbers(path: Path, name: str, most: int) -> NDArray[np.int64]:
    """A row of whole numbers from 1 on, (N,)."""
    held = mat5.variables(path)
    if name not in held or len(held[name].shape) != 2 or held[name].shape[0] != 1 or held[name].shape[1] > MOST:
        raise DataError(f"{path} holds no row {name}, as the official file does. Fetch it again.")
    values: NDArray[Any] = np.concatenate([np.zeros((0, 1)), *held[name].blocks()]).ravel()
    if not ((values >= 1) & (values <= most) & (values == np.rint(values))).all():
        raise DataError(f"{path}: {name} are not whole numbers from 1 to {most}. Fetch the file again.")
    return values.astype(np.int64)


def _opened(progress: Progress, images: Path, labels: Path, parts: Path) -> Dataset:
    known = flowers(labels, parts)
    pixels = np.empty((len(known.labels), *SHAPE), np.uint8)  # 100 MB: the archive has them in an order of its own
    found = np.zeros(len(known.labels), bool)
    for number, name, content in _in_folder(images) if images.is_dir() else _in_archive(images):
        if not 0 <= number < len(found):
            raise DataError(f"{images} holds {name}, and {labels} has {len(found)} labels. Fetch both again.")
        pixels[number], found[number] = small(content, f"{images}: {name}"), True
        progress("reading flowers", int(found.sum()), len(found))
    wanted = np.concatenate([known.train, known.test])
    if (missing := wanted[~found[wanted]]).size:
        raise DataError(f"{images} lacks image_{missing[0] + 1:05}.jpg. Fetch it again.")

    def part(numbers: NDArray[np.int64]) -> Part:
        return Part(len(numbers), _blocks(pixels, known.labels, numbers))

    def sources() -> list[dict[str, Any]]:
        return [described(path, MD5S.values()) for path in (images, labels, parts) if path.is_file()]

    return Dataset(SHAPE, CLASSES, part(known.train), part(known.test), sources)


def small(content: bytes, what: str) -> NDArray[np.uint8]:
    """The middle square of a JPEG's picture, (3, 64, 64).

    Raises:
        DataError: It cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            side = min(image.size)
            left, top = ((length - side) // 2 for length in image.size)
            box = (left, top, left + side, top + side)
            return np.array(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX, box)).transpose(2, 0, 1)
    except Exception as error:  # Pillow's readers raise errors of every kind at what is damaged
        raise DataError(f"{what} cannot be read as a JPEG: {error}. Fetch it again.") from error


Photograph = tuple[int, str, bytes]  # its number from 0, its name, what the file holds


def _in_folder(folder: Path) -> Iterator[Photograph]:
    for path in sorted(folder.iterdir()):
        if name := _NAME.fullmatch(path.name):
            with open_for_reading(path) as file:
                yield int(name[1]) - 1, path.name, file.read()


def _in_archive(path: Path) -> Iterator[Photograph]:
    try:
        with open_for_reading(path) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                name = _NAME.fullmatch(member.name.rpartition("/")[2])
                if name and (content := archive.extractfile(member)) is not None:
                    yield int(name[1]) - 1, name[0], content.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} cannot be read as a .tgz ({error}): damaged. Fetch it again.") from error


def _blocks(pixels: NDArray[np.uint8], labels: NDArray[np.int64], numbers: NDArray[np.int64]) -> Iterator[Block]:
    for first in range(0, len(numbers), 512):
        rows = numbers[first : first + 512]
        yield pixels[rows].reshape(len(rows), -1), labels[rows]
