"""The built-in dataset: the same bytes whatever its size and the number of processes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.datasets import house_numbers, prepare, prepared
from issgd_cli.datasets.sources import Block


def joined(blocks: Iterator[Block]) -> tuple[bytes, bytes]:
    held = list(blocks)
    return b"".join(images.tobytes() for images, _ in held), b"".join(labels.tobytes() for _, labels in held)


def test_same_bytes_for_any_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house_numbers, "BLOCK", 64)
    count = 12 * house_numbers.BLOCK - 100
    one = joined(house_numbers.blocks(0, count, processes=1))
    assert joined(house_numbers.blocks(0, count, processes=2)) == one
    assert len(one[1]) == count


def test_prepared_test_part_is_the_same_for_every_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house_numbers, "TEST_SIZE", 50)
    tests = []
    for size in (60, 90):
        data = prepared.load(prepare("house-numbers", tmp_path, size=size))
        assert len(data.splits["train"]) + len(data.splits["valid"]) == size
        tests.append(np.array(data.splits["test"].inputs))
    np.testing.assert_array_equal(tests[0], tests[1])
