"""ModelNet's official layouts, and voxels: small made files, and the real ones where they are."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from issgd_cli.datasets import prepare, prepared
from issgd_cli.datasets.clouds import POINTS
from issgd_cli.datasets.modelnet import NAMES_10
from issgd_cli.errors import DataError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
CLASSES = ["airplane", "night_stand", "sofa"]


def points(label: int, number: int) -> NDArray[np.float64]:
    """10 more than are taken: stretched along an axis that tells the class."""
    cloud = np.random.default_rng(number).normal(size=(POINTS + 10, 6))
    cloud[:, label] *= 9
    cloud[POINTS:] = 1e6
    return cloud


@pytest.fixture
def resampled(tmp_path: Path) -> Path:
    folder = tmp_path / "official" / "modelnet40_normal_resampled"
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(1, 8):
            np.savetxt(folder / name / f"{name}_{number:04}.txt", points(label, number), "%.6f", ",")
    for names, prefix in ((CLASSES, "modelnet40"), (CLASSES[1:], "modelnet10")):
        (folder / f"{prefix}_shape_names.txt").write_text("\n".join(names) + "\n")
        for part, numbers in (("train", range(1, 6)), ("test", range(6, 8))):
            listed = [f"{name}_{number:04}" for name in names for number in numbers]
            (folder / f"{prefix}_{part}.txt").write_text("\n".join(listed) + "\n")
    return folder


def axes(split: prepared.Split) -> list[int]:
    """Along which each cloud is stretched."""
    clouds = np.asarray(split.inputs).reshape(-1, POINTS, 3)
    np.testing.assert_allclose(clouds.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(clouds, axis=2).max(1), 1, rtol=1e-5)
    return [int(axis) for axis in clouds.std(1).argmax(1)]


@pytest.mark.parametrize(("name", "first"), [("modelnet40", 0), ("modelnet10", 1)])
def test_resampled_clouds_have_their_classes_and_parts(resampled: Path, tmp_path: Path, name: str, first: int) -> None:
    data = prepared.load(prepare(name, tmp_path / "data", source=resampled, validation_fraction=0.2))
    count = len(CLASSES) - first
    assert (data.shape, data.classes, data.targets) == ((POINTS, 3), count, "classes")
    assert data.sizes == {"train": 4 * count, "valid": count, "test": 2 * count}
    assert (data.std == 1).all()
    for split in data.splits.values():
        assert axes(split) == (split.targets + first).tolist()


def test_the_zip_and_the_folder_prepare_the_same_bytes(resampled: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "zips" / resampled.name), "zip", resampled.parent, resampled.name)
    archive = tmp_path / "zips" / f"{resampled.name}.zip"
    sources = [resampled, resampled.parent, archive, archive.parent]
    found = {prepared.load(prepare("modelnet40", tmp_path / "data", source=each)).fingerprint for each in sources}
    assert len(found) == 1


def tetrahedron(label: int, number: int) -> str:
    corners = np.random.default_rng([label, number]).normal(size=(4, 3))
    lines = ["OFF", "4 4 0", *(" ".join(map(str, corner)) for corner in corners.tolist())]
    return "\n".join([*lines, "3 0 1 2", "3 0 1 3", "3 0 2 3", "3 1 2 3", ""])


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    folder = tmp_path / "official" / "ModelNet10"
    for label, name in enumerate(NAMES_10):
        for number in range(1, 4):
            place = folder / name / ("test" if number == 3 else "train")
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}_{number:04}.off").write_text(tetrahedron(label, number))
    (folder / "README.txt").write_text("nothing")
    return folder


def test_points_are_drawn_on_the_meshes_of_modelnet10(meshes: Path, tmp_path: Path) -> None:
    data = prepared.load(prepare("modelnet10", tmp_path / "data", source=meshes.parent))
    assert (data.classes, data.sizes) == (10, {"train": 19, "valid": 1, "test": 10})
    assert sorted(data.splits["test"].targets) == list(range(10))
    axes(data.splits["train"])
    shutil.make_archive(str(tmp_path / meshes.name), "zip", meshes.parent, meshes.name)
    packed = prepared.load(prepare("modelnet10", tmp_path / "data", source=tmp_path / "ModelNet10.zip"))
    assert packed.fingerprint == data.fingerprint


def voxels(path: Path, **others: NDArray[np.generic]) -> Path:
    """A beam along an axis that tells the class, 0 to 2; the second of each part is empty."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, count in (("train", 11), ("test", 5)):
        solids, labels = np.zeros((count, 8, 8, 8), np.int32), np.arange(count) % 3
        for solid, label in zip(solids, labels, strict=True):
            np.moveaxis(solid, label, 0)[:, 3:5, 3:5] = 1
        solids[1] = 0
        arrays |= {f"X_{part}": solids, f"y_{part}": labels}
    np.savez_compressed(path, **{**arrays, **others})  # type: ignore[arg-type]
    return path


