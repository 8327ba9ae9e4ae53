"""Mean and std of a stream, whatever its blocks and however far its values are from 0."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from issgd_cli.datasets.contents import Contents
from issgd_cli.datasets.moments import AsTheyAre, OfBytes, OfNumbers, moments_of


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.sampled_from([0.0, 1e3, 1e7]))
def test_numbers_have_numpys_moments_in_whatever_blocks_they_come(sizes: list[int], offset: float) -> None:
    random = np.random.default_rng(len(sizes))
    blocks = [(offset + random.normal(0, 3, (size + 1, 4))).astype(np.float32) for size in sizes]
    moments = OfNumbers(4)
    for block in blocks:
        moments.add(block)
    moments.add(blocks[0][:0])
    mean, std = moments.mean_and_std()
    every = np.concatenate(blocks).astype(np.float64)
    np.testing.assert_allclose(mean, every.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, np.where(every.std(0) > 0, every.std(0), 1), rtol=1e-6)
    assert mean.dtype == std.dtype == np.float32


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7, 1e-40, 3e38])
def test_a_number_that_never_varies_has_std_1(value: float) -> None:
    moments = OfNumbers(1)
    for size in (3, 5, 1, 7):
        moments.add(np.full((size, 1), value, np.float32))
    mean, std = moments.mean_and_std()
    assert (mean[0], std[0]) == (np.float32(value), 1)


def test_each_type_has_its_own() -> None:
    assert isinstance(moments_of(Contents((2,), 3), True), OfBytes)
    assert isinstance(moments_of(Contents((2,), 3, "float32"), True), OfNumbers)
    for contents, standardise in (
        (Contents((2,), 3, "int32", tokens=5), True),
        (Contents((2,), 3, "float32"), False),
        (Contents((2,), 3), False),
    ):
        moments = moments_of(contents, standardise)
        assert isinstance(moments, AsTheyAre)
        moments.add(np.full((3, 2), 7))
        assert [part.tolist() for part in moments.mean_and_std()] == [[0, 0], [1, 1]]
