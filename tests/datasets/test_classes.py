"""Empty classes are said when data are prepared, whatever their source, and shortly."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from issgd_cli import datasets
from issgd_cli.datasets import prepare
from issgd_cli.datasets.classes import empty_classes
from issgd_cli.datasets.contents import SplitName
from issgd_cli.datasets.prepared import Prepared, Split
from issgd_cli.datasets.sources import Dataset, Part, Recipe


def said(train: Sequence[int], valid: Sequence[int], test: Sequence[int], classes: int) -> list[str]:
    labels: dict[SplitName, Sequence[int]] = {"train": train, "valid": valid, "test": test}
    splits = {name: Split(np.zeros((len(of), 2), np.uint8), np.array(of, np.int64)) for name, of in labels.items()}
    ones = np.ones(2, np.float32)
    return [*empty_classes(Prepared("made", splits, ones, ones, classes, "", (2,)))]


ONE = "class 1 of 0 to 2 has no"
GAPS = "; number the classes from 0 without gaps unless that is meant"


@pytest.mark.parametrize(
    ("train", "valid", "test", "classes", "expected"),
    [
        ([0, 1, 2], [], [2, 1, 0], 3, []),
        ([1, 2], [1], [0, 1, 2], 3, ["class 0 of 0 to 2 has no training example"]),
        ([0, 2], [2], [0, 2], 3, [f"{ONE} training example{GAPS}", f"{ONE} test example"]),
        ([0, 2], [1], [0, 1, 2], 3, [f"{ONE} training example"]),  # the split has left it out
        ([0, 1, 2], [], [1], 3, ["classes 0 and 2 of 0 to 2 have no test example"]),
        ([0, 1], [], [0, 1, 2], 3, ["class 2 of 0 to 2 has no training example"]),
        ([0, 9], [], range(10), 10, ["classes 1, 2, 3, 4, 5 and 3 more of 0 to 9 have no training example"]),
        ([*range(5)], [], [*range(10)], 10, ["classes 5, 6, 7, 8 and 9 of 0 to 9 have no training example"]),
    ],
)
def test_classes_without_examples_are_named(
    train: Sequence[int], valid: Sequence[int], test: Sequence[int], classes: int, expected: list[str]
) -> None:
    assert said(train, valid, test, classes) == expected


def test_the_words_stay_short_however_many_classes_are_empty() -> None:
    assert all(len(notice) < 150 for notice in said([255], [], [255], 256))


def test_preparing_a_users_file_whose_labels_begin_at_1_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, images=np.zeros((2000, 4), np.uint8), labels=np.arange(2000) % 10 + 1)
    told: list[str] = []
    for _ in range(2):  # once: what is there already was told when it was made
        prepare(str(path), tmp_path, progress=lambda what, _, total: None if total else told.append(what))
    assert [notice for notice in told if "class" in notice] == [
        "mine.npz: inputs of shape (4,), uint8; 10 classes",
        f"mine.npz: class 0 of 0 to 10 has no training example{GAPS}",
        "mine.npz: class 0 of 0 to 10 has no test example",
    ]


def test_preparing_says_it_of_any_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(labels: list[int]) -> Part:
        return Part(len(labels), [(np.zeros((len(labels), 2), np.uint8), np.array(labels))])

    dataset = Dataset((2,), 3, part([0, 1] * 20), part([0, 1, 2]), list)
    monkeypatch.setitem(datasets.DATASETS, "made", lambda _: Recipe({}, lambda _: dataset))
    told: list[str] = []
    prepare("made", tmp_path, progress=lambda what, _, total: told.append(what))
    assert "made: class 2 of 0 to 2 has no training example" in told
