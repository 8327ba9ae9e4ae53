"""The built-in dataset: the same bytes whatever the number of processes, and as varied as house numbers are."""

import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.datasets import house_numbers, prepare, prepared
from issgd_cli.datasets.sources import Block
from issgd_cli.errors import DataError


def joined(blocks: Iterator[Block]) -> tuple[bytes, bytes]:
    held = list(blocks)
    return b"".join(images.tobytes() for images, _ in held), b"".join(labels.tobytes() for _, labels in held)


def test_same_bytes_for_any_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house_numbers, "BLOCK", 64)
    count = 12 * house_numbers.BLOCK - 100
    one = joined(house_numbers.blocks(0, count, processes=1))
    assert joined(house_numbers.blocks(0, count, processes=2)) == one
    assert len(one[1]) == count


def test_an_example_depends_on_its_number_alone() -> None:
    images, labels = house_numbers.examples(0, 40)
    again, labels_again = house_numbers.examples(17, 3)
    np.testing.assert_array_equal(images[17:20], again)
    np.testing.assert_array_equal(labels[17:20], labels_again)
    assert len({image.tobytes() for image in images}) == 40
    assert not np.array_equal(house_numbers.examples(0, 40, seed=1)[1], labels)


def test_labels_follow_svhn_frequencies() -> None:
    _, labels = house_numbers.examples(0, 3000)
    found = np.bincount(labels, minlength=10) / 3000
    assert sum(house_numbers.COUNTS) == 604_388
    np.testing.assert_allclose(found, np.array(house_numbers.COUNTS) / 604_388, atol=4 * np.sqrt(0.17 * 0.83 / 3000))
    assert found.argmax() == 1


def test_pixels_are_spread_like_those_of_svhn() -> None:
    images = house_numbers.examples(0, 2000)[0].astype(np.float64)
    assert images.shape == (2000, 3, 32, 32)
    assert abs(images.mean() - 117) < 12
    assert abs(images.std() - 57) < 8
    assert 20 < np.median(images.std(axis=(2, 3))) < 40
    assert (images.std(axis=(1, 2, 3)) > 0).all()


def test_the_label_can_be_seen() -> None:
    """A linear classifier that has seen 2,000 examples does far better than chance on others."""
    images, labels = house_numbers.examples(0, 2500)
    grey = images.mean(axis=1)
    features = np.abs(grey - np.median(grey, axis=(1, 2), keepdims=True)).reshape(2500, -1)
    features = (features - features.mean(axis=1, keepdims=True)) / features.std(axis=1, keepdims=True)
    train, test = features[:2000], features[2000:]
    weights = np.linalg.solve(train.T @ train + 2000 * np.eye(1024), train.T @ np.eye(10)[labels[:2000]])
    assert ((test @ weights).argmax(axis=1) == labels[2000:]).mean() > 0.4


def test_prepared_test_part_is_the_same_for_every_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house_numbers, "TEST_SIZE", 50)
    tests = []
    for size in (60, 90):
        data = prepared.load(prepare("house-numbers", tmp_path, size=size))
        assert len(data.splits["train"]) + len(data.splits["valid"]) == size
        tests.append(np.array(data.splits["test"].images))
    np.testing.assert_array_equal(tests[0], tests[1])


def test_missing_fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match="matplotlib, which is not installed"):
        house_numbers.font_files()
    spec = ModuleSpec("matplotlib", None, is_package=True)
    assert spec.submodule_search_locations is not None
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(DataError, match=r"needs the font .*DejaVuSans\.ttf"):
        house_numbers.font_files()


def test_matplotlib_is_not_imported() -> None:
    import subprocess

    code = (
        "import sys; from issgd_cli.datasets import house_numbers; house_numbers.examples(0, 2); "
        "print('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
