"""SVHN's loader against scipy, on small files of the official layout and on the real crops where they are at hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from issgd_cli.datasets import Progress, download, prepare, prepared, svhn
from issgd_cli.datasets.sources import Request
from issgd_cli.errors import DataError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "svhn-small"


def official(path: Path, count: int, seed: int = 0, **changed: Any) -> None:
    """A file of the official layout with random pixels."""
    random = np.random.default_rng(seed)
    arrays = {
        "X": random.integers(0, 256, (32, 32, 3, count), dtype=np.uint8),
        "y": random.integers(1, 11, (count, 1), dtype=np.uint8),
    }
    scipy.io.savemat(path, {**arrays, **changed}, do_compression=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "official"
    folder.mkdir()
    for seed, (name, count) in enumerate((("train", 50), ("test", 20), ("extra", 80))):
        official(folder / f"{name}_32x32.mat", count, seed)
    return folder


def expected(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 3072) in CHW order and labels by scipy."""
    held = scipy.io.loadmat(path)
    images = held["X"].transpose(3, 2, 0, 1).reshape(held["X"].shape[3], -1)
    return images, held["y"].ravel().astype(np.int64) % 10


def as_set(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[tuple[bytes, int]]:
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize("real", [False, True])
def test_examples_are_those_that_scipy_reads(folder: Path, name: str, real: bool) -> None:
    if real and not REAL.is_dir():
        pytest.skip("the real crops are not on this machine")
    path = (REAL if real else folder) / f"{name}_32x32.mat"
    part = svhn.part(path)
    blocks = list(part.blocks)
    images, labels = expected(path)
    np.testing.assert_array_equal(np.concatenate([block for block, _ in blocks]), images)
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), labels)
    assert part.count == len(labels)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real crops are not on this machine")
def test_prepares_the_real_crops(tmp_path: Path) -> None:
    notices: list[str] = []
    notice: Progress = lambda message, _, total: None if total else notices.append(message)  # noqa: E731
    directory = prepare("svhn", tmp_path, source=REAL, progress=notice)
    data = prepared.load(directory)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 7678, "valid": 405, "test": 2000}
    assert abs(data.mean.mean() - 117.4) < 0.5
    assert "no extra_32x32.mat" in notices[0]


def test_svhn_joins_train_and_extra(tmp_path: Path, folder: Path) -> None:
    data = prepared.load(prepare("svhn", tmp_path, source=folder))
    splits = [data.splits[name] for name in ("train", "valid")]
    found = as_set(np.concatenate([s.inputs for s in splits]), np.concatenate([s.targets for s in splits]))
    parts = [expected(folder / f"{name}_32x32.mat") for name in ("train", "extra")]
    assert found == as_set(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
    test = data.splits["test"]
    assert as_set(test.inputs, test.targets) == as_set(*expected(folder / "test_32x32.mat"))


def test_svhn_train_leaves_extra_out(tmp_path: Path, folder: Path) -> None:
    data = prepared.load(prepare("svhn-train", tmp_path, source=folder))
    assert len(data.splits["train"]) + len(data.splits["valid"]) == 50


def test_sources_are_recorded(tmp_path: Path, folder: Path) -> None:
    (folder / "extra_32x32.mat").unlink()
    meta = prepared.read_meta(prepare("svhn", tmp_path, source=folder))
    assert [(source["file"], source["official"]) for source in meta["sources"]] == [
        ("train_32x32.mat", False),
        ("test_32x32.mat", False),
    ]


def test_extra_that_appears_later_is_taken(tmp_path: Path, folder: Path) -> None:
    extra = (folder / "extra_32x32.mat").rename(tmp_path / "extra_32x32.mat")
    prepare("svhn", tmp_path, source=folder)
    extra.rename(folder / "extra_32x32.mat")
    assert len(prepared.load(prepare("svhn", tmp_path, source=folder)).splits["train"]) == 123


@pytest.mark.parametrize("name", ["train_32x32.mat", "test_32x32.mat"])
def test_missing_file_is_named(tmp_path: Path, folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"holds no {name}"):
        prepare("svhn", tmp_path, source=folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y": np.full((50, 1), 11, np.uint8)}, r"y\[0\] is 11; expected 1 to 10"),
        ({"y": np.full((50, 1), 0, np.uint8)}, r"y\[0\] is 0; expected 1 to 10"),
        ({"y": np.full((50, 1), 1.5)}, r"y\[0\] is 1\.5"),
        ({"y": np.ones((49, 1), np.uint8)}, r"y of shape \(49, 1\) for 50 images"),
        ({"X": np.zeros((32, 32, 3, 50))}, "X, double of shape"),
        ({"X": np.zeros((50, 32, 32, 3), np.uint8)}, r"X, uint8 of shape \(50, 32, 32, 3\)"),
        ({"X": np.zeros((32, 32), np.uint8)}, r"X, uint8 of shape \(32, 32\)"),
    ],
)
def test_wrong_arrays(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    official(tmp_path / "train_32x32.mat", 50, **changed)
    with pytest.raises(DataError, match=message):
        svhn.part(tmp_path / "train_32x32.mat")


def test_missing_arrays(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"A": np.ones((2, 2))})
    with pytest.raises(DataError, match="holds A; expected X"):
        svhn.part(tmp_path / "train_32x32.mat")


def test_labels_as_doubles(tmp_path: Path) -> None:
    official(tmp_path / "a.mat", 50, y=np.arange(50.0)[:, None] % 10 + 1)
    ((_, labels),) = svhn.part(tmp_path / "a.mat").blocks
    np.testing.assert_array_equal(labels, (np.arange(50) + 1) % 10)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_file_leaves_nothing(tmp_path: Path, folder: Path, damage: str) -> None:
    path = folder / "extra_32x32.mat"
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] if damage == "cut" else content[:middle] + b"????????" + content[middle + 8 :])
    with pytest.raises(DataError, match=r"extra_32x32\.mat.*truncated or corrupted"):
        prepare("svhn", tmp_path, source=folder)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".svhn.lock", "official"]


def test_size_is_refused() -> None:
    with pytest.raises(DataError, match="train_size"):
        svhn.with_extra(Request(None, Path("downloads"), size=10))


def test_downloads_the_official_files(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which files are fetched, from where, with which sums; fetching itself is test_download's."""
    fetched = []

    def fetch(url: str, path: Path, md5: str, progress: object, *, size: int) -> Path:
        fetched.append((url, path, md5, size))
        return folder / path.name

    monkeypatch.setattr(download, "fetch", fetch)
    monkeypatch.setattr(svhn, "BASE_URL", "http://localhost/housenumbers")
    prepare("svhn", tmp_path)
    prepare("svhn", tmp_path)
    assert [call[0] for call in fetched] == [f"http://localhost/housenumbers/{file}" for file in svhn.OFFICIAL]
    assert fetched[1][1:] == (
        tmp_path / "downloads" / "svhn" / "extra_32x32.mat",
        "a93ce644f1a588dc4d68dda5feec44a7",
        1_329_278_602,
    )
    fetched.clear()
    prepare("svhn-train", tmp_path)
    assert [call[1].name for call in fetched] == ["train_32x32.mat", "test_32x32.mat"]
