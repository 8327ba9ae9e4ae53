"""Flowers-102's official layout: small made files, and the real ones in 64x64 where they are."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from issgd_cli.datasets import flowers, prepare, prepared
from issgd_cli.errors import DataError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "flowers-102-64"
PARTS = {"trnid": [3, 1, 8], "valid": [2, 10], "tstid": [4, 5, 6, 7, 9]}
LABELS = [1, 102, 7, 7, 50, 1, 102, 3, 4, 99]


def photograph(number: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """Of one colour, which tells its number."""
    content = io.BytesIO()
    Image.new("RGB", size, (20 * number, 100, 255 - 20 * number)).save(content, "JPEG", quality=95)
    return content.getvalue()


@pytest.fixture
def official(tmp_path: Path) -> Path:
    folder = tmp_path / "official"
    folder.mkdir()
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": np.array([LABELS], float)})
    scipy.io.savemat(folder / "setid.mat", {name: np.array([ids], float) for name, ids in PARTS.items()})
    with tarfile.open(folder / "102flowers.tgz", "w:gz") as tar:
        for number in (*range(6, 11), *range(1, 6)):
            content = photograph(number, (80, 64 + number))
            member = tarfile.TarInfo(f"jpg/image_{number:05}.jpg")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return folder


def test_each_photograph_has_its_label_and_part(official: Path, tmp_path: Path) -> None:
    data = prepared.load(prepare("flowers-102", tmp_path / "data", source=official, validation_fraction=0.2))
    assert (data.classes, data.shape, data.sizes) == (102, (3, 64, 64), {"train": 4, "valid": 1, "test": 5})
    for name, split in data.splits.items():
        numbers = np.rint(split.inputs.reshape(-1, 3, 4096)[:, 0].mean(1) / 20).astype(int)
        allowed = PARTS["tstid"] if name == "test" else [*PARTS["trnid"], *PARTS["valid"]]
        assert set(numbers) <= set(allowed)
        assert split.targets.tolist() == [LABELS[number - 1] - 1 for number in numbers]


def test_an_unpacked_archive_prepares_the_same_bytes(official: Path, tmp_path: Path) -> None:
    packed = prepared.load(prepare("flowers-102", tmp_path / "data", source=official)).fingerprint
    shutil.unpack_archive(official / "102flowers.tgz", official, "gztar", filter="data")
    (official / "102flowers.tgz").unlink()
    assert prepared.load(prepare("flowers-102", tmp_path / "other", source=official)).fingerprint == packed


def test_the_middle_square_is_taken_and_made_smaller() -> None:
    picture = np.zeros((128, 384, 3), np.uint8)
    picture[:, 128:256] = 200  # the middle
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", quality=100)
    found = flowers.small(content.getvalue(), "it")
    assert found.shape == (3, 64, 64)
    assert (np.abs(found[:, :, 4:-4].astype(int) - 200) <= 2).all()
    upright = io.BytesIO()
    Image.fromarray(picture.transpose(1, 0, 2)).save(upright, "JPEG", quality=100)
    assert np.abs(flowers.small(upright.getvalue(), "it").astype(int) - found.transpose(0, 2, 1)).max() <= 2


def test_what_is_missing_or_damaged_is_named(official: Path, tmp_path: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match):
            prepare("flowers-102", tmp_path / "data", source=official)

    whole = (official / "102flowers.tgz").read_bytes()
    (official / "102flowers.tgz").write_bytes(whole[: len(whole) // 2])
    refused(r"102flowers\.tgz cannot be read as a \.tgz|lacks image_")
    (official / "102flowers.tgz").unlink()
    refused(r"holds no 102flowers\.tgz")
    jpg = official / "jpg"
    jpg.mkdir()
    for number in range(1, 11):
        (jpg / f"image_{number:05}.jpg").write_bytes(photograph(number))
    (jpg / "image_00004.jpg").write_bytes(b"hello")
    refused(r"image_00004\.jpg cannot be read as a JPEG")
    (jpg / "image_00004.jpg").unlink()
    refused(r"lacks image_00004\.jpg")
    (jpg / "image_00004.jpg").write_bytes(photograph(4))
    (jpg / "image_00011.jpg").write_bytes(photograph(11))
    refused(r"holds image_00011\.jpg, and .* has 10 labels")
    (jpg / "image_00011.jpg").unlink()
    scipy.io.savemat(official / "setid.mat", {"trnid": [[1.0]], "valid": [[2.0]], "tstid": [[2.0, 3.0]]})
    refused("has a photograph in two parts")
    scipy.io.savemat(official / "setid.mat", {"trnid": [[1.0]], "valid": [[11.0]], "tstid": [[2.0, 3.0]]})
    refused("valid are not whole numbers from 1 to 10")
    scipy.io.savemat(official / "setid.mat", {"trnid": [[1.0]]})
    refused("holds no row valid")
    scipy.io.savemat(official / "imagelabels.mat", {"labels": [[1.0, 103.0]]})
    refused("labels are not whole numbers from 1 to 102")


@pytest.mark.long
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs {REAL}")
def test_the_real_ones(tmp_path: Path) -> None:
    data = prepared.load(prepare("flowers-102", tmp_path, source=REAL))
    assert data.sizes == {"train": 1938, "valid": 102, "test": 6149}
    counts = np.bincount(np.concatenate([data.splits["train"].targets, data.splits["valid"].targets]))
    assert counts.tolist() == [20] * 102  # its official train and valid parts have ten of each
    with tarfile.open(REAL / "102flowers.tgz") as tar:
        member = tar.extractfile(tar.next() or "")
        assert member is not None
        first = np.asarray(Image.open(member)).transpose(2, 0, 1).reshape(-1)
    assert any(np.array_equal(first, image) for split in data.splits.values() for image in split.inputs)
