"""Blocks that are scattered over a folder's arrays are checked, and their pixels summed exactly."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.datasets import prepared, writing
from issgd_cli.datasets.sources import Block, Dataset, Part
from issgd_cli.errors import DataError
from tests.datasets.made_up import FEATURES, SHAPE, arrays, blocks_of, dataset, numbers, sentences, written


def test_mean_and_std_are_those_of_the_train_part(tmp_path: Path) -> None:
    data = prepared.load(written(tmp_path / "d", rows=700))
    images = data.splits["train"].inputs.astype(np.float64)
    np.testing.assert_array_equal(data.mean, images.mean(axis=0).astype(np.float32))
    expected = images.std(axis=0)
    assert expected[5] == 0
    expected[5] = 1
    np.testing.assert_allclose(data.std, expected, rtol=1e-6)
    assert data.mean.dtype == data.std.dtype == np.float32
    assert data.std[5] == 1


def test_sums_stay_exact_with_extreme_pixels(tmp_path: Path) -> None:
    images = np.full((5000, FEATURES), 255, np.uint8)
    images[::2] = 254
    part, test = (Part(5000, blocks_of(images, np.zeros(5000, np.uint8), 5000)) for _ in range(2))
    writing.write(tmp_path / "d", "d", Dataset(SHAPE, 10, part, test, list), {}, validation_fraction=0)
    data = prepared.load(tmp_path / "d")
    assert (data.mean == 254.5).all()
    assert (data.std == 0.5).all()


def test_label_out_of_range_is_named(tmp_path: Path) -> None:
    images, labels = arrays(1000)
    labels[700] = 10
    bad = Dataset(SHAPE, 10, Part(1000, blocks_of(images, labels, 64)), dataset().test, list)
    with pytest.raises(DataError, match="example 700 has the label 10"):
        writing.write(tmp_path / "d", "d", bad, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("announced", [999, 1001])
def test_wrong_number_of_examples(tmp_path: Path, announced: int) -> None:
    bad = Dataset(SHAPE, 10, Part(announced, blocks_of(*arrays(1000), 64)), dataset().test, list)
    with pytest.raises(DataError, match=f"{announced}"):
        writing.write(tmp_path / "d", "d", bad, {})
    assert os.listdir(tmp_path) == []


def test_wrong_shape(tmp_path: Path) -> None:
    bad = Dataset((3, 5, 5), 10, dataset().train, dataset().test, list)
    with pytest.raises(DataError, match="75 values"):
        writing.write(tmp_path / "d", "d", bad, {})


def spoilt(made: Dataset, block: int, where: str, value: float) -> Dataset:
    """The dataset, with one number of its fourth example in this block changed."""

    def blocks() -> Iterator[Block]:
        for number, (inputs, targets) in enumerate(made.train.blocks):
            if number == block:
                inputs, targets = inputs.copy(), targets.copy()
                (inputs if where == "inputs" else targets)[3] = value
            yield inputs, targets

    return replace(made, train=Part(made.train.count, blocks()))


@pytest.mark.parametrize(
    ("made", "where", "value", "message"),
    [
        (numbers, "inputs", math.nan, "the inputs of example 67 hold a number that is not finite"),
        (numbers, "inputs", -math.inf, "the inputs of example 67 hold a number that is not finite"),
        (numbers, "targets", math.inf, "the targets of example 67 hold a number that is not finite"),
        (sentences, "inputs", 20, "example 3 holds the token 20; 20 tokens allow 0 to 19"),
        (sentences, "inputs", -1, "example 3 holds the token -1"),
        (sentences, "targets", 3, "example 3 has the label 3; 3 classes allow 0 to 2"),
        (sentences, "targets", -1, "example 3 has the label -1"),
    ],
)
def test_numbers_tokens_and_classes_that_cannot_be_are_named(
    tmp_path: Path, made: Callable[[], Dataset], where: str, value: float, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        writing.write(tmp_path / "d", "d", spoilt(made(), int(made is numbers), where, value), {})
    assert os.listdir(tmp_path) == []


def test_blocks_of_another_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected uint8 inputs of 6 values, found float32"):
        writing.write(tmp_path / "d", "d", numbers(inputs="uint8"), {})
    with pytest.raises(DataError, match=r"targets of shape \(64, 2\) after example 0 for 2 outputs"):
        writing.write(tmp_path / "d", "d", numbers(targets="classes"), {})
