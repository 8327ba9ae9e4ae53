"""Named arrays are read back to the bit; a file that is not as it was saved is refused, and none is unpickled."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from issgd_cli.errors import DamagedError, RunError
from issgd_cli.networks.mlp import mlp
from issgd_cli.runs.arrays import load_arrays, save_arrays
from issgd_cli.runs.audits import load_audit
from issgd_cli.runs.checkpoints import load_checkpoint
from issgd_cli.runs.parameters import load_parameters


def values() -> dict[str, Any]:
    """Of every kind and size, as a checkpoint's are."""
    random = np.random.default_rng(12)
    return {
        "step": 12,
        "seconds": 1 / 3,
        "parameters": random.standard_normal(17).astype(np.float32),
        "momentum": random.standard_normal(17).astype(np.float32),
        "work": '{"work/bytes_sent": 1e12}',
        "train/norms": random.random(300).astype(np.float32),
        "train/errors": random.integers(0, 2, 300, np.uint8),
        "none": np.zeros(0),
    }


def assert_as_saved(found: dict[str, NDArray[Any]]) -> None:
    assert set(found) == set(values())
    for name, value in values().items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == np.asarray(value).dtype


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where `values` are saved."""
    save_arrays(tmp_path / "values.npz", values())
    return tmp_path / "values.npz"


def test_arrays_are_read_as_they_were_saved(path: Path) -> None:
    assert_as_saved(load_arrays(path))


def test_every_flipped_byte_is_found_unless_it_means_nothing(path: Path) -> None:
    content = path.read_bytes()
    refused, places = 0, range(0, len(content), 31)
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            found = load_arrays(path)
        except DamagedError:
            refused += 1
        else:  # a date, say, in an archive's directory
            assert_as_saved(found)
    assert refused > 0.75 * len(places)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("parameters", lambda array: np.where(np.arange(17) == 3, 1.0, array).astype(np.float32)),
        ("step", lambda array: array + 1),
        ("step", lambda array: array.astype(np.int32)),
        ("momentum", lambda array: array.reshape(1, 17)),
        ("work", lambda array: np.asarray('{"work/bytes_sent": 1}')),
    ],
)
def test_the_sum_is_over_every_value_type_and_shape(
    path: Path, name: str, change: Callable[[Any], np.ndarray[Any, Any]]
) -> None:
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, name: change(arrays[name])})  # the archive's own sums are right
    with pytest.raises(DamagedError, match="its sum is not that of what it holds"):
        load_arrays(path)


def test_the_sum_is_over_the_names(path: Path) -> None:
    arrays = dict(np.load(path))
    arrays["parameters"], arrays["momentum"] = arrays["momentum"], arrays["parameters"]
    np.savez(path, **arrays)
    with pytest.raises(DamagedError, match="its sum is not that of what it holds"):
        load_arrays(path)


def test_a_file_without_a_sum_is_refused(path: Path) -> None:
    arrays = dict(np.load(path))
    del arrays["sha256"]
    np.savez(path, **arrays)
    with pytest.raises(DamagedError, match="it holds no sum"):
        load_arrays(path)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_pickled_objects_are_refused_and_never_run(path: Path) -> None:
    target = path.parent / "ran"
    arrays = dict(np.load(path))
    arrays["momentum"] = np.array([Evil(target)], dtype=object)
    np.savez(path, **arrays)
    loaders = (load_arrays, load_checkpoint, load_audit, lambda file: load_parameters(file, mlp(3, [2], 2)))
    for content in (path.read_bytes(), pickle.dumps(Evil(target))):
        path.write_bytes(content)
        for load in loaders:
            with pytest.raises(RunError, match="is damaged"):
                load(path)
    assert not target.exists()
