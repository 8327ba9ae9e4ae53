"""One picture as a regression: where a pixel lies, to its colour.

An example is a pixel: row and column, each from -1 to 1 over the picture, and red, green and blue, likewise. Neither is
standardised. What is to be learned is this picture: train and test are all of its pixels, valid a random sample of
them.

Source: Sitzmann et al. 2020, section 3.1, and Salaun et al. 2024 for what is done with it here. The picture is the
user's own, and its licence, too.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
from issgd_cli.datasets.writing import for_validation, valid_count
from issgd_cli.errors import DataError
from issgd_cli.randomness import generator

MOST_PIXELS = 2**24
VERSION = 1
MODES = ("L", "LA", "P", "PA", "RGB", "RGBA")  # Pillow's, of 8 bits a channel
_ROWS = 2**16


def recipe(request: Request) -> Recipe:
    """The picture of a file that Pillow can read, for instance a PNG or a JPEG.

    Raises:
        DataError: None was named; or `size` was given.
    """
    refuse_size("image", request)
    path = request.source
    if path is None or not path.is_file():
        found = "" if path is None else f"{path} is a folder. "
        raise DataError(f"{found}image is a picture of your own. Name its file: `issgd prepare image --from FILE.png`.")
    parameters = {"origin": "files", "files": identities([path]), "version": VERSION}
    return Recipe(parameters, lambda progress: _opened(path, request, progress))


def picture(path: Path) -> NDArray[np.uint8]:
    """The colours of a file's picture, (height, width, 3); grey is as much red, green and blue.

    Raises:
        DataError: No picture, a damaged one, or one that is too large.
    """
    from PIL import Image

    with open_for_reading(path) as file:
        try:
            with Image.open(file) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise DataError(f"{path} has {width * height:,} pixels. Make it {MOST_PIXELS:,} at most.")
                if image.mode not in MODES:
                    raise DataError(f"{path} has pixels of the kind {image.mode}. Save it as RGB of 8 bits a channel.")
                return np.array(image.convert("RGB"))
        except DataError:
            raise
        except Exception as error:  # Pillow's readers raise errors of every kind at what is damaged
            raise DataError(f"{path} cannot be read as a picture: {error}. Save it as PNG.") from error


def _opened(path: Path, request: Request, progress: Progress) -> Dataset:
    colours = picture(path)
    height, width, _ = colours.shape
    progress(f"{path.name}: a picture of {height} x {width} pixels", 0, 0)
    count = height * width
    total = total_for(count, request.validation_fraction)
    is_valid = for_validation(total, request.validation_fraction, request.split_seed)
    numbers = np.empty(total, np.int64)
    numbers[~is_valid] = np.arange(count)
    numbers[is_valid] = np.resize(generator(request.split_seed, "split", 2).permutation(count), total - count)
    return Dataset(
        (2,),
        3,
        Part(total, _blocks(colours, numbers)),
        Part(count, _blocks(colours, np.arange(count))),
        lambda: [described(path, ())],
        "float32",
        "numbers",
        standardise=False,
        others={"picture.json": (json.dumps({"height": height, "width": width}) + "\n").encode()},
    )


def total_for(count: int, validation_fraction: float) -> int:
    """The least number of examples of which so many are left when the validation's share is held out."""
    total = max(count, int(count / (1 - validation_fraction)) - 2)
    while total - valid_count(total, validation_fraction) < count:
        total += 1
    return total


def _blocks(colours: NDArray[np.uint8], numbers: NDArray[np.int64]) -> Iterator[Block]:
    """Pixels by their numbers, row by row."""
    height, width, channels = colours.shape
    for first in range(0, len(numbers), _ROWS):
        rows, columns = np.divmod(numbers[first : first + _ROWS], width)
        places = np.stack([2 * rows / max(1, height - 1) - 1, 2 * columns / max(1, width - 1) - 1], 1)  # (b, 2)
        values = colours.reshape(-1, channels)[numbers[first : first + _ROWS]] / 127.5 - 1  # (b, 3)
        yield places.astype(np.float32), values.astype(np.float32)
