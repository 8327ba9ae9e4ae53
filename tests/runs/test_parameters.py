"""The final parameters are read into a model of the same shapes, with numpy alone, or refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from issgd_cli.errors import DamagedError, RunError
from issgd_cli.networks.flat import flatten_parameters
from issgd_cli.networks.mlp import initialise, mlp
from issgd_cli.runs.parameters import load_parameters, save_parameters


def test_parameters_are_read_into_a_model_of_the_same_shapes(tmp_path: Path) -> None:
    model, other = mlp(4, [3], 2), mlp(4, [3], 2)
    initialise(model, 0, 1.0)
    flatten_parameters(model)
    save_parameters(tmp_path / "parameters.npz", model)
    load_parameters(tmp_path / "parameters.npz", other)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_parameters_can_be_read_with_numpy_alone(tmp_path: Path) -> None:
    model = mlp(4, [3], 2)
    save_parameters(tmp_path / "parameters.npz", model)
    arrays = dict(np.load(tmp_path / "parameters.npz", allow_pickle=False))
    assert arrays.pop("sha256").dtype == "U64"
    assert {name: arrays[name].shape for name in arrays} == {
        "0.weight": (3, 4),
        "0.bias": (3,),
        "2.weight": (2, 3),
        "2.bias": (2,),
    }


def test_damaged_parameters_are_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "parameters.npz", mlp(4, [3], 2)
    save_parameters(path, model)
    np.savez(path, **{**np.load(path), "0.bias": np.ones(3, np.float32)})
    with pytest.raises(DamagedError, match=r"parameters\.npz is damaged"):
        load_parameters(path, model)


def test_parameters_of_another_model_are_refused(tmp_path: Path) -> None:
    save_parameters(tmp_path / "parameters.npz", mlp(4, [3], 2))
    for other in (mlp(4, [5], 2), mlp(4, [3, 3], 2)):
        with pytest.raises(RunError, match="parameters of another model"):
            load_parameters(tmp_path / "parameters.npz", other)
