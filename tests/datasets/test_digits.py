"""Digits of house numbers: each depends on its number alone, and they are as varied as house numbers are."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.datasets import digits
from issgd_cli.errors import DataError


def test_an_example_depends_on_its_number_alone() -> None:
    images, labels = digits.examples(0, 40)
    again, labels_again = digits.examples(17, 3)
    np.testing.assert_array_equal(images[17:20], again)
    np.testing.assert_array_equal(labels[17:20], labels_again)
    assert len({image.tobytes() for image in images}) == 40
    assert not np.array_equal(digits.examples(0, 40, seed=1)[1], labels)


def test_labels_follow_svhn_frequencies() -> None:
    _, labels = digits.examples(0, 3000)
    found = np.bincount(labels, minlength=10) / 3000
    assert sum(digits.COUNTS) == 604_388
    np.testing.assert_allclose(found, np.array(digits.COUNTS) / 604_388, atol=4 * np.sqrt(0.17 * 0.83 / 3000))
    assert found.argmax() == 1


def test_pixels_are_spread_like_those_of_svhn() -> None:
    images = digits.examples(0, 2000)[0].astype(np.float64)
    assert images.shape == (2000, 3, 32, 32)
    assert abs(images.mean() - 117) < 12
    assert abs(images.std() - 57) < 8
    assert 20 < np.median(images.std(axis=(2, 3))) < 40
    assert (images.std(axis=(1, 2, 3)) > 0).all()


def test_the_label_can_be_seen() -> None:
    """A linear classifier that has seen 2,000 examples does far better than chance on others."""
    images, labels = digits.examples(0, 2500)
    grey = images.mean(axis=1)
    features = np.abs(grey - np.median(grey, axis=(1, 2), keepdims=True)).reshape(2500, -1)
    features = (features - features.mean(axis=1, keepdims=True)) / features.std(axis=1, keepdims=True)
    train, test = features[:2000], features[2000:]
    weights = np.linalg.solve(train.T @ train + 2000 * np.eye(1024), train.T @ np.eye(10)[labels[:2000]])
    assert ((test @ weights).argmax(axis=1) == labels[2000:]).mean() > 0.4


def test_missing_fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match="matplotlib, which is not installed"):
        digits.font_files()
    spec = ModuleSpec("matplotlib", None, is_package=True)
    assert spec.submodule_search_locations is not None
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(DataError, match=r"needs the font .*DejaVuSans\.ttf"):
        digits.font_files()


def test_matplotlib_is_not_imported() -> None:
    import subprocess

    code = (
        "import sys; from issgd_cli.datasets import digits; digits.examples(0, 2); print('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
