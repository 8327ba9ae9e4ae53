"""CIFAR-10's and CIFAR-100's loaders on small batches of both official layouts; a pickle is walked, never run."""

import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from issgd_cli.datasets import prepare, prepared
from issgd_cli.datasets.cifar import CIFAR10, CIFAR100, Cifar
from issgd_cli.errors import DataError

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def batch(seed: int, count: int = 20) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3072), dtype=np.uint8), random.integers(0, 10, count, dtype=np.uint8)


def binary(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> bytes:
    return np.concatenate([labels[:, None], images], axis=1).tobytes()


def python(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> bytes:
    """The pickle that Python 2 wrote: the same operations as in the official batches."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    shape = b"K" + bytes([len(labels)]) + b"M\x00\x0c\x86"
    pixels = b"T" + struct.pack("<i", images.size) + images.tobytes()
    dtype = b"cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87Rq\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x07"
    array += b"(K\x01" + shape + dtype + b"\x89" + pixels + b"tb"
    numbers = b"]q\x08(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"]q\x09(" + b"".join(text(b"a_%d.png" % label) for label in labels) + b"e"
    items = text(b"batch_label") + b"q\x02" + text(b"training batch") + text(b"labels") + numbers
    items += text(b"data") + array + text(b"filenames") + names
    return b"\x80\x02}q\x01(" + items + b"u."


WRITERS = {".bin": binary, "": python}
FOLDERS = {".bin": "cifar-10-batches-bin", "": "cifar-10-batches-py"}
ARCHIVES = {".bin": "cifar-10-binary.tar.gz", "": "cifar-10-python.tar.gz"}


def folder_of(path: Path, suffix: str) -> Path:
    path.mkdir(parents=True)
    for seed, name in enumerate(BATCHES):
        (path / f"{name}{suffix}").write_bytes(WRITERS[suffix](*batch(seed)))
    (path / "readme.html").write_text("nothing")
    return path


@pytest.fixture(params=[".bin", ""], ids=["binary", "python"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("form", ["batches", "folder", "archive", "archive in a folder"])
def test_reads_every_official_form(tmp_path: Path, suffix: str, form: str) -> None:
    folder = folder_of(tmp_path / "made" / FOLDERS[suffix], suffix)
    archive = tmp_path / "archives" / ARCHIVES[suffix]
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, FOLDERS[suffix])
    sources = {"batches": folder, "folder": folder.parent, "archive": archive, "archive in a folder": archive.parent}

    data = prepared.load(prepare("cifar10", tmp_path, source=sources[form]))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 95, "valid": 5, "test": 20}
    test = data.splits["test"]
    found = {image.tobytes(): int(label) for image, label in zip(test.inputs, test.targets, strict=True)}
    assert found == {image.tobytes(): int(label) for image, label in zip(*batch(5), strict=True)}
    first = batch(0)[0][0].tobytes()
    assert any(first == image.tobytes() for name in ("train", "valid") for image in data.splits[name].inputs)


def test_both_versions_prepare_the_same_bytes(tmp_path: Path) -> None:
    fingerprints = set()
    for suffix in WRITERS:
        folder_of(tmp_path / f"from{suffix}", suffix)
        fingerprints.add(prepared.load(prepare("cifar10", tmp_path, source=tmp_path / f"from{suffix}")).fingerprint)
    assert len(fingerprints) == 1


def test_python_batch_is_what_pickle_reads() -> None:
    images, labels = batch(0)
    content = python(images, labels)
    by_pickle = pickle.loads(content, encoding="bytes")  # of our own making: proves that the fixture is a true pickle
    np.testing.assert_array_equal(by_pickle[b"data"], images)
    found = CIFAR10.python_batch(content, "batch")
    np.testing.assert_array_equal(found[0], images)
    np.testing.assert_array_equal(found[1], labels)


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch hacked'\ntR.",
        b"\x80\x02}q\x01(U\x04datacos\nmkdir\nU\x06hacked\x85RU\x06labels]K\x01au.",
        b"\x80\x02}q\x01(U\x04dataK\x01U\x06labels]K\x01au.",
        pickle.dumps({"data": 1}, protocol=4),
        pickle.dumps([], protocol=2),
        python(*batch(0))[:-5000],
        python(*batch(0)).replace(b"M\x00\x0c", b"M\x01\x0c"),
        python(*batch(0)).replace(b"U\x02u1", b"U\x02i1"),
        b"",
        b"hello",
    ],
)
def test_other_pickles_are_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="not a CIFAR-10 batch"):
        CIFAR10.python_batch(content, "data_batch_1")
    assert list(tmp_path.iterdir()) == []


def test_missing_batch_is_named(tmp_path: Path, suffix: str) -> None:
    folder = folder_of(tmp_path / "from", suffix)
    (folder / f"data_batch_3{suffix}").unlink()
    with pytest.raises(DataError, match="lacks data_batch_3"):
        prepare("cifar10", tmp_path, source=folder)


def test_truncated_batch(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "from", ".bin") / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin.*truncated"):
        prepare("cifar10", tmp_path, source=path.parent)


def test_label_out_of_range(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "from", ".bin") / "data_batch_1.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(DataError, match="example 0 has the label 10"):
        prepare("cifar10", tmp_path, source=path.parent)


def test_damaged_archives(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(b"not an archive")
    with pytest.raises(DataError, match="cannot be read as a"):
        prepare("cifar10", tmp_path, source=path)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder_of(tmp_path / "from", ".bin"), "cifar-10-batches-bin")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz"):
        prepare("cifar10", tmp_path, source=path)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../test_batch.bin"), io.BytesIO())
    with pytest.raises(DataError, match=r"test_batch|lacks data_batch_1"):
        prepare("cifar10", tmp_path, source=path)


def test_no_cifar10_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no CIFAR-10.*cifar-10-binary\.tar\.gz"):
        prepare("cifar10", tmp_path, source=tmp_path / "empty")


def hundred(images: NDArray[np.uint8], coarse: NDArray[np.uint8], fine: NDArray[np.uint8], suffix: str) -> bytes:
    """A batch of CIFAR-100, as either version has it."""
    if suffix == ".bin":
        return np.concatenate([coarse[:, None], fine[:, None], images], axis=1).tobytes()
    content = python(images, fine).replace(b"U\x06labels", b"U\x0bfine_labels")
    numbers = b"]q\x0a(" + b"".join(b"K" + bytes([label]) for label in coarse) + b"e"
    return content[:-2] + b"U\x0dcoarse_labels" + numbers + b"u."


@pytest.mark.parametrize("packed", [False, True])
def test_cifar100_is_by_its_fine_labels(tmp_path: Path, suffix: str, packed: bool) -> None:
    folder = tmp_path / "from" / CIFAR100.folders[suffix]
    folder.mkdir(parents=True)
    parts = {}
    for name, count in (("train", 100), ("test", 30)):
        images, coarse = batch(count, count)
        fine = np.random.default_rng(count).permutation(100)[:count].astype(np.uint8)
        (folder / f"{name}{suffix}").write_bytes(hundred(images, coarse, fine, suffix))
        parts[name] = {image.tobytes(): int(label) for image, label in zip(images, fine, strict=True)}
    source = folder.parent
    if packed:
        source = tmp_path / {".bin": "cifar-100-binary.tar.gz", "": "cifar-100-python.tar.gz"}[suffix]
        with tarfile.open(source, "w:gz") as tar:
            tar.add(folder, folder.name)
    data = prepared.load(prepare("cifar100", tmp_path / "data", source=source))
    assert (data.classes, data.shape, data.sizes) == (100, (3, 32, 32), {"train": 95, "valid": 5, "test": 30})
    found: dict[str, dict[bytes, int]] = {"train": {}, "test": {}}
    for name, split in data.splits.items():
        labels = zip(split.inputs, split.targets, strict=True)
        found["test" if name == "test" else "train"] |= {image.tobytes(): int(label) for image, label in labels}
    assert found == parts


@pytest.mark.parametrize("family", [CIFAR10, CIFAR100])
def test_a_batch_that_is_too_large_is_not_read_to_its_end(tmp_path: Path, family: Cifar) -> None:
    for name in (*family.train, *family.test):
        with (tmp_path / f"{name}.bin").open("wb") as file:
            file.truncate(family.most + 1)
    with pytest.raises(DataError, match=f"more than {family.most:,} bytes: not {family.title}'s"):
        prepare(family.name, tmp_path / "data", source=tmp_path)
