"""Datasets: bring one onto the disk once (`prepare`), then memory-map it from every process (`load`).

A new dataset is a new file with a function from a Request to a Recipe, and its line in DATASETS.
"""

import difflib
import json
import re
from collections.abc import Callable
from pathlib import Path

from issgd_cli.datasets import (
    cifar,
    cifar10n,
    flowers,
    house_numbers,
    image,
    mnist,
    modelnet,
    polynomial,
    prepared,
    sentences,
    svhn,
    toy,
    user,
    writing,
)
from issgd_cli.datasets.alterations import altered
from issgd_cli.datasets.classes import empty_classes
from issgd_cli.datasets.prepared import Prepared, Split
from issgd_cli.datasets.sources import Progress, Recipe, Request, silent
from issgd_cli.errors import DataError

__all__ = ["DATASETS", "NAMES", "Prepared", "Progress", "Split", "directory_of", "is_file", "load", "own", "prepare"]

DATASETS: dict[str, Callable[[Request], Recipe]] = {
    "svhn": svhn.with_extra,
    "svhn-train": svhn.without_extra,
    "cifar10": cifar.CIFAR10.recipe,
    "cifar100": cifar.CIFAR100.recipe,
    **{f"cifar10n-{kind}": cifar10n.recipe_of(kind) for kind in cifar10n.KINDS},
    "flowers-102": flowers.recipe,
    "mnist": mnist.MNIST.recipe,
    "fashion-mnist": mnist.FASHION_MNIST.recipe,
    "house-numbers": house_numbers.recipe,
    "trec": sentences.trec,
    "sst2": sentences.sst2,
    "mr": sentences.mr,
    "modelnet40": modelnet.modelnet40,
    "modelnet10": modelnet.modelnet10,
    "polynomial": polynomial.recipe,
    "toy": toy.recipe,
    "image": image.recipe,
}
NAMES = tuple(DATASETS)

_OWN = re.compile(r".+-[0-9a-f]{8}", re.DOTALL)


