"""`--track`: runs on the pages of a tracker, while they go on and afterwards."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from issgd_cli import cli, trackers
from issgd_cli.cli import plot, track
from issgd_cli.errors import RunError
from issgd_cli.experiments import isolated
from issgd_cli.experiments import run as training
from issgd_cli.registries import Part
from issgd_cli.runs.traces import read_lines
from tests.figures.conftest import write_runs
from tests.pages import Page

Issgd = Callable[..., int]

EXPERIMENT = """
    name = "tiny"
    seeds = "0-1"
    master.steps = 12
    master.minibatch_size = 4
    model.hidden = [4]
    worker.chunk_size = 20
    cluster.kind = "simulated"
    methods = [{name = "issgd"}]
"""


@pytest.fixture
def issgd(monkeypatch: pytest.MonkeyPatch) -> Issgd:
    """Runs the command; its exit status."""

    def of(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["issgd", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return of


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Page]:
    """Those of the tracker `noted`, which is installed."""
    found: list[Page] = []
    monkeypatch.setattr(Page, "all", found)
    monkeypatch.setitem(trackers.TRACKERS.parts, "noted", Part("tests.pages:Page"))
    monkeypatch.setattr(trackers, "find_spec", lambda name: name == "noted" or None)
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of examples."""
    random = np.random.default_rng(0)
    path = tmp_path / "own.npz"
    np.savez(path, images=random.integers(0, 255, (60, 8), np.uint8), labels=random.integers(0, 3, 60, np.uint8))
    return path


def traces(pages: list[Page]) -> bool:
    """Whether each page is closed, and holds its run's trace."""
    return all(
        page.closed and sorted(page.rows) == sorted(row for _, row in read_lines(page.folder.trace)) for page in pages
    )


def test_a_tracker_that_nobody_knows_is_wrong_usage(issgd: Issgd, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "reproduce x.toml", "plot x"):
        assert issgd(*command.split(), "--track", "nonsense") == 2
        assert "'nonsense' is none of tensorboard" in capsys.readouterr().err


def test_a_tracker_that_is_not_installed_is_told_of_before_anything_is_done(
    issgd: Issgd, pages: list[Page], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, prepared = tmp_path / "results", tmp_path / "data"
    assert issgd("train", "--data", data, "--data-dir", prepared, "--results-dir", results, "--track", "wandb") == 1
    assert "wandb is not installed: pip install 'issgd[wandb]'" in capsys.readouterr().err
    assert not results.exists()
    assert not prepared.exists()


@pytest.mark.slow
def test_a_run_is_shown_while_it_trains_and_from_its_cut_when_it_goes_on(
    issgd: Issgd, pages: list[Page], data: Path, tmp_path: Path
) -> None:
    experiment = tmp_path / "tiny.toml"
    experiment.write_text(EXPERIMENT)
    arguments = ("train", experiment, "--data", data, "--data-dir", tmp_path / "data", "--results-dir", tmp_path)
    assert issgd(*arguments, "--track", "noted") == 0
    (page,) = pages
    assert len(page.rows) > 20
    assert traces(pages)
    page.folder.update_manifest(state="interrupted", checkpointed=False)
    shutil.rmtree(page.folder.checkpoint.parent)  # so that it goes on from its beginning
    assert issgd(*arguments, "--track", "noted", "--resume") == 0
    _, again = pages
    assert traces([again])


@pytest.fixture
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "write_outputs", lambda *arguments: None)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_figures")
def test_every_run_of_an_experiment_is_shown(
    issgd: Issgd, pages: list[Page], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "train", training.train)  # in this process, which has torch
    experiment = tmp_path / "tiny.toml"
    experiment.write_text(EXPERIMENT)
    settings = ("--set", f"data.name={data}", "--data-dir", tmp_path / "data", "--results-dir", tmp_path / "results")
    assert issgd("reproduce", experiment, *settings, "--track", "noted") == 0
    assert sorted(page.folder.path.name for page in pages) == ["seed-000", "seed-001"]
    assert traces(pages)
    assert issgd("reproduce", experiment, *settings, "--track", "noted") == 0  # all are finished
    assert len(pages) == 2


@pytest.mark.usefixtures("_no_figures")
def test_runs_that_are_over_are_shown_with_their_figures(
    issgd: Issgd, pages: list[Page], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = write_runs(tmp_path / "results", range(2), settings=("a",))
    assert issgd("plot", tmp_path / "results/quick", "--track", "noted") == 0
    assert [page.folder for page in pages] == sorted(folders, key=lambda folder: folder.path)
    assert traces(pages)
    assert f"Showed {len(folders)} runs to noted." in capsys.readouterr().out


def test_packed_runs_are_not_shown(pages: list[Page]) -> None:
    with pytest.raises(RunError, match=r"there is none\. Packed traces are for `issgd plot` alone"):
        track.show_all("noted", [])
    assert pages == []
