"""Figures 2, 3 and 4: the curves they hold, and what they say of runs that are not there."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from issgd_cli.claims import Runs, load
from issgd_cli.claims.quantiles import Axis, Bands
from issgd_cli.figures import figure_2, figure_3, figure_4, style
from issgd_cli.figures.curves import Curve, Panel
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.traces import Row


@pytest.fixture
def figure() -> Iterator[Figure]:
    with style.style():
        yield style.new_figure(9, 6)


def curve(values: list[float]) -> Curve:
    row = np.array(values, np.float64)
    return Curve("x", Bands(np.arange(len(row), dtype=np.float64), row, row, row, None, 3), {"color": "k"})


def test_figure_2_has_losses_above_errors_and_a_column_a_setting(experiment: Runs) -> None:
    panels = figure_2.load(experiment)
    assert [[panel.ylabel for panel in row] for row in panels] == [
        ["training loss"] * 2,
        ["training prediction error"] * 2,
    ]
    assert [panel.title for panel in panels[0]] == [
        "(a) learning rate 0.01, add smoothing +10.0",
        "(b) learning rate 0.001, add smoothing +1.0",
    ]


def test_the_curves_are_the_medians_of_the_traces(experiment: Runs) -> None:
    issgd, sgd = figure_2.load(experiment, axis="steps")[0][0].curves
    finals = [run.series("loss/train").values[-1] for run in experiment.of("a", "issgd")]
    assert issgd.bands.median[-1] == np.median(finals)
    assert (issgd.label, issgd.line["color"]) == ("ISSGD", "#00a65a")
    assert (sgd.label, sgd.line["color"]) == ("SGD", "#0000FF")
    assert issgd.line["linestyle"] != sgd.line["linestyle"]  # told apart without colours


def test_methods_look_as_they_are_whatever_their_labels(experiment: Runs) -> None:
    labels = {"issgd": "three workers", "sgd": "a baseline"}
    renamed = replace(experiment, runs=tuple(replace(run, method=labels[run.method]) for run in experiment.runs))
    known, other = style.looks(experiment), style.looks(renamed)
    assert {labels[method]: look for method, look in known.items()} == other
    assert [look.name for look in other.values()] == ["ISSGD", "SGD"]
    panels = figure_4.load(renamed), figure_4.load(experiment)
    assert len({tuple(curve.label for curve in panel[0][0].curves) for panel in panels}) == 1
    assert "ISSGD's runs (a: 3, b: 3)" in figure_4.notes(renamed, "audit", interval=False)[0]


def test_without_the_papers_method_another_that_draws_by_scores_is_shown(make_run: Callable[..., RunFolder]) -> None:
    runs = load([make_run("a", method) for method in ("sgd", "issgd-optimal", "sgd-again")])
    assert [(look.name, look.line["color"]) for look in style.looks(runs).values()] == [
        ("SGD", "#0000FF"),
        ("ISSGD (optimal)", "#00a65a"),
        ("SGD (again)", "#CC0077"),
    ]
    assert figure_4.load(runs)[0][0].curves
    assert "shown: ISSGD (optimal)'s runs" in figure_4.notes(runs, "audit", interval=False)[0]


def test_audits_are_drawn_where_they_were_made(experiment: Runs) -> None:
    found = figure_3.load(experiment, axis="steps", source="audit")[0][0].curves[0].bands
    np.testing.assert_array_equal(found.positions, np.arange(0, 3001, 250))


@pytest.mark.parametrize("axis", ["seconds", "steps", "examples"])
def test_every_axis_carries_its_unit(experiment: Runs, figure: Figure, axis: Axis) -> None:
    axes: Any = figure.subplots(1, 2, squeeze=False)
    figure_3.draw(axes, figure_3.load(experiment, axis), axis)
    expected = {
        "seconds": "time in seconds",
        "steps": "steps of the master",
        "examples": "work in examples",
    }
    assert axes[0][0].get_xlabel() == expected[axis]


def test_median_thick_quartiles_thin_and_the_legend_outside(experiment: Runs, figure: Figure) -> None:
    axes: Any = figure.subplots(2, 2, squeeze=False)
    figure_2.draw(axes, figure_2.load(experiment))
    widths = [line.get_linewidth() for line in axes[0][0].lines]
    assert widths == [0.7, 0.7, 2.2] * 2
    assert axes[0][0].get_legend() is None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ISSGD", "SGD"]


def test_no_band_below_six_runs_and_the_footnote_says_so(experiment: Runs) -> None:
    assert figure_2.load(experiment, interval=True)[0][0].curves[0].bands.interval is None
    assert "Below 6 runs no 95% interval" in " ".join(figure_2.notes(experiment, "database", True))


def test_a_band_from_six_runs_on(make_run: Callable[..., RunFolder]) -> None:
    runs = load([make_run("a", "issgd", seed) for seed in range(6)])
    interval = figure_2.load(runs, interval=True)[0][0].curves[0].bands.interval
    assert interval is not None
    assert (interval[0] <= interval[1]).all()
    assert "of 6 runs it covers 96.9%" in " ".join(figure_2.notes(runs, "database", True))
    assert "of 6 runs it covers 96.9%" in " ".join(figure_4.notes(runs, "database", True))


def test_figure_3_takes_the_papers_error_axis_only_where_the_data_fits() -> None:
    fits = Panel("", "", (curve([0.8, 0.5, 0.15, 0.12]),))
    too_high = Panel("", "", (curve([0.8, 0.7, 0.6, 0.5]),))
    assert figure_3.error_limits([fits]) == (-0.02, 0.20)
    assert figure_3.error_limits([fits, too_high]) == pytest.approx((-0.02, 0.84))
    assert figure_3.error_limits([]) == (-0.02, 0.20)


def test_figure_4_shows_the_smoothing_in_use_thick_and_the_others_settings_thin(experiment: Runs) -> None:
    a, b = figure_4.load(experiment)[0]
    labels = {found.label: found.width for found in a.curves}
    assert list(labels) == ["SGD, ideal", "ISSGD, stale (+10) (actual)", "ISSGD, stale (+1)", "ISSGD, ideal"]
    assert labels["ISSGD, stale (+10) (actual)"] > labels["ISSGD, stale (+1)"]
    assert [found.label for found in b.curves][1:3] == ["ISSGD, stale (+1) (actual)", "ISSGD, stale (+10)"]


def test_figure_4_shows_square_roots_of_issgd_runs(experiment: Runs) -> None:
    ideal = figure_4.load(experiment, axis="steps", source="audit")[0][0].curves[-1]
    finals = [run.series("audit/trace/ideal").values[-1] for run in experiment.of("a", "issgd")]
    assert ideal.bands.median[-1] == pytest.approx(np.sqrt(np.median(finals)))
    assert ideal.bands.runs == 3


def test_negative_traces_are_gaps_and_counted(make_run: Callable[..., RunFolder]) -> None:
    def negative(row: Row) -> Row:
        return row._replace(value=-1.0) if row.quantity == "trace/ideal" and row.step == 3000 else row

    runs = load([make_run("a", "issgd", seed, change=negative) for seed in range(3)])
    ideal = figure_4.load(runs)[0][0].curves[-1].bands
    assert np.isnan(ideal.median[-1])
    assert np.isfinite(ideal.median[-10])
    assert any(line.startswith("3 of ") and "gap" in line for line in figure_4.notes(runs, "database", False))


def test_a_curve_far_above_the_others_makes_the_axis_logarithmic(figure: Figure) -> None:
    axes: Any = figure.subplots(1, 2, squeeze=False)
    figure_4.draw(
        axes,
        [[Panel("", "y", (curve([1, 1, 1]), curve([90, 90, 90]))), Panel("", "y", (curve([1, 50]), curve([1, 90])))]],
    )
    assert [place.get_yscale() for place in axes[0]] == ["log", "linear"]


def test_failed_and_missing_runs_are_told_and_drawn_until_they_end(make_run: Callable[..., RunFolder]) -> None:
    folders = [make_run("a", "sgd", seed) for seed in range(2)]
    folders.append(make_run("a", "sgd", 2, state="failed", until=1000))
    runs = load(folders, expected=5)
    assert figure_2.notes(runs, "database", False)[0].startswith("2 of 5 runs finished, 1 failed, 2 missing (a SGD: 3)")
    assert "until their records end" in figure_2.notes(runs, "database", False)[1]
    found = figure_2.load(runs, axis="steps")[0][0].curves[0].bands
    ends = [run.series("loss/train").values[-1] for run in runs.runs if run.finished]
    assert found.median[-1] == pytest.approx(np.median(ends))


def test_a_panel_without_records_says_so(make_run: Callable[..., RunFolder], figure: Figure) -> None:
    runs = load([make_run("a", "sgd", 0, until=-1)])
    axes: Any = figure.subplots(2, 1, squeeze=False)
    figure_2.draw(axes, figure_2.load(runs))
    assert "No records" in axes[0][0].texts[0].get_text()


def test_further_methods_get_further_colours(make_run: Callable[..., RunFolder]) -> None:
    runs = load([make_run("a", method, 0) for method in ("issgd-variance-optimal", "sgd", "issgd")])
    labels = {found.label: found.line["color"] for found in figure_2.load(runs)[0][0].curves}
    assert list(labels) == ["ISSGD", "SGD", "ISSGD (variance-optimal)"]
    assert len(set(labels.values())) == 3


@pytest.mark.parametrize(
    ("columns", "labels"),
    [
        (2, ["SGD, ideal", "ISSGD, stale (+10) (actual)", "ISSGD, stale (+1)", "ISSGD, ideal"]),
        (3, ["SGD", "ISSGD, stale (+10) (actual)", "ISSGD"]),
        (1, ["SGD", "ISSGD, stale (variance-optimal) (actual)", "ISSGD, in use, drawn systematically", "ISSGD, ideal"]),
        (1, ["uniform draws", "in use", "in use, drawn systematically", "by today's norms at the outputs", "ideal"]),
        (1, ["one that is alone"]),
    ],
)
def test_a_legend_below_a_panel_reaches_no_other(columns: int, labels: list[str]) -> None:
    """Two panels as figure 4 has them: neither's legend is over the other's, nor beyond the figure."""
    with style.style():
        figure = style.new_figure(9.8, 4.0)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(1, 2)
        for axes in panels:
            for label in labels:
                axes.plot([0, 1], [0, 1], label=label)
            style.legend_below(axes)
        figure.draw_without_rendering()
        left, right = (axes.get_legend().get_window_extent() for axes in panels)
        places = {round(text.get_window_extent().x0) for text in panels[0].get_legend().get_texts()}
    assert len(places) == columns
    assert figure.bbox.x0 <= left.x0 < left.x1 <= right.x0 < right.x1 <= figure.bbox.x1