def test_points_are_drawn_in_voxels_and_empty_shapes_left_out(tmp_path: Path) -> None:
    source = voxels(tmp_path / "modelnet10.npz")
    data = prepared.load(prepare("modelnet10", tmp_path / "data", source=source))
    assert (data.classes, data.sizes) == (10, {"train": 9, "valid": 1, "test": 4})
    for split in data.splits.values():
        assert axes(split) == split.targets.tolist()
    again = prepared.load(prepare("modelnet10", tmp_path / "data", source=tmp_path, force=True))
    assert again.fingerprint == data.fingerprint


def test_what_is_missing_or_damaged_is_named(resampled: Path, meshes: Path, tmp_path: Path) -> None:
    def refused(match: str, source: Path | None, name: str = "modelnet40") -> None:
        with pytest.raises(DataError, match=match):
            prepare(name, tmp_path / "data", source=source)

    refused(r"is not fetched.*https://shapenet.*--from", None)
    refused(r"holds neither modelnet40_normal_resampled nor", tmp_path)
    refused(r"holds neither ModelNet10 nor .*modelnet10\.npz", tmp_path, "modelnet10")
    shape = resampled / "sofa" / "sofa_0002.txt"
    whole = shape.read_text()
    shape.write_text("\n".join(whole.split("\n")[:100]))
    refused(r"sofa/sofa_0002\.txt is no shape as it should be: it has 100 points", resampled)
    shape.write_text(whole.replace(",", ";"))
    refused(r"sofa/sofa_0002\.txt is no shape", resampled)
    shape.unlink()
    refused(r"lacks sofa/sofa_0002\.txt", resampled)
    for listed in ("../../etc/passwd", "sofa", "boat_0001"):
        (resampled / "modelnet40_train.txt").write_text(f"{listed}\n")
        refused(r"modelnet40_train\.txt lists .*of no class", resampled)
    (resampled / "modelnet40_train.txt").write_text("")
    refused(r"modelnet40_train\.txt is empty", resampled)
    broken = tmp_path / "modelnet40_normal_resampled.zip"
    broken.write_bytes(b"no zip")
    refused(r"cannot be read as a \.zip", broken)
    shutil.rmtree(resampled)
    mesh = meshes / "bed" / "train" / "bed_0001.off"
    mesh.write_text(mesh.read_text().replace("3 1 2 3", "3 1 2 9"))
    refused(r"bed/train/bed_0001\.off is no shape", meshes, "modelnet10")
    shutil.rmtree(meshes / "bed")
    for name in NAMES_10:
        shutil.rmtree(meshes / name / "test", ignore_errors=True)
    refused("holds no shapes for test", meshes, "modelnet10")
    refused("y_train are not labels", voxels(tmp_path / "modelnet10.npz", y_train=np.full(11, 10)), "modelnet10")
    refused("X_test is", voxels(tmp_path / "modelnet10.npz", X_test=np.zeros((5, 8))), "modelnet10")


@pytest.mark.long
@pytest.mark.skipif(not (REAL / "modelnet40-subset").is_dir(), reason=f"needs {REAL}/modelnet40-subset")
def test_the_real_clouds(tmp_path: Path) -> None:
    (archive,) = (REAL / "modelnet40-subset").iterdir()
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    data = prepared.load(prepare("modelnet40", tmp_path / "data", source=tmp_path))
    assert (data.classes, data.sizes) == (40, {"train": 806, "valid": 43, "test": 178})
    axes(data.splits["test"])


@pytest.mark.long
@pytest.mark.skipif(not (REAL / "modelnet10-voxels").is_dir(), reason=f"needs {REAL}/modelnet10-voxels")
def test_the_real_voxels(tmp_path: Path) -> None:
    data = prepared.load(prepare("modelnet10", tmp_path / "data", source=REAL / "modelnet10-voxels"))
    assert (data.classes, data.sizes) == (10, {"train": 3784, "valid": 200, "test": 907})
    axes(data.splits["test"])
