"""An audit point is read back to the bit, and one that defines no proposal is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from issgd_cli.errors import DamagedError
from issgd_cli.runs.arrays import load_arrays, save_arrays
from issgd_cli.runs.audits import Audit, load_audit, save_audit


def audit(step: int = 123) -> Audit:
    random = np.random.default_rng(step)
    previous = random.random(9).astype(np.float32)
    previous[2] = np.nan
    return Audit(step, 0.1, random.random(5).astype(np.float32), random.random(9), previous, float("inf"))


def test_an_audit_point_is_read_as_it_was_saved_and_named_by_its_step(tmp_path: Path) -> None:
    save_audit(tmp_path, audit())
    again = load_audit(tmp_path / "step-00000123.npz")
    assert (again.step, again.seconds, again.smoothing) == (123, 0.1, float("inf"))
    for name in ("parameters", "weights", "previous"):
        np.testing.assert_array_equal(getattr(again, name), getattr(audit(), name))
        assert getattr(again, name).dtype == getattr(audit(), name).dtype


def test_what_a_method_has_learned_is_read_as_it_was_saved_and_must_be_finite(tmp_path: Path) -> None:
    assert audit().learned == {}
    learned = {"importances": np.random.default_rng(0).random((2, 9)), "is_filled": np.array(True)}
    save_audit(tmp_path, replace(audit(), learned=learned))
    path = tmp_path / "step-00000123.npz"
    again = load_audit(path).learned
    assert set(again) == set(learned)
    for name, array in learned.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == array.dtype
    save_arrays(path, {**load_arrays(path), "learned/importances": np.full((2, 9), np.nan)})
    with pytest.raises(DamagedError, match="finite"):
        load_audit(path)


def test_what_only_some_methods_tell_is_read_as_it_was_saved_or_none(tmp_path: Path) -> None:
    for passes, epochs in ((None, None), (120.5, None), (7.0, 2.25)):
        save_audit(tmp_path, replace(audit(), passes=passes, epochs=epochs))
        again = load_audit(tmp_path / "step-00000123.npz")
        assert (again.passes, again.epochs) == (passes, epochs)


def test_audit_points_sort_by_step(tmp_path: Path) -> None:
    for step in (1000, 20, 3):
        save_audit(tmp_path, replace(audit(), step=step))
    assert [load_audit(path).step for path in sorted(tmp_path.glob("step-*.npz"))] == [3, 20, 1000]


def test_a_damaged_audit_point_is_refused(tmp_path: Path) -> None:
    save_audit(tmp_path, audit())
    path = tmp_path / "step-00000123.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(DamagedError, match=r"step-00000123\.npz is damaged .*Remove it, its audit is lost") as error:
        load_audit(path)
    assert "folder" not in str(error.value)
    path.write_bytes(whole)
    save_arrays(path, {**load_arrays(path), "weights": np.zeros(9)})
    with pytest.raises(DamagedError, match=r"its weights define no proposal\)\. Remove it, its audit is lost"):
        load_audit(path)


@pytest.mark.parametrize(
    "previous", [np.zeros(8, np.float32), np.zeros(9), np.full(9, -1, np.float32), np.full(9, np.inf, np.float32)]
)
def test_previous_norms_that_are_none_are_refused(tmp_path: Path, previous: np.ndarray) -> None:
    save_audit(tmp_path, audit())
    path = tmp_path / "step-00000123.npz"
    save_arrays(path, {**load_arrays(path), "previous": previous})
    with pytest.raises(DamagedError, match="previous"):
        load_audit(path)


def test_an_older_audit_point_is_read_and_knows_no_previous_norms(tmp_path: Path) -> None:
    """It held the table in use instead."""
    save_audit(tmp_path, audit())
    path = tmp_path / "step-00000123.npz"
    arrays = load_arrays(path)
    arrays["table"] = arrays.pop("previous")
    save_arrays(path, arrays)
    again = load_audit(path)
    np.testing.assert_array_equal(again.weights, audit().weights)
    assert again.previous.shape == (9,)
    assert np.isnan(again.previous).all()
