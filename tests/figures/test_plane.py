"""What a run makes of a plane: which runs have one, the importances there, and why some can't be told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli import datasets
from issgd_cli.claims import Run, load_run
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve
from issgd_cli.errors import DamagedError, RunError
from issgd_cli.figures import plane
from issgd_cli.figures.plane import data_of, load, made_of, nearest_classes, trouble
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.parameters import save_parameters

from .conftest import PlaneRun, begin_folder

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "RESOLUTION", 12)


@pytest.fixture
def standardised(tmp_path: Path) -> str:
    """A file of points whose axes have units far apart, in four classes of which one has few."""
    points = RANDOM.normal(0, 1, (400, 2)) * [40, 0.01] + [900, 3]
    labels = RANDOM.choice(4, 400, p=[0.4, 0.3, 0.25, 0.05])
    np.savez(tmp_path / "own.npz", inputs=points.astype(np.float32), labels=labels)
    return datasets.prepare(str(tmp_path / "own.npz"), tmp_path / "data").name


# Which runs have one


def named(data_dir: Path, name: str) -> Run:
    """A run on a dataset of this name, which need not be there."""
    folder = RunFolder(data_dir / "results" / name.replace("/", "-") / "seed-000")
    config = resolve(assignments([f"data.name={name}", f"data.dir={data_dir}", "master.steps=1"]), "a test")
    begin_folder(folder, config, "", "issgd", "finished")
    return load_run(folder)


def test_points_of_a_plane_in_classes_are_drawn_and_nothing_else(tmp_path: Path) -> None:
    datasets.prepare("toy", tmp_path, size=50)
    datasets.prepare("polynomial", tmp_path, size=50)
    images = {"images": RANDOM.integers(0, 256, (50, 2), np.uint8), "labels": RANDOM.integers(0, 3, 50)}
    files: dict[str, dict[str, Any]] = {
        "pixels": images,
        "three": {"points": RANDOM.normal(size=(50, 3)), "labels": images["labels"]},
        "numbers": {"points": RANDOM.normal(size=(50, 2)), "targets": RANDOM.normal(size=50)},
        "texts": {"tokens": RANDOM.integers(1, 9, (50, 2)), "labels": images["labels"]},
    }
    for name, arrays in files.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    names = {name: datasets.prepare(str(tmp_path / f"{name}.npz"), tmp_path).name for name in files}
    drawn = [name for name in ("toy", "polynomial", *names.values()) if data_of(named(tmp_path, name)) is not None]
    assert drawn == ["toy", names["pixels"]]


def test_without_its_data_nobody_knows_whether_it_is_a_plane_and_nothing_is_prepared(tmp_path: Path) -> None:
    assert data_of(named(tmp_path, "toy")) is None
    np.savez(tmp_path / "own.npz", points=RANDOM.normal(size=(50, 2)), labels=RANDOM.integers(0, 3, 50))
    assert data_of(named(tmp_path, str(tmp_path / "own.npz"))) is None
    assert {path.name for path in tmp_path.iterdir()} == {"own.npz", "results"}


# What it makes of it


def test_importances_are_the_norms_of_each_examples_gradient_by_the_outputs(
    plane_run: PlaneRun, standardised: str
) -> None:
    """By autograd, in float64, of the inputs as training gets them; the rare class thinned further."""
    run, data = plane_run(f"data.name={standardised}", "data.imbalance=3")
    found = load(run, data)
    problem = Problem(run.config, data)
    model = problem.initial_network(0, torch.device("cpu")).eval()
    inputs, labels = problem.examples("train", torch.device("cpu"))[:]
    with torch.no_grad():
        outputs = model(inputs).double()
    outputs.requires_grad_()
    (gradients,) = torch.autograd.grad(torch.nn.functional.cross_entropy(outputs, labels, reduction="sum"), outputs)
    assert (found.classes, found.examples) == (4, len(labels))
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.importances[:, 0], gradients.norm(dim=1), rtol=1e-4)
    np.testing.assert_allclose(found.importances[:, 1:], gradients.abs(), rtol=1e-4, atol=1e-6)
    left, right, bottom, top = found.extent
    assert (found.points > [left, bottom]).all()
    assert (found.points < [right, top]).all()


def test_the_plane_is_what_examples_there_would_have(plane_run: PlaneRun) -> None:
    run, data = plane_run()
    found = load(run, data)
    assert (found.known.shape, found.decided.shape, found.field.shape) == ((12, 12), (12, 12), (12, 12, 4))
    left, right, bottom, top = found.extent
    x, y = np.linspace(left, right, 12), np.linspace(bottom, top, 12)
    model = Problem(run.config, data).initial_network(0, torch.device("cpu")).eval()
    for row, column in ((0, 0), (0, 11), (7, 2)):
        with torch.no_grad():
            chances = model(torch.tensor([[x[column], y[row]]], dtype=torch.float32)).softmax(1)[0].numpy()
        expected = np.abs(chances - np.eye(3)[found.known[row, column]])
        np.testing.assert_allclose(found.field[row, column], [np.linalg.norm(expected), *expected], rtol=1e-4)
        assert found.decided[row, column] == chances.argmax()


def test_a_large_training_set_is_shown_by_its_first_examples(
    plane_run: PlaneRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane, "MOST_EXAMPLES", 30)
    run, data = plane_run()
    found = load(run, data)
    assert (len(found.points), len(found.labels), len(found.importances)) == (30, 30, 30)
    assert found.examples == len(data.splits["train"]) > 30
    np.testing.assert_array_equal(found.points, data.splits["train"].inputs[:30])


@pytest.mark.parametrize("units", [(1.0, 1.0), (1e6, 1e-6)])
def test_a_places_class_is_its_neighbours(units: tuple[float, float]) -> None:
    points = RANDOM.uniform(-1, 1, (1_000, 2))
    labels = (points[:, 0] > 0) + 2 * (points[:, 1] > 0)
    labels[::20] = 3  # some are wrong
    places = np.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    assert nearest_classes(points * units, labels, places * units, 4).tolist() == [0, 1, 2, 3]


def test_few_examples_or_such_as_all_lie_on_one_line_are_enough() -> None:
    places = RANDOM.uniform(-1, 1, (5, 2))
    assert nearest_classes(np.zeros((1, 2)), np.array([2]), places, 3).tolist() == [2] * 5
    line = np.stack([np.linspace(-1, 1, 100), np.zeros(100)], 1)
    found = nearest_classes(line, (line[:, 0] > 0).astype(np.int64), np.array([[-0.9, 0.0], [0.9, 0.02]]), 2)
    assert found.tolist() == [0, 1]


# Why some can't be told


def test_a_run_without_final_parameters_says_in_which_state_it_is(plane_run: PlaneRun) -> None:
    run, data = plane_run(state="failed")
    assert trouble(run, data) is None  # as it stands, its parameters are there
    RunFolder(run.path).parameters.unlink()
    assert trouble(run, data) == "No final parameters: the run is failed."
    assert made_of(run, data)["parameters"] == {"sha256": None}


def test_other_examples_of_the_same_name_are_not_taken_for_the_runs(plane_run: PlaneRun, tmp_path: Path) -> None:
    run, _ = plane_run()
    datasets.prepare("toy", tmp_path / "data", size=70)
    data = data_of(run)
    assert data is not None
    assert "prepared anew" in str(trouble(run, data))


def test_no_code_of_the_users_is_run_because_a_runs_folder_names_it(
    plane_run: PlaneRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = plane_run()
    model = run.config.model.model_copy(update={"network": "this.module:network"})
    monkeypatch.setitem(vars(run), "config", run.config.model_copy(update={"model": model}))
    assert "user's own code" in str(trouble(run, data))


def test_parameters_that_are_damaged_or_of_another_network_are_refused(plane_run: PlaneRun) -> None:
    run, data = plane_run()
    path = RunFolder(run.path).parameters
    save_parameters(path, torch.nn.Linear(2, 3))
    with pytest.raises(RunError, match="parameters of another model"):
        load(run, data)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DamagedError, match="is damaged"):
        load(run, data)


def test_its_provenance_names_parameters_and_examples(plane_run: Callable[..., tuple[Run, Any]]) -> None:
    run, data = plane_run()
    found: Any = made_of(run, data)
    assert len(found["parameters"]["sha256"]) == 64
    assert found["dataset"] == {"name": "toy", "fingerprint": data.fingerprint}
