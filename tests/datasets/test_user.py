"""A user's own .npz file: prepared on first use, found again by its content, and refused clearly."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issgd_cli.datasets import load, prepare, user
from issgd_cli.datasets.prepared import Prepared
from issgd_cli.errors import DataError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (200, 2, 5, 5), dtype=np.uint8)
LABELS = np.arange(200) % 7


@pytest.fixture(params=[np.savez, np.savez_compressed], ids=["plain", "compressed"])
def save(request: pytest.FixtureRequest) -> Any:
    return request.param


def pairs(images: Any, labels: Any) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def test_test_part_is_held_out_by_seed(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "mine.npz"
    save(path, images=IMAGES, labels=LABELS)
    data = load(str(path), tmp_path / "data")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 171, "valid": 9, "test": 20}
    held = set().union(*(pairs(split.inputs, split.targets) for split in data.splits.values()))
    assert held == pairs(IMAGES, LABELS)
    assert (data.classes, data.shape) == (7, (2, 5, 5))
    other = load(str(path), tmp_path / "other", split_seed=1)
    assert pairs(other.splits["test"].inputs, other.splits["test"].targets) != pairs(
        data.splits["test"].inputs, data.splits["test"].targets
    )


def test_own_test_part(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "mine.npz"
    save(path, images=IMAGES[:150], labels=LABELS[:150], test_images=IMAGES[150:], test_labels=LABELS[150:] + 1)
    test = load(str(path), tmp_path).splits["test"]
    assert pairs(test.inputs, test.targets) == pairs(IMAGES[150:], LABELS[150:] + 1)


def test_changed_file_is_another_dataset(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    first = prepare(str(path), tmp_path)
    assert prepare(str(path), tmp_path) == first
    assert first.name.startswith("mine-")
    np.savez(path, images=IMAGES[:100], labels=LABELS[:100])
    assert load(str(path), tmp_path).fingerprint != load(str(path), tmp_path / "x", train_size=50).fingerprint
    assert prepare(str(path), tmp_path) != first


def test_data_have_one_name_however_the_path_of_their_file_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    np.savez(tmp_path / "mine.npz", images=IMAGES, labels=LABELS)
    shutil.copy(tmp_path / "mine.npz", tmp_path / "sub")
    monkeypatch.chdir(tmp_path)
    spellings = ["mine.npz", "./mine.npz", "sub/../mine.npz", "sub/mine.npz", str(tmp_path / "mine.npz")]
    (name,) = {user.folder_name(Path(spelling)) for spelling in spellings}
    assert {prepare(spelling, tmp_path / "data") for spelling in spellings} == {tmp_path / "data" / name}
    monkeypatch.chdir(tmp_path / "sub")  # the same spelling, another file
    np.savez("mine.npz", images=IMAGES[:100], labels=LABELS[:100])
    assert user.folder_name(Path("mine.npz")) != name


def test_a_file_is_read_once_for_its_name_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digest = hashlib.file_digest

    def counting(file: Any, name: str) -> Any:
        read.append(name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    path = tmp_path / "mine.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    assert user.folder_name(path) == user.folder_name(path)
    assert len(read) == 1
    os.utime(path, (1, 1))
    user.folder_name(path)
    assert len(read) == 2


def test_what_was_prepared_serves_by_its_name_without_the_file_and_in_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    place = prepare(str(path), tmp_path / "data", split_seed=7)
    path.unlink()
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere" / "data")
    for folder in (tmp_path / "data", tmp_path / "elsewhere" / "data"):
        data = load(place.name, folder, split_seed=7)
        assert (data.name, data.directory) == (place.name, folder / place.name)
        assert prepare(place.name, folder, split_seed=7) == folder / place.name
    for otherwise in ({"split_seed": 8}, {"split_seed": 7, "force": True}):
        with pytest.raises(DataError, match=r"was prepared of a file\. To prepare it again, name the file"):
            prepare(place.name, tmp_path / "data", **otherwise)  # type: ignore[arg-type]


def test_a_file_that_is_gone_or_a_name_that_is_mistyped_is_answered_with_what_was_prepared(tmp_path: Path) -> None:
    path = tmp_path / "my own.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    name = prepare(str(path), tmp_path / "data").name
    path.unlink()
    for use in (prepare, load):
        with pytest.raises(DataError, match=f"my own.npz cannot be read: No such file.*write `{name}` in its place"):
            use(str(path), tmp_path / "data")
        with pytest.raises(DataError, match=f"Did you mean {name}.*Known are svhn, .*, {name}, and files"):
            use(name[:-1], tmp_path / "data")
    with pytest.raises(DataError, match=r"copied to .*elsewhere from where it is"):
        load(name, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "form", ["../data/{}", "../other/{}", "{}/", "./{}", "{}/../{}", "/tmp/{}", "sub/{}", "{}\0", ""]
)
def test_a_name_never_leads_out_of_the_data_folder(tmp_path: Path, form: str) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    name = prepare(str(path), tmp_path / "data").name
    for other in ("other", "data/sub"):
        shutil.copytree(tmp_path / "data" / name, tmp_path / other / name)
    with pytest.raises(DataError, match="No dataset is called"):
        load(form.replace("{}", name), tmp_path / "data")


@pytest.mark.parametrize("key", ["origin", "folder", "name of the folder"])
def test_only_what_says_that_it_was_prepared_of_a_file_under_this_name_is_a_users_own(tmp_path: Path, key: str) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    place = prepare(str(path), tmp_path / "data")
    meta = json.loads((place / "meta.json").read_text())
    meta["parameters"][key] = "else"
    (place / "meta.json").write_text(json.dumps(meta))
    if key == "name of the folder":
        place = place.rename(place.with_name("other-12345678"))
    with pytest.raises(DataError, match="No dataset is called"):
        load(place.name, tmp_path / "data")


def test_what_is_damaged_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    place = prepare(str(path), tmp_path / "data")
    (place / "meta.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        load(place.name, tmp_path / "data")


@pytest.mark.parametrize(
    "stem", ["my own", "a.b.v2", "übung ∑", "a#1", "a[1]", "[bold]", "$(a) 'b'", ".", "..", "x" * 200]
)
def test_a_stem_of_any_printable_letters_will_do(tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    place = prepare(str(path), tmp_path / "data")
    assert place.name.rpartition("-")[0] == stem
    assert place.parent == tmp_path / "data"
    assert load(place.name, tmp_path / "data").name == place.name


@pytest.mark.parametrize("stem", ["x" * 201, "x" * 300, "ü" * 101, "a\nb", "\x1b[31m", os.fsdecode(b"\xff")])
def test_a_stem_that_is_no_folders_name_is_refused_in_one_sentence(tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.npz"
    with pytest.raises(DataError, match="cannot name its data: rename the file") as refused:
        prepare(str(path), tmp_path / "data")
    assert str(refused.value).isprintable()
    assert not (tmp_path / "data").exists()


def test_what_was_prepared_of_a_file_is_what_must_not_change(tmp_path: Path) -> None:
    """The file itself is not read again."""
    path = tmp_path / "mine.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    place = prepare(str(path), tmp_path / "data")
    for part in place.iterdir():
        os.utime(part, (1, 1))
    data = load(str(path), tmp_path / "data", train_size=50)
    path.unlink()
    data.refuse_changed()
    (place / "train-images.npy").touch()
    with pytest.raises(DataError, match=r"mine-.*/train-images\.npy has been changed"):
        data.refuse_changed()


NOT_FINITE = np.where(np.arange(200)[:, None] == 7, np.nan, np.ones((200, 3)))
HUGE = LABELS.astype(np.uint64) + np.uint64(2**63)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "holds images, but no `labels` or `targets`; expected"),
        ({"labels": LABELS}, "holds labels, but no `inputs`, `images`, `points` or `tokens`; expected"),
        ({"images": IMAGES, "inputs": IMAGES, "labels": LABELS}, "holds inputs and images, where one is expected"),
        ({"images": IMAGES, "labels": LABELS, "targets": LABELS}, "holds labels and targets, where one is expected"),
        ({"images": IMAGES[:, 0, 0, 0], "labels": LABELS}, r"`images` is uint8 of shape \(200,\)"),
        (
            {"images": IMAGES.astype(np.uint16), "labels": LABELS},
            r"`images` is uint16 .* Save images\.astype\(np",
        ),
        ({"images": IMAGES.astype(complex), "labels": LABELS}, "`images` is complex128"),
        ({"images": IMAGES.astype(str), "labels": LABELS}, "`images` is <U3"),
        ({"points": IMAGES, "labels": LABELS}, "`points` is uint8"),
        ({"tokens": NOT_FINITE, "labels": LABELS}, "`tokens` is float64 .* Tokens are integers from 0"),
        ({"tokens": LABELS[:, None] - 3, "labels": LABELS}, r"`tokens`\[0\] holds -3"),
        ({"tokens": LABELS[:, None] + 2**40, "labels": LABELS}, r"`tokens`\[0\] holds 1099511627776"),
        ({"images": IMAGES, "labels": LABELS[1:]}, r"`labels` is int64 of shape \(199,\), for 200 examples"),
        ({"images": IMAGES, "labels": np.stack([LABELS, LABELS], 1)}, r"`labels` is int64 of shape \(200, 2\)"),
        ({"images": IMAGES, "labels": LABELS / 2}, "`labels` is float64 .* Call numbers to predict `targets`"),
        ({"images": IMAGES, "labels": LABELS.astype(str)}, r"`labels` is <U21 .* np\.unique\(labels"),
        ({"images": IMAGES, "labels": LABELS - 1}, r"`labels`\[0\] is -1"),
        ({"images": IMAGES, "labels": LABELS + 65_530}, r"`labels`\[6\] is 65536"),
        ({"images": IMAGES, "labels": HUGE}, r"`labels`\[0\] is 9223372036854775808"),
        ({"images": IMAGES, "targets": LABELS[1:]}, r"`targets` is int64 of shape \(199,\), for 200 examples"),
        ({"images": IMAGES, "targets": np.zeros((200, 2, 2))}, r"`targets` is float64 of shape \(200, 2, 2\)"),
        ({"images": IMAGES, "targets": np.zeros((200, 0))}, r"`targets` is float64 of shape \(200, 0\)"),
        ({"images": IMAGES, "targets": NOT_FINITE}, r"`targets`\[7\] holds nan, which is not finite"),
        ({"inputs": NOT_FINITE, "labels": LABELS}, r"`inputs`\[7\] holds nan, which is not finite"),
        (
            {"inputs": np.full((200, 2), 1e300), "labels": LABELS},
            r"`inputs`\[0\] holds 1e\+300, which is not finite",
        ),
        ({"images": IMAGES, "labels": LABELS, "standardise": np.array(3)}, "`standardise` is int64 of shape"),
        ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES}, "no `test_labels`"),
        (
            {"images": IMAGES, "labels": LABELS, "test_images": IMAGES[:, :1], "test_labels": LABELS},
            r"images are uint8 of shape \(2, 5, 5\), test_images uint8 of \(1, 5, 5\)",
        ),
        (
            {"images": IMAGES, "labels": LABELS, "test_images": IMAGES / 255, "test_labels": LABELS},
            "images are uint8 of shape .*, test_images float32",
        ),
        (
            {"images": IMAGES, "targets": LABELS, "test_images": IMAGES, "test_targets": np.ones((200, 2))},
            "targets and test_targets are not of one length",
        ),
        ({"images": np.asfortranarray(IMAGES), "labels": LABELS}, "Fortran order"),
        ({"images": np.array([{}, {}]), "labels": LABELS}, "Python objects"),
        ({"images": IMAGES, "labels": np.array([{}] * 200)}, "Python objects"),
    ],
)
def test_unusable_arrays(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message):
        load(str(path), tmp_path / "data")


def test_unusable_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with pytest.raises(DataError, match=r"mine\.npz cannot be read: No such file"):
        load(str(path), tmp_path)
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        load(str(path), tmp_path)
    np.savez_compressed(path, images=IMAGES, labels=LABELS)
    content = bytearray(path.read_bytes())
    content[4000:4008] = b"????????"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        load(str(path), tmp_path)


# Other data than images of classes


def of_file(folder: Path, told: list[str] | None = None, /, **arrays: Any) -> Prepared:
    """What is prepared of a file that holds these, in this folder; and what is said meanwhile."""
    folder.mkdir(exist_ok=True)
    np.savez(folder / "mine.npz", **arrays)
    said: list[str] = [] if told is None else told
    place = prepare(
        str(folder / "mine.npz"), folder, progress=lambda what, _, total: None if total else said.append(what)
    )
    return load(place.name, folder)


def everything(data: Prepared) -> tuple[Any, Any]:
    """All inputs and targets, sorted by the inputs."""
    inputs = np.concatenate([split.inputs for split in data.splits.values()])
    targets = np.concatenate([split.targets for split in data.splits.values()])
    order = np.lexsort(inputs.T)
    return inputs[order], targets[order]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("name", ["inputs", "images", "points"])
def test_floats_are_prepared_as_float32(tmp_path: Path, name: str, dtype: Any) -> None:
    values = np.random.default_rng(1).normal(3, 5, (200, 4, 3)).astype(dtype)
    told: list[str] = []
    data = of_file(tmp_path, told, **{name: values, "labels": LABELS})
    assert "mine.npz: inputs of shape (4, 3), float32; 7 classes" in told
    flat = values.reshape(200, -1).astype(np.float32)
    order = np.lexsort(flat.T)
    inputs, labels = everything(data)
    np.testing.assert_array_equal(inputs, flat[order])
    np.testing.assert_array_equal(labels, LABELS[order])
    are_points = name == "points"
    assert ((data.mean == 0).all(), (data.std == 1).all()) == (are_points, are_points)
    raw = of_file(tmp_path / "raw", **{name: values, "labels": LABELS, "standardise": np.array(False)})
    assert ((raw.mean == 0).all(), (raw.std == 1).all()) == (True, True)


@pytest.mark.parametrize("shape", [(200,), (200, 1), (200, 3)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.bool_])
def test_numbers_to_predict_are_prepared_as_they_are(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    values = np.asfortranarray(np.random.default_rng(2).normal(0, 5, shape).astype(dtype))
    told: list[str] = []
    data = of_file(tmp_path, told, images=IMAGES, targets=values)
    outputs = values.size // 200
    assert (data.targets, data.outputs, data.classes) == ("numbers", outputs, 0)
    assert told[-1] == f"mine.npz: inputs of shape (2, 5, 5), uint8; {outputs} numbers to predict"
    flat = IMAGES.reshape(200, -1)
    _, targets = everything(data)
    np.testing.assert_array_equal(targets, values.reshape(200, -1).astype(np.float32)[np.lexsort(flat.T)])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, ">i8"])
def test_tokens_number_the_words_of_both_parts(tmp_path: Path, dtype: Any) -> None:
    tokens = np.random.default_rng(3).integers(0, 50, (200, 9)).astype(dtype)
    test = tokens[:20].copy()
    test[3, 2] = 77
    told: list[str] = []
    data = of_file(tmp_path, told, tokens=tokens, labels=LABELS, test_tokens=test, test_labels=LABELS[:20])
    assert data.tokens == 78
    assert "mine.npz: inputs of shape (9,), 78 tokens; 7 classes" in told
    assert data.splits["test"].inputs.dtype == np.int32
    assert sorted(map(tuple, data.splits["test"].inputs.tolist())) == sorted(map(tuple, test.tolist()))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_labels_may_stand_in_a_column(tmp_path: Path, dtype: Any) -> None:
    flat = of_file(tmp_path / "flat", images=IMAGES, labels=LABELS)
    column = of_file(tmp_path / "column", images=IMAGES, labels=LABELS[:, None].astype(dtype))
    assert column.fingerprint == flat.fingerprint


def test_more_classes_than_a_byte_holds_are_learned_too(tmp_path: Path) -> None:
    told: list[str] = []
    data = of_file(tmp_path, told, images=IMAGES, labels=np.arange(200) * 2)
    assert data.classes == 399
    assert "mine.npz: inputs of shape (2, 5, 5), uint8; 200 classes" in told
    assert any("of 0 to 398 have no training example" in notice for notice in told)
    np.testing.assert_array_equal(np.sort(everything(data)[1]), np.arange(200) * 2)
