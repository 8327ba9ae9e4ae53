"""Every benchmark runs, at a tiny size; the rivals compute the same; what is found is kept as it should be."""

import getpass
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.scores import score
from issgd_cli.scores.rules import linear
from tests.benchmarks import __main__ as suite
from tests.benchmarks import choosing, gpu, growth, preparing, processes, report, scoring, stage
from tests.benchmarks.report import Row
from tests.benchmarks.scale import QUICK, Scale
from tests.benchmarks.timing import Quartiles

pytestmark = pytest.mark.slow  # each times something for real


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a benchmark starts Python anew, this process does the work instead: loading torch takes seconds."""

    def here(function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    def here_once(function: Callable[..., Any], count: int, *args: Any) -> list[Any]:
        assert count == 1
        return [function(Barrier(1), *args)]

    monkeypatch.setattr(processes, "in_another", here)
    monkeypatch.setattr(processes, "at_once", here_once)


SOAK = ("methods", "networks")  # three networks, or four, by fifteen methods


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.soak) if name in SOAK else name for name in suite.NAMES]
)
def test_every_benchmark_runs(name: str) -> None:
    rows = suite.run(name, QUICK)
    assert rows
    for row in rows:
        if row.value is None:
            assert row.unit in ("refuses", "not asked")
        else:
            assert np.isfinite(row.value).all(), row
            assert row.value.lower <= row.value.median <= row.value.upper
        assert len(row.cells()) == len(report.COLUMNS)
    bars = {row.candidate for row in rows if row.bar is not None}
    assert bars or name == "growth"


def test_the_gpu_benchmark_runs_on_a_cpu() -> None:
    rows = gpu.rows(QUICK, torch.device("cpu"))
    measured = {(row.path, row.candidate) for row in rows}
    assert measured == {
        *((path, precision) for path in (gpu.STEP, gpu.SCORE, gpu.BOTH) for precision in ("float32", "bfloat16")),
        (gpu.DRAW, "float64"),
    }


@pytest.mark.parametrize("page", [gpu.of_networks, pytest.param(gpu.of_methods, marks=pytest.mark.soak)])
def test_the_gpu_benchmarks_other_pages_run_on_a_cpu(page: Callable[[Scale, torch.device], list[Row]]) -> None:
    rows = page(QUICK, torch.device("cpu"))
    assert len({row.path for row in rows}) > 1
    assert all(row.value is None or np.isfinite(row.value).all() for row in rows)


def test_the_gpu_benchmark_needs_nothing_but_torch_and_numpy() -> None:
    unneeded = ("pydantic", "redis", "rich", "typer", "scipy", "pandas", "matplotlib", "pooch", "opacus", "backpack")
    code = f"import sys, tests.benchmarks.gpu; assert not set({unneeded!r}) & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_the_gpu_benchmark_draws_in_proportion_to_its_weights() -> None:
    tiny = gpu.Stage(QUICK, torch.device("cpu"))
    indices, factors = tiny.draw(400_000)
    counts = torch.bincount(indices, minlength=QUICK.examples).double()
    expected = tiny.omega / tiny.omega.sum() * 400_000
    assert float(((counts - expected) ** 2 / expected).mean()) == pytest.approx(1, abs=0.15)  # chi squared
    torch.testing.assert_close(factors.double(), tiny.omega.mean() / tiny.omega[indices], rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_gpu_benchmark_trains_and_scores(precision: gpu.Precision) -> None:
    tiny = gpu.Stage(QUICK, torch.device("cpu"))
    before = [parameter.detach().clone() for parameter in tiny.model.parameters()]
    assert torch.isfinite(tiny.step(8, precision))
    assert all(not torch.equal(old, new) for old, new in zip(before, tiny.model.parameters(), strict=True))
    tiny.reduced.load(tiny.model)
    exact = score(cross_entropy, tiny.model, *tiny.gather(slice(8))).norms
    torch.testing.assert_close(tiny.score(8, precision), exact, rtol=1e-5 if precision == "float32" else 0.1, atol=0)


def test_every_way_to_the_norms_gives_the_same() -> None:
    model = stage.network(QUICK)
    inputs, labels = stage.minibatch(QUICK, 32)
    exact = score(cross_entropy, model.double(), inputs.double(), labels).squared_norms.float()
    for name, way in scoring.rivals(model.float()).items():
        for _ in range(2):  # what they keep between calls does no harm
            found = way(inputs, labels).detach()
            torch.testing.assert_close(found, exact, rtol=0.1 if name == scoring.REDUCED else 1e-4, atol=0, msg=name)


def test_the_excess_is_the_variance_that_inexact_weights_add() -> None:
    norms = np.array([0.0, 1.0, 2.0, 3.0])
    assert scoring.excess_second_moment(5 * norms, norms) == pytest.approx(0)
    # Uniform draws: mean(n^2) / mean(n)^2 - 1.
    assert scoring.excess_second_moment(np.ones(4), norms) == pytest.approx(3.5 / 2.25 - 1)
    assert scoring.excess_second_moment(np.array([1.0, 1.0, 0.0, 1.0]), norms) == np.inf


def test_made_up_files_are_read_by_scipy_and_compress_like_the_official_ones(tmp_path: Path) -> None:
    path = tmp_path / "train_32x32.mat"
    preparing.official(path, 300)
    held = scipy.io.loadmat(path)
    assert held["X"].shape == (32, 32, 3, 300)
    assert held["X"].dtype == np.uint8
    assert sorted(np.unique(held["y"])) == list(range(1, 11))
    assert held["y"].shape == (300, 1)
    neighbours = np.corrcoef(held["X"][0, 1:31].ravel(), held["X"][0, 2:32].ravel())[0, 1]
    assert neighbours > 0.5
    assert 0.78 < path.stat().st_size / held["X"].size < 0.83
    preparing.inflate([path])


def a_row(**changed: Any) -> Row:
    return Row(**({"path": "p", "candidate": "c", "size": "s", "value": Quartiles(1, 2, 3), "unit": "ms"} | changed))


def test_a_bar_is_met_when_the_lower_quartile_meets_it() -> None:
    assert a_row(bar=1.0).met
    assert a_row(bar=0.9).met is False
    assert a_row().met is None
    assert [a_row(bar=bar, counts=counts).verdict for bar, counts in ((1, True), (0, True), (1, False))] == [
        "met",
        "missed",
        "(met)",
    ]


def test_rerunning_one_benchmark_replaces_its_rows_only(tmp_path: Path) -> None:
    about = {"cpu": "Some CPU (R) 3.0", "cores": 2, "flags": [], "memory_gib": 8, "system": "Linux", "python": "3.11"}
    about = about | {"packages": {"torch": "2"}}
    report.write(tmp_path, about, {"one": [a_row()], "other": [a_row(candidate="old")]})
    path, table = report.write(tmp_path, about, {"other": [a_row(candidate="new", note="a note", bar=1.0)]})
    assert path.name == "some-cpu-r-3-0-2-cores.json"
    content = json.loads(path.read_text())["benchmarks"]
    assert content["one"]["rows"][0] | {"value": [1, 2, 3], "met": None} == content["one"]["rows"][0]
    assert [row["candidate"] for row in content["other"]["rows"]] == ["new"]
    page = table.read_text()
    assert "| p | new | s |  | 2 (1-3) ms | <= 1 | met |" in page
    assert "- new: a note" in page
    assert "old" not in page
    assert report.slug({**about, "gpu": "NVIDIA H200"}) == "nvidia-h200"


def test_the_machines_description_names_no_place_and_no_person() -> None:
    described = json.dumps(suite.description())
    assert "/" not in described
    assert getpass.getuser() not in described.split('"')
    assert socket.gethostname() not in described


def test_choices_are_summed_up_by_how_often_and_how_far_they_err() -> None:
    ratios = {"one": 0.5, "other": 1.04, "third": 2.0, "last": 1 / 3}
    choices = [choosing.Choice(shape, "this", "that", Quartiles.exactly(of), 1.0) for shape, of in ratios.items()]
    *each, right, mean, worst = choosing.reported(choosing.LINEAR, choices)
    assert [row.unit for row in each] == ["x the that", "x the that", "x the that, wrong", "x the that"]
    assert right.value == Quartiles.exactly(0.75)
    assert mean.value is not None
    assert mean.value.median == pytest.approx((1.04 * 2) ** 0.25)
    assert (worst.value, worst.size, worst.met) == (Quartiles.exactly(2.0), "third", False)


def test_a_model_that_errs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "gram_is_cheaper", lambda *sizes: True)
    monkeypatch.setattr(choosing, "LINEARS", ((1024, 64, 64),))  # 20 times as many multiplications
    monkeypatch.setattr(choosing, "CONVOLUTIONS", (choosing.Layer(3, 4, 8, 3),))
    worst = next(row for row in choosing.rows(QUICK) if row.candidate == choosing.WORST)
    assert worst.met is False


def test_the_growth_figure_is_drawn_from_its_rows(tmp_path: Path) -> None:
    rows = [a_row(path=path, at=at) for path in (growth.STEP, growth.REFRESH, growth.THROUGHPUT) for at in (1.0, 2.0)]
    paths = growth.draw(rows, tmp_path / "growth")
    assert [path.name for path in paths] == ["growth.png", "growth.pdf"]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_a_commands_peak_and_time_are_its_own(tmp_path: Path) -> None:
    code = "import time; held = b'x' * 60_000_000; time.sleep(0.2)"
    done = processes.command([sys.executable, "-S", "-c", code])
    assert done.seconds > 0.2
    assert 60e6 < done.peak_bytes < 120e6  # this process, with torch, is larger