def prepare(
    name: str,
    data_dir: Path,
    *,
    source: Path | None = None,
    size: int | None = None,
    validation_fraction: float = 0.05,
    split_seed: int = 42,
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Bring a dataset onto the disk in the prepared format, and say where it is.

    Does nothing when it is there already, made with the same parameters; makes it again when they differ.

    Args:
        name: One of NAMES, or the path of a .npz file (see `datasets.user`), or what such a file's data are called.
        data_dir: Folder of all datasets.
        source: Folder (or archive) with the official files; None downloads them.
        size: Train and valid examples together, for data that are made on the spot only.
        validation_fraction: Share of the train part held out for validation.
        split_seed: Seed of the split and of the stored orders.
        force: Make it again in any case.
        progress: Called with (message, done, total); total 0 for a notice.

    Raises:
        DataError: Unknown name, unusable files, no network, full disk. What was prepared before is then untouched.
    """
    writing.valid_count(0, validation_fraction)
    if split_seed < 0:
        raise DataError(f"split_seed is {split_seed}. Set it to 0 or above.")
    if source is not None and not source.exists():
        raise DataError(f"{source}, named by `--from`, does not exist. Check the path.")
    make = DATASETS.get(name)
    if is_file(name) and source is not None:
        raise DataError(
            f"`--from` is for the official files of {', '.join(NAMES)}; {name} is a file itself. Leave it out."
        )
    directory = directory_of(name, data_dir)
    if make is None:
        if not is_file(name):
            held = prepared.read_meta(directory)
            if not force and (held["validation_fraction"], held["split_seed"]) == (validation_fraction, split_seed):
                return directory
            raise DataError(
                f"{name} was prepared of a file. To prepare it again, name the file: `issgd prepare FILE.npz`."
            )
        make, source = user.recipe, Path(name)
    recipe = make(Request(source, data_dir / "downloads", size, split_seed, validation_fraction))
    parameters = {**recipe.parameters, "validation_fraction": validation_fraction, "split_seed": split_seed}
    if not force and _already(directory, parameters):
        return directory
    with writing.exclusive(directory, progress):
        if not force and _already(directory, parameters, progress):  # another process may have made it meanwhile
            return directory
        writing.write(
            directory,
            directory.name,
            recipe.open(progress),
            parameters,
            validation_fraction=validation_fraction,
            split_seed=split_seed,
            progress=progress,
        )
        for notice in empty_classes(prepared.load(directory)):
            progress(f"{Path(name).name}: {notice}", 0, 0)
    return directory


def load(
    name: str,
    data_dir: Path,
    train_size: int | None = None,
    *,
    validation_fraction: float | None = None,
    split_seed: int | None = None,
    label_noise: float = 0.0,
    imbalance: float = 1.0,
) -> Prepared:
    """A prepared dataset, memory-mapped. A .npz file is prepared on its first use; others by `issgd prepare`.

    Args:
        name: One of NAMES, or the path of a .npz file, or what such a file's data are called.
        data_dir: Folder of all datasets.
        train_size: Use only the first so many train examples.
        validation_fraction: If given, what the data must have been prepared with.
        split_seed: Likewise.
        label_noise, imbalance: See `alterations`; of the train examples that train_size leaves.

    Raises:
        DataError: Unknown name, not prepared, damaged, or prepared with another split; or not to be altered so.
    """
    directory = directory_of(name, data_dir)
    if is_file(name) and not directory.is_dir():
        given = {"validation_fraction": validation_fraction, "split_seed": split_seed}
        prepare(name, data_dir, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    meta = prepared.read_meta(directory)
    for key, wanted in (("validation_fraction", validation_fraction), ("split_seed", split_seed)):
        if wanted is not None and meta.get(key) != wanted:
            raise DataError(
                f"{directory} was prepared with {key} = {meta[key]}, but {wanted} is asked for. "
                f"Set data.{key} = {meta[key]}, or delete the folder and prepare {name} again with {wanted}."
            )
    data = prepared.load(directory, train_size)
    return altered(data, meta["split_seed"], label_noise=label_noise, imbalance=imbalance)


def directory_of(name: str, data_dir: Path) -> Path:
    """Where a dataset is, or will be, prepared: always a folder of data_dir itself.

    Args:
        name: One of NAMES, or the path of a .npz file, or what such a file's data are called.
        data_dir: Folder of all datasets.

    Raises:
        DataError: Neither a known name nor a .npz file that exists; says which were nearest.
    """
    if name in DATASETS:
        return data_dir / name
    mine = own(data_dir)
    if is_file(name):
        path = Path(name)
        try:
            return data_dir / user.folder_name(path)
        except DataError as error:
            known = [folder for folder in mine if folder.rpartition("-")[0] == path.stem]
            if not known or path.exists():
                raise
            there = " or ".join(f"`{folder}`" for folder in known)
            raise DataError(
                f"{error} What was prepared of such a file is still there: write {there} in its place."
            ) from None
    if name in mine:
        return data_dir / name
    nearest = difflib.get_close_matches(name, (*NAMES, *mine), n=1, cutoff=0.4)
    hint = f"Did you mean {nearest[0]}? " if nearest else ""
    if _OWN.fullmatch(name):
        hint += f"What was prepared of a file can be copied to {data_dir} from where it is. "
    raise DataError(
        f"No dataset is called {name!r}. {hint}Known are {', '.join((*NAMES, *mine))}, and files that end in "
        f"{user.SUFFIX}."
    )


def is_file(name: str) -> bool:
    """Whether a dataset's name is the path of a user's own file; what is prepared of it is called otherwise."""
    return name.endswith(user.SUFFIX)


def own(data_dir: Path) -> list[str]:
    """What was prepared of users' own files in a folder, by name."""
    try:
        names = sorted(entry.name for entry in data_dir.iterdir() if _OWN.fullmatch(entry.name))
    except OSError:
        return []
    return [name for name in names if _is_own(data_dir / name)]


def _is_own(directory: Path) -> bool:
    """Whether the folder says that it was prepared of a file, under the name that it has; or cannot say it any more."""
    try:
        parameters = prepared.read_meta(directory)["parameters"]
    except DataError:
        return directory.is_dir()  # whoever uses it is told what is wrong with it
    return (parameters.get("origin"), parameters.get("folder")) == ("npz", directory.name)


def _already(directory: Path, parameters: dict[str, object], progress: Progress = silent) -> bool:
    """Whether the folder holds what these parameters make, whole and readable."""
    if not directory.is_dir():
        return False
    try:
        same = bool(prepared.read_meta(directory)["parameters"] == json.loads(json.dumps(parameters)))
        if same:
            prepared.load(directory)
    except DataError as error:
        progress(f"making {directory.name} again: {error}", 0, 0)
        return False
    if not same:
        progress(f"{directory} was prepared otherwise; making it again", 0, 0)
    return same
