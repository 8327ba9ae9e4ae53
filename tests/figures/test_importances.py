"""The picture of importances over a plane."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from issgd_cli import datasets
from issgd_cli.claims import load_run
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve
from issgd_cli.experiments import run as training
from issgd_cli.figures import importances, outputs, plane
from issgd_cli.figures.importances import figure, half, notes
from issgd_cli.runs.folder import RunFolder, hash_of

from .conftest import PlaneRun


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "RESOLUTION", 12)


def test_a_column_for_the_classes_one_for_the_norm_one_for_each_node(plane_run: PlaneRun) -> None:
    run, data = plane_run()
    found = plane.load(run, data)
    picture = figure(run, data)
    above, below = np.array(picture.axes[:10]).reshape(2, 5)
    assert [axes.get_title() for axes in above] == [
        "class, by nearest examples",
        "‖∂L/∂m‖, all output nodes",
        "|∂L/∂m₀|, node of class 0",
        "|∂L/∂m₁|, node of class 1",
        "|∂L/∂m₂|, node of class 2",
    ]
    for column, (top, bottom) in enumerate(zip(above[1:], below[1:], strict=True)):
        np.testing.assert_array_equal(top.images[0].get_array(), found.field[..., column])
        (dots,) = bottom.collections
        values = np.asarray(dots.get_array())
        assert sorted(values) == sorted(found.importances[:, column])
        assert (np.diff(values) >= 0).all()  # large ones are never hidden
        assert (np.diff(dots.get_sizes()) >= 0).all()
        places = {tuple(place): value for place, value in zip(dots.get_offsets(), values, strict=True)}
        assert places[tuple(found.points[7])] == found.importances[7, column]
    scales = {(mappable.norm.vmin, mappable.norm.vmax) for axes in above[1:] for mappable in axes.images}
    scales |= {(mappable.norm.vmin, mappable.norm.vmax) for axes in below[1:] for mappable in axes.collections}
    assert scales == {(0, max(found.field.max(), found.importances.max()))}
    assert f"all {found.examples:,} training examples" in picture.get_supxlabel()
    assert run.name in picture.get_suptitle()


def test_examples_have_their_class_colour_and_the_areas_the_networks(plane_run: PlaneRun) -> None:
    run, data = plane_run()
    found = plane.load(run, data)
    picture = figure(run, data)
    above, below = picture.axes[0], picture.axes[5]
    np.testing.assert_array_equal(above.images[0].get_array(), found.known)
    np.testing.assert_array_equal(below.images[0].get_array(), found.decided)
    dots = [group for group in below.collections if isinstance(group, PathCollection)]
    assert [len(np.asarray(group.get_offsets())) for group in dots] == np.bincount(found.labels).tolist()
    assert len(np.unique([np.asarray(group.get_facecolor())[0] for group in dots], axis=0)) == 3
    assert {text.get_text() for text in above.texts} == {"class 0", "class 1", "class 2"}


def test_of_many_nodes_the_first_are_shown_and_that_is_said(plane_run: PlaneRun, tmp_path: Path) -> None:
    labels = np.arange(90) % 12
    points = np.random.default_rng(0).normal(size=(90, 2)) + labels[:, None]
    np.savez(tmp_path / "many.npz", points=points, labels=labels)
    run, data = plane_run(f"data.name={datasets.prepare(str(tmp_path / 'many.npz'), tmp_path / 'data').name}")
    picture = figure(run, data)
    assert len(picture.axes) == 2 * (2 + importances.MOST_NODES) + 1  # and the scale
    assert "Of 12 output nodes the first 4 are shown" in picture.get_supxlabel()


def test_one_class_alone_has_no_importance_anywhere(plane_run: PlaneRun, tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(90, 2))
    np.savez(tmp_path / "one.npz", points=points, labels=np.zeros(90, np.int64))
    run, data = plane_run(f"data.name={datasets.prepare(str(tmp_path / 'one.npz'), tmp_path / 'data').name}")
    assert [axes.get_xlabel() for axes in figure(run, data).axes[4:6]] == ["all are 0"] * 2


def test_only_some_of_many_examples_are_told_of_as_such(plane_run: PlaneRun) -> None:
    run, data = plane_run()
    found = replace(plane.load(run, data), examples=123_456)
    assert f"the first {len(found.points)} of 123,456 training examples" in notes(run, found)[0]


def test_half_is_in_few_where_few_are_large() -> None:
    assert half(np.ones(10)) == 0.5
    assert half(np.array([0.0] * 9 + [1.0])) == 0.1
    assert half(np.array([1.0, 3.0, 2.0, 2.0])) == 0.5
    assert half(np.array([2.0])) == 1.0


def test_a_run_without_final_parameters_says_why_there_is_no_picture(plane_run: PlaneRun) -> None:
    run, data = plane_run(state="failed")
    RunFolder(run.path).parameters.unlink()
    picture = figure(run, data)
    (axes,) = picture.axes
    assert axes.texts[0].get_text() == "No final parameters: the run is failed."


@pytest.mark.slow
def test_any_run_on_a_plane_is_drawn_with_its_importances(tmp_path: Path) -> None:
    datasets.prepare("toy", tmp_path / "data", size=80)
    settings = ["data.name=toy", f"data.dir={tmp_path / 'data'}", "cluster.kind=alone", "proposal.method=online"]
    settings += ["master.steps=12", "master.minibatch_size=8", "model.hidden=[6]"]
    folder = RunFolder(tmp_path / "results" / "toy" / "online-12345678" / "seed-000")
    training.train(resolve(assignments(settings), "a test"), folder, command=[])
    paths = outputs.plot_run(folder, tmp_path / "out", command=["issgd", "plot"])
    kinds = ("png", "pdf", "json")
    assert [path.name for path in paths] == [f"{stem}.{kind}" for stem in ("run", "importances") for kind in kinds]
    for path in paths:
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    told = paths[-1].read_text()
    assert hash_of(folder.parameters) in told
    assert load_run(folder).manifest["dataset"]["fingerprint"] in told
    first = [path.read_bytes() for path in paths]
    outputs.plot_run(folder, tmp_path / "out", command=["issgd", "plot"])
    assert [path.read_bytes() for path in paths] == first
