"""CIFAR-10N's labels: read from torch's file without running it, given to what is trained on alone."""

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from issgd_cli.datasets import prepare, prepared
from issgd_cli.datasets.cifar10n import KINDS, TRUE, labels_of
from issgd_cli.errors import DataError
from tests.datasets.test_cifar import BATCHES, batch, binary

# A copy of CIFAR-N-1.zip, the official archive, if this machine has one.
REAL = Path(os.environ.get("ISSGD_CIFAR_N", Path(__file__).resolve().parents[3] / "shared/data/cifar-n/CIFAR-N-1.zip"))
WRONG = {"aggre": 0.0903, "random1": 0.1723, "random2": 0.1812, "random3": 0.1764, "worse": 0.4021}  # its table 1


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def pickled(arrays: Mapping[str, NDArray[np.int64]]) -> bytes:
    """What torch.save writes of a dict of numpy arrays: the same operations as in the official file."""
    content = b"\x80\x02}q\x00("
    for name, values in arrays.items():
        numbers = b"c_codecs\nencode\n" + text(values.astype("<i8").tobytes().decode("latin-1")) + text("latin1")
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85c_codecs\nencode\n"
        made += text("b") + text("latin1") + b"\x86R\x87R(K\x01M" + len(values).to_bytes(2, "little") + b"\x85"
        made += b"cnumpy\ndtype\n" + text("i8") + b"\x89\x88\x87R(K\x03" + text("<")
        made += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + numbers + b"\x86Rtb"
        content += text(name) + made
    return content + b"u."


def packed(members: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, held in members.items():
            archive.writestr(name, held)
    return content.getvalue()


def torchs(arrays: Mapping[str, NDArray[np.int64]]) -> bytes:
    return packed({"archive/data.pkl": pickled(arrays), "archive/version": b"3\n"})


def made(seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """True labels of the 100 images in CIFAR-10's five batches of these tests, and those of each kind."""
    true = np.concatenate([batch(number)[1] for number in range(5)]).astype(np.int64)
    random = np.random.default_rng(seed)
    return {TRUE: true} | {name: random.integers(0, 10, len(true)) for name in KINDS.values()}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    folder = tmp_path / "official"
    (folder / "cifar-10-batches-bin").mkdir(parents=True)
    for seed, name in enumerate(BATCHES):
        (folder / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(binary(*batch(seed)))
    (folder / "CIFAR-10_human.pt").write_bytes(torchs(made()))
    return folder


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_trained_on_has_peoples_labels_and_nothing_else_has(official: Path, tmp_path: Path, kind: str) -> None:
    data = prepared.load(prepare(f"cifar10n-{kind}", tmp_path / "data", source=official, validation_fraction=0.3))
    assert data.sizes == {"train": 70, "valid": 30, "test": 20}
    labels = made()
    images = [image.tobytes() for number in range(5) for image in batch(number)[0]]
    people, true = (dict(zip(images, labels[name], strict=True)) for name in (KINDS[kind], TRUE))
    true |= {image.tobytes(): label for image, label in zip(*batch(5), strict=True)}
    for name, split in data.splits.items():
        expected = people if name == "train" else true
        assert [expected[image.tobytes()] for image in split.inputs] == split.targets.tolist()


def test_examples_and_their_order_are_those_of_cifar10(official: Path, tmp_path: Path) -> None:
    plain = prepared.load(prepare("cifar10", tmp_path / "data", source=official))
    noisy = prepared.load(prepare("cifar10n-worse", tmp_path / "data", source=official))
    for name, split in plain.splits.items():
        assert np.array_equal(split.inputs, noisy.splits[name].inputs)
    assert plain.fingerprint != noisy.fingerprint


def test_the_archive_does_as_well(official: Path, tmp_path: Path) -> None:
    plain = (official / "CIFAR-10_human.pt").read_bytes()
    archive = {"CIFAR-N/CIFAR-10_human.pt": plain, "__MACOSX/CIFAR-N/._CIFAR-10_human.pt": b"x", "CIFAR-N/": b""}
    (tmp_path / "CIFAR-N-1.zip").write_bytes(packed(archive))
    for name, expected in made().items():
        for path in (tmp_path / "CIFAR-N-1.zip", official / "CIFAR-10_human.pt"):
            assert np.array_equal(labels_of(path, name), expected)


def test_labels_of_other_images_are_refused(official: Path, tmp_path: Path) -> None:
    labels = made()
    labels[TRUE][37] = (labels[TRUE][37] + 1) % 10
    (official / "CIFAR-10_human.pt").write_bytes(torchs(labels))
    with pytest.raises(DataError, match=r"image 37 has the true label .*in another order"):
        prepare("cifar10n-aggre", tmp_path / "data", source=official)
    (official / "CIFAR-10_human.pt").write_bytes(torchs({name: each[:-1] for name, each in labels.items()}))
    with pytest.raises(DataError, match="holds 99 labels for 100 training images"):
        prepare("cifar10n-aggre", tmp_path / "data", source=official)
    (official / "CIFAR-10_human.pt").unlink()
    with pytest.raises(DataError, match=r"holds neither CIFAR-10_human\.pt nor CIFAR-N-1\.zip"):
        prepare("cifar10n-aggre", tmp_path / "data", source=official)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        packed({"archive/version": b"3"}),
        packed({"archive/data.pkl": b"cos\nsystem\n(S'touch hacked'\ntR."}),
        packed({"archive/data.pkl": pickled(made())[:-900]}),
        packed({"a/data.pkl": pickled(made()), "b/data.pkl": pickled(made())}),
        torchs({"other": np.zeros(3, np.int64)}),
        torchs({"aggre_label": np.array([0, 10])}),
        torchs(made())[:-30],
    ],
)
def test_damaged_files_are_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CIFAR-10_human.pt").write_bytes(content)
    with pytest.raises(DataError, match="CIFAR-10_human"):
        labels_of(tmp_path / "CIFAR-10_human.pt", "aggre_label")
    assert [path.name for path in tmp_path.iterdir()] == ["CIFAR-10_human.pt"]


@pytest.mark.skipif(not REAL.is_file(), reason="needs CIFAR-N-1.zip; ISSGD_CIFAR_N may name it")
def test_the_real_labels_are_wrong_as_often_as_their_paper_says() -> None:
    true = labels_of(REAL, TRUE)
    for kind, wrong in WRONG.items():
        assert (labels_of(REAL, KINDS[kind]) != true).mean() == pytest.approx(wrong, abs=5e-4)
