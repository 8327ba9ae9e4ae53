"""The staleness map's figure and table, from cells made for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from issgd_cli.claims import Run, Runs
from issgd_cli.errors import RunError
from issgd_cli.experiments.staleness_map import Cell, as_csv
from issgd_cli.figures import staleness, style
from issgd_cli.runs.traces import Row


def write_map(path: Path, worse_from: int = 10**9) -> Path:
    """Two workers' counts, two smoothings: ratios 0.8, but 1.2 where there are fewer workers than `worse_from`."""
    rows = [
        Cell(workers, every, name, step, 100.0 * (0.64 if workers >= worse_from else 1.44), 49.0, 100.0, 5.0)
        for workers in (0, 1, 8)
        for every in (32, 128)
        for name in ("+1", "variance-optimal")
        for step in (0, 128)
    ]
    path.write_text(as_csv(rows))
    return path


def test_the_table_tells_the_fewest_workers_and_how_often_it_is_worse_than_sgd(tmp_path: Path) -> None:
    found = staleness.load({("a", 0): write_map(tmp_path / "0.csv", worse_from=8)})
    lines = staleness.tables(found, None).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2] == "| a | +1 | 32 | 8 | 0.800 | 50% |"
    never = staleness.load({("a", 0): write_map(tmp_path / "1.csv")})
    assert staleness.tables(never, None).splitlines()[2] == "| a | +1 | 32 | none of these | 1.200 | 100% |"


def test_each_setting_has_a_row_and_each_interval_a_column_and_real_training_another(
    tmp_path: Path, experiment: Runs
) -> None:
    found = staleness.load({(name, 0): write_map(tmp_path / f"{name}.csv") for name in ("a", "b")})
    with style.style():
        alone, beside = staleness.figure(found, None), staleness.figure(found, experiment)
    assert [len(picture.axes) for picture in (alone, beside)] == [4, 6]
    axes = alone.axes[0]
    curves = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.get_lines()}
    np.testing.assert_allclose(curves["+1"], 1.2)
    np.testing.assert_allclose(curves["ideal"], 0.7)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "8"]
    assert "real training" in beside.axes[2].get_title()


def test_a_file_that_is_no_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match="not a staleness map"):
        staleness.load({("a", 0): tmp_path / "x.csv"})


def test_uniform_draws_are_neither_better_nor_worse_however_they_are_rounded(tmp_path: Path) -> None:
    rows = [
        Cell(1, 32, "variance-optimal", step, 100.0 + sign * 3e-14, 49.0, 100.0, 5.0)
        for step, sign in enumerate((1, -1))
    ]
    (tmp_path / "0.csv").write_text(as_csv(rows))
    assert "none of these | 1.000 | 0% |" in staleness.tables(staleness.load({("a", 0): tmp_path / "0.csv"}), None)


def test_fewest_workers_are_those_beyond_which_no_larger_cluster_is_worse(tmp_path: Path) -> None:
    ratios = {1: 0.9, 2: 1.1, 3: 0.9, 8: 0.8}
    rows = [Cell(workers, 32, "+1", 8, 100 * ratio**2, 49.0, 100.0, 5.0) for workers, ratio in ratios.items()]
    (tmp_path / "0.csv").write_text(as_csv(rows))
    assert "| 32 | 3 | 0.800 | 25% |" in staleness.tables(staleness.load({("a", 0): tmp_path / "0.csv"}), None)


def test_real_training_is_told_relative_to_plain_sgd_seed_by_seed(tmp_path: Path, experiment: Runs) -> None:
    found = staleness.load({("a", 0): write_map(tmp_path / "0.csv")})

    def trained(run: Run, workers: int, times: float) -> Run:
        """The same, with so many workers and audited losses that are so many times seed 1 or 2's own."""
        config = run.config.model_copy(update={"worker": run.config.worker.model_copy(update={"count": workers})})
        rows = [Row(10 * place, 0.0, "audit/loss/train", times * run.seed * loss) for place, loss in enumerate((2, 1))]
        return replace(run, config=config, trace=pd.DataFrame(rows))

    some = [replace(run, seed=seed) for seed, run in enumerate(experiment.of("a", "issgd")[:2], 1)]
    runs = [trained(run, 0, 1.0) for run in some]
    runs += [trained(run, 3, 0.9 if run.seed == 1 else 1.25) for run in some]
    told = staleness.tables(found, Runs("made", tuple(runs), len(runs)))
    assert told.splitlines()[-1] == "| a | +10 | 3 | -10.0% to +25.0% (2) |"
    assert "relative to plain" not in staleness.tables(found, Runs("made", tuple(runs[2:]), 2))
