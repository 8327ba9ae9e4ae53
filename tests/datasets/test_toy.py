"""The toy problem's points: where they lie, in which classes, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from issgd_cli import datasets
from issgd_cli.datasets import toy
from issgd_cli.errors import DataError


def test_points_fill_the_square_in_three_classes_as_large_as_each_other(tmp_path: Path) -> None:
    data = datasets.load("toy", datasets.prepare("toy", tmp_path, size=6_000).parent)
    assert data.sizes == {"train": 5_700, "valid": 300, "test": 1_000}
    assert (data.shape, data.classes) == ((2,), 3)
    for split in data.splits.values():
        places = np.asarray(split.inputs)
        assert (np.abs(places) <= 1).all()
        assert places.std(0) == pytest.approx([1 / np.sqrt(3)] * 2, rel=0.1)
        np.testing.assert_array_equal(toy.classes(places), split.targets)
        assert np.bincount(split.targets) / len(split) == pytest.approx([1 / 3] * 3, abs=0.1)
    assert (data.mean == 0).all()  # the network sees the plane as it is drawn
    assert (data.std == 1).all()


def test_the_arms_are_one_arm_turned_by_a_third_and_their_borders_are_curved() -> None:
    random = np.random.default_rng(0)
    places = random.uniform(-0.7, 0.7, (1_000, 2))
    third = 2 * np.pi / 3
    turned = places @ np.array([[np.cos(third), np.sin(third)], [-np.sin(third), np.cos(third)]])
    np.testing.assert_array_equal(toy.classes(turned), (toy.classes(places) + 1) % 3)
    ray = np.linspace(0.01, 1, 100)[:, None] * np.array([np.cos(0.1), np.sin(0.1)])
    assert len(set(toy.classes(ray))) > 1  # no border is a ray


def test_the_split_seed_decides_the_points(tmp_path: Path) -> None:
    folders = [
        datasets.prepare("toy", tmp_path / str(place), size=100, split_seed=seed)
        for place, seed in enumerate((42, 42, 43))
    ]
    first, again, other = (set(datasets.load("toy", folder.parent).splits["train"].inputs[:, 0]) for folder in folders)
    assert first == again
    assert not first & other
    train, test = (next(toy.points(part, 50, 42))[0] for part in ("train", "test"))
    assert not np.isin(train, test).any()


@pytest.mark.parametrize("size", [0, 10_000_001])
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(DataError, match="between 1 and"):
        datasets.prepare("toy", tmp_path, size=size)


def test_it_reads_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reads no files"):
        datasets.prepare("toy", tmp_path, source=tmp_path)


def test_who_has_not_made_it_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Make it with `issgd prepare toy`; it needs no network"):
        datasets.load("toy", tmp_path)
