"""The MAT-5 reader against scipy, on files that scipy wrote, and on damaged ones."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from issgd_cli.datasets import mat5
from issgd_cli.errors import DataError


def read(path: Path, name: str, rows: int = 7) -> NDArray[np.generic]:
    """The variable as scipy.io.loadmat would give it, through the streaming reader."""
    variable = mat5.variables(path)[name]
    values = np.concatenate(list(variable.blocks(rows)))  # (last axis, product of the others)
    return values.reshape(-1).reshape(variable.shape, order="F")


@pytest.fixture(params=[True, False], ids=["compressed", "plain"])
def compressed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 4, 2, 19), (5, 1), (1, 3), (2, 2)])
def test_reads_what_scipy_reads(tmp_path: Path, compressed: bool, dtype: str, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    array = random.integers(0, 100, shape).astype(dtype)
    other = random.normal(size=(4, 3))
    scipy.io.savemat(tmp_path / "a.mat", {"before": other, "array": array, "after": other}, do_compression=compressed)

    expected = scipy.io.loadmat(tmp_path / "a.mat")
    for name in ("before", "array", "after"):
        found = read(tmp_path / "a.mat", name)
        assert found.dtype == expected[name].dtype
        np.testing.assert_array_equal(found, expected[name])
    kind = {"float64": "double", "float32": "single"}.get(dtype, dtype)
    assert mat5.variables(tmp_path / "a.mat")["array"].kind == kind


def test_variables_that_are_not_numeric_are_passed_over(tmp_path: Path, compressed: bool) -> None:
    held = {"text": "abc", "x": np.arange(6.0).reshape(2, 3), "struct": {"a": 1}}
    scipy.io.savemat(tmp_path / "a.mat", held, do_compression=compressed)
    assert list(mat5.variables(tmp_path / "a.mat")) == ["x"]


def test_whole_doubles_stored_as_small_integers(tmp_path: Path) -> None:
    """MATLAB stores y of the official files so: class double, values uint8."""
    scipy.io.savemat(tmp_path / "a.mat", {"y": np.arange(9, dtype=np.uint8).reshape(9, 1)}, do_compression=False)
    content = bytearray((tmp_path / "a.mat").read_bytes())
    assert content[128 + 16] == 9  # the class byte in the array flags: uint8
    content[128 + 16] = 6  # double
    (tmp_path / "a.mat").write_bytes(content)
    assert mat5.variables(tmp_path / "a.mat")["y"].kind == "double"
    np.testing.assert_array_equal(read(tmp_path / "a.mat", "y").ravel(), np.arange(9))
    np.testing.assert_array_equal(scipy.io.loadmat(tmp_path / "a.mat")["y"].ravel(), np.arange(9))


@pytest.mark.parametrize("kept", [0, 60, 127, 130, 140, 300, 5_000, -9, -1])
def test_truncated(tmp_path: Path, compressed: bool, kept: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (10, 10, 90), dtype=np.uint8)
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"X": array}, do_compression=compressed)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a\.mat"):
        read(path, "X")


def test_corrupted_pixels_of_a_compressed_array(tmp_path: Path) -> None:
    """Every flipped byte is noticed: by the inflater, or by the checksum at the end."""
    array = np.random.default_rng(0).integers(0, 256, (10, 10, 9), dtype=np.uint8)
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"X": array}, do_compression=True)
    content = path.read_bytes()
    for position in range(150, len(content), 37):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
        with pytest.raises(DataError, match=r"truncated or corrupted"):
            read(path, "X")


def test_impossible_dimensions(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"X": np.ones((4, 5), np.uint8)}, do_compression=False)
    content = bytearray(path.read_bytes())
    assert content[128 + 32] == 4
    content[128 + 32] = 40
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"announces 20 bytes for the array X of shape \(40, 5\)"):
        mat5.variables(path)


def test_other_formats(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, HDF5".ljust(124) + b"\0\2IM" + bytes(400))
    with pytest.raises(DataError, match=r"version 7\.3.*-v7"):
        mat5.variables(path)
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\1\0MI" + bytes(400))
    with pytest.raises(DataError, match="big-endian"):
        mat5.variables(path)
    scipy.io.savemat(path, {"X": np.ones((4, 5))}, format="4")
    with pytest.raises(DataError, match="not a MAT-5 file"):
        mat5.variables(path)
    with pytest.raises(DataError, match="cannot be read"):
        mat5.variables(tmp_path / "none.mat")
