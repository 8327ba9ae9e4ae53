"""ModelNet40 and ModelNet10: shapes of things, as clouds of 1,024 points.

- modelnet40: 9,843 for train and valid, 2,468 for test, 40 classes; from `modelnet40_normal_resampled`, as PointNet++'s
  authors have drawn points from the shapes (Qi et al. 2017): a line a point, of which the first 1,024 are taken.
- modelnet10: 3,991 and 908, 10 classes. From the same (which lists them, too); from the shapes themselves, ModelNet10's
  OFF files, on whose surface points are drawn; or from modelnet10.npz, voxels of 30 a side, `X_train`, `y_train`,
  `X_test`, `y_test`, in whose surface they are drawn; shapes without a voxel are left out.

Clouds are centred and scaled to the unit ball, and stay so.

Source: Wu et al. 2015, https://modelnet.cs.princeton.edu; for academic research.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets import clouds, download
from issgd_cli.datasets.clouds import POINTS, Cloud
from issgd_cli.datasets.npz import Npz
from issgd_cli.datasets.packed import Folder
from issgd_cli.datasets.sources import (
    Block,
    Dataset,
    Part,
    Progress,
    Recipe,
    Request,
    described,
    identities,
    refuse_size,
)
from issgd_cli.errors import DataError

RESAMPLED = "modelnet40_normal_resampled"
RESAMPLED_URL = f"https://shapenet.cs.stanford.edu/media/{RESAMPLED}.zip"
MESHES, MESHES_SIZE = "ModelNet10", 473_402_300
MESHES_URL = "http://3dvision.princeton.edu/projects/2014/3DShapeNets/ModelNet10.zip"
VOXELS = "modelnet10.npz"
NAMES_10 = ("bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet")

SEED = 10
VERSION = 1
_SHAPE = re.compile(r"([a-z_]+)_\d{1,6}")
_BLOCK = 64


class Shape(NamedTuple):
    """One of them: its class, and the name of its file."""

    label: int
    file: str


Reader = Callable[[Folder, Shape], Cloud]


def modelnet40(request: Request) -> Recipe:
    """ModelNet40 from `modelnet40_normal_resampled`, a folder or its .zip.

    Raises:
        DataError: None was named, or there is none; or `size` was given.
    """
    refuse_size("modelnet40", request)
    if request.source is None:
        raise DataError(
            f"modelnet40 is not fetched, for its archive's md5 is not known. Get {RESAMPLED_URL} (1.6 GB), and name it "
            "by `--from`."
        )
    return _of_text(_found(request.source, RESAMPLED, f"Get {RESAMPLED_URL}."), "modelnet40")


def modelnet10(request: Request) -> Recipe:
    """ModelNet10, fetched, or from a folder, or an archive, of one of its three forms.

    Raises:
        DataError: There is none of them; or `size` was given.
    """
    refuse_size("modelnet10", request)
    source = request.source
    if source is None:
        path = request.downloads / "modelnet10" / f"{MESHES}.zip"

        def fetched(progress: Progress) -> Dataset:
            download.fetch(MESHES_URL, path, None, progress, size=MESHES_SIZE)
            return _of_meshes(Folder.of(path, MESHES))

        return Recipe({"origin": "official", "files": [path.name], **_how()}, fetched)
    voxels = source / VOXELS if source.is_dir() else source
    if voxels.is_file() and voxels.suffix == ".npz":
        return _recipe([voxels], lambda: _of_voxels(voxels))
    if Folder.holds(source, RESAMPLED):
        return _of_text(Folder.of(source, RESAMPLED), "modelnet10")
    folder = _found(source, MESHES, f"Name a folder that holds {MESHES}, {RESAMPLED} or {VOXELS}.")
    return _recipe([folder.path], lambda: _of_meshes(folder))


def _how() -> dict[str, int]:
    return {"points": POINTS, "seed": SEED, "version": VERSION}


def _recipe(files: list[Path], opened: Callable[[], Dataset]) -> Recipe:
    return Recipe({"origin": "files", "files": identities(files), **_how()}, lambda _: opened())


def _found(source: Path, name: str, remedy: str) -> Folder:
    if not Folder.holds(source, name):
        raise DataError(f"{source} holds neither {name} nor {name}.zip. {remedy}")
    return Folder.of(source, name)


# Of lines of points


def _of_text(folder: Folder, name: str) -> Recipe:
    def opened() -> Dataset:
        with folder:
            classes = folder.words(f"{name}_shape_names.txt")
            train, test = (_listed(folder, f"{name}_{part}.txt", classes) for part in ("train", "test"))
        return _dataset(folder, len(classes), train, test, _read_text)

    return _recipe([folder.path], opened)


def _listed(folder: Folder, file: str, classes: list[str]) -> list[Shape]:
    shapes = []
    for shape in folder.words(file):
        name = _SHAPE.fullmatch(shape)
        if name is None or name[1] not in classes:
            raise DataError(f"{folder.path}: {file} lists {shape[:40]!r}, which is of no class. Fetch it again.")
        shapes.append(Shape(classes.index(name[1]), f"{name[1]}/{shape}.txt"))
    return shapes


def _read_text(folder: Folder, shape: Shape) -> Cloud:
    return clouds.of_text(folder.lines(shape.file, POINTS))


# Of meshes


def _of_meshes(folder: Folder) -> Dataset:
    parts: dict[str, list[Shape]] = {"train": [], "test": []}
    with folder:
        files = folder.files(".off")
    for file in files:
        name, _, rest = file.partition("/")
        part = rest.partition("/")[0]
        if name in NAMES_10 and part in parts:
            parts[part].append(Shape(NAMES_10.index(name), file))
    return _dataset(folder, len(NAMES_10), parts["train"], parts["test"], _read_mesh)


def _read_mesh(folder: Folder, shape: Shape) -> Cloud:
    """Its points are its own, whatever stands beside it: its name is part of their seed."""
    random = np.random.default_rng([SEED, zlib.crc32(shape.file.encode())])
    return clouds.of_mesh(clouds.mesh_of(folder.content(shape.file)), random)


# Of either


def _dataset(folder: Folder, classes: int, train: list[Shape], test: list[Shape], read: Reader) -> Dataset:
    if not train or not test:
        raise DataError(f"{folder.path} holds no shapes for {'test' if train else 'train'}. Fetch it again.")
    sources = [{"file": folder.path.name, "shapes": len(train) + len(test)}]
    first, second = (Part(len(shapes), _blocks(folder, shapes, read)) for shapes in (train, test))
    return Dataset((POINTS, 3), classes, first, second, lambda: sources, "float32", standardise=False)


def _blocks(folder: Folder, shapes: list[Shape], read: Reader) -> Iterator[Block]:
    with folder:
        for first in range(0, len(shapes), _BLOCK):
            some = shapes[first : first + _BLOCK]
            found = np.array([_cloud(folder, shape, read).ravel() for shape in some])
            yield found, np.array([shape.label for shape in some], np.int64)


def _cloud(folder: Folder, shape: Shape, read: Reader) -> Cloud:
    try:
        return read(folder, shape)
    except (ValueError, IndexError) as error:
        raise DataError(f"{folder.path}: {shape.file} is no shape as it should be: {error}. Fetch it again.") from error


# Of voxels


def _of_voxels(path: Path) -> Dataset:
    file = Npz(path, "expected X_train, y_train, X_test and y_test: voxels, (N, 30, 30, 30), and labels, (N,)")
    train, test = (_voxels(file, part) for part in ("train", "test"))
    return Dataset((POINTS, 3), len(NAMES_10), train, test, lambda: [described(path, ())], "float32", standardise=False)


def _voxels(file: Npz, part: str) -> Part:
    solids, given = file.header(f"X_{part}"), file.header(f"y_{part}")
    whole = np.issubdtype(given.dtype, np.integer) and solids.dtype.kind in "biu"
    if not whole or len(solids.shape) != 4 or 0 in solids.shape or given.shape != solids.shape[:1]:
        raise DataError(f"{file.path}: X_{part} is {solids}, y_{part} {given}; {file.expected}.")
    labels = file.whole(f"y_{part}").astype(np.int64)
    if not ((labels >= 0) & (labels < len(NAMES_10))).all():
        raise DataError(f"{file.path}: y_{part} are not labels from 0 to {len(NAMES_10) - 1}. Fetch it again.")
    held = np.concatenate([block.any(1) for block in file.blocks(f"X_{part}")])
    random = np.random.default_rng([SEED, part == "test"])
    return Part(int(held.sum()), _drawn(file, f"X_{part}", solids.shape[1:], labels, random))


def _drawn(
    file: Npz, name: str, shape: tuple[int, ...], labels: NDArray[np.int64], random: np.random.Generator
) -> Iterator[Block]:
    done = 0
    for block in file.blocks(name):
        held = block.any(1)
        some = [clouds.of_voxels(solid.reshape(shape).astype(bool), random).ravel() for solid in block[held]]
        yield np.array(some, np.float32).reshape(-1, POINTS * 3), labels[done : done + len(block)][held]
        done += len(block)
