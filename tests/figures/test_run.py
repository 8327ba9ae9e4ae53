"""The figure of one run."""

from collections.abc import Callable

import numpy as np

from issgd_cli.claims import load_run
from issgd_cli.figures import run as run_figure
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.traces import Row


def test_records_are_lines_and_audits_circles(make_run: Callable[..., RunFolder]) -> None:
    picture = run_figure.figure(load_run(make_run()))
    loss = picture.axes[0]
    markers = [line.get_marker() for line in loss.lines]
    assert markers == ["None", "o"] * 3
    legend = loss.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train", "valid", "test"]


def test_traces_are_square_roots_and_negative_ones_gaps(make_run: Callable[..., RunFolder]) -> None:
    def negative(row: Row) -> Row:
        return row._replace(value=-4.0) if row.quantity == "trace/ideal" and row.step == 25 else row

    run = load_run(make_run(change=negative))
    panel = run_figure.load(run)[2]
    ideal = next(line for line in panel.lines if line.label == "ideal")
    assert np.isnan(ideal.records.values[1])
    assert ideal.records.values[0] == np.sqrt(run.series("trace/ideal").values[0])
    assert "1 negative traces" in run_figure.figure(run).get_supxlabel()


def test_a_failed_run_says_why_and_empty_panels_say_so(make_run: Callable[..., RunFolder]) -> None:
    picture = run_figure.figure(load_run(make_run(state="failed", until=-1)))
    assert "worker-1: out of memory" in picture.get_supxlabel()
    assert [axes.texts[0].get_text() for axes in picture.axes][:3] == ["No records."] * 3
