"""The polynomial's points: where they lie, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from issgd_cli import datasets
from issgd_cli.datasets import polynomial
from issgd_cli.errors import DataError


def test_points_lie_about_the_polynomial(tmp_path: Path) -> None:
    data = datasets.load("polynomial", datasets.prepare("polynomial", tmp_path).parent)
    assert data.sizes == {"train": 9_500, "valid": 500, "test": 2_000}
    assert (data.shape, data.outputs, data.targets) == ((1,), 1, "numbers")
    for split in data.splits.values():
        x, y = np.asarray(split.inputs[:, 0], np.float64), np.asarray(split.targets[:, 0], np.float64)
        assert (np.abs(x) <= 2).all()
        residual = y - np.polynomial.polynomial.polyval(x, polynomial.coefficients())
        assert residual.std() == pytest.approx(0.1, rel=0.15)
        assert abs(np.corrcoef(residual, x)[0, 1]) < 0.2
        # Least squares finds the coefficients again.
        found = np.polynomial.polynomial.polyfit(x, y, 6)
        np.testing.assert_allclose(found, polynomial.coefficients(), atol=0.1)
    assert (data.mean == 0).all()
    assert (data.std == 1).all()


def test_a_prefix_of_a_larger_one_is_no_other_polynomial(tmp_path: Path) -> None:
    small, large = (next(polynomial.points("train", size)) for size in (10, 20))
    test = next(polynomial.points("test", 10))
    assert not np.array_equal(small[0], test[0])
    assert len(large[0]) == 20


@pytest.mark.parametrize("size", [0, 10_000_001])
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(DataError, match="between 1 and"):
        datasets.prepare("polynomial", tmp_path, size=size)


def test_it_reads_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reads no files"):
        datasets.prepare("polynomial", tmp_path, source=tmp_path)
