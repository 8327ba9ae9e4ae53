"""The actors' timeline: which window it shows, its lanes, bars, arrows and barriers."""

from collections.abc import Callable, Iterator

import pandas as pd
import pytest
from matplotlib.axes import Axes

from issgd_cli.database.records import Event
from issgd_cli.figures import figure_1, style
from issgd_cli.runs.folder import RunFolder


@pytest.fixture
def axes() -> Iterator[Axes]:
    with style.style():
        yield style.new_figure(10, 3).subplots()


def test_exact_shows_barriers_around_each_wait(make_run: Callable[..., RunFolder], axes: Axes) -> None:
    timeline = figure_1.load(make_run(events=True, mode="exact"), "exact")
    assert timeline is not None
    waits = timeline.events[timeline.events["event"] == "wait"]
    assert set(waits["start"]) <= {*timeline.barriers, *waits["start"][waits["start"] < timeline.start]}
    assert len(timeline.barriers) >= 4
    figure_1.draw(axes, timeline, "exact")
    assert len(axes.collections) >= len(timeline.barriers)


def test_relaxed_has_no_barrier(make_run: Callable[..., RunFolder]) -> None:
    timeline = figure_1.load(make_run(events=True), "relaxed")
    assert timeline is not None
    assert timeline.barriers == ()


def test_lanes_are_master_database_workers(make_run: Callable[..., RunFolder], axes: Axes) -> None:
    timeline = figure_1.load(make_run(events=True), "relaxed")
    assert timeline is not None
    assert timeline.lanes == ("master", "database", "worker-0", "worker-1", "worker-2")
    figure_1.draw(axes, timeline, "relaxed")
    assert [text.get_text() for text in axes.get_yticklabels()][:3] == ["master", "database", "worker 0"]


def test_the_window_is_from_the_middle_and_readable(make_run: Callable[..., RunFolder]) -> None:
    folder = make_run(events=True)
    timeline = figure_1.load(folder, "relaxed")
    assert timeline is not None
    publishes = timeline.events[timeline.events["event"] == "publish"]["version"]
    assert set(publishes) & {5, 6, 7, 8}
    assert timeline.events["event"].isin(figure_1.ARROWS).sum() <= figure_1.MOST_ARROWS
    assert timeline.run.endswith("/seed-000")
    assert not timeline.run.startswith("/")


def test_steps_that_follow_each_other_are_one_bar() -> None:
    rows = [
        Event("master", 0.0, 1.0, "train", 1),
        Event("master", 1.05, 2.0, "train", 1),
        Event("master", 3.0, 4.0, "train", 1),
        Event("worker-0", 0.0, 1.0, "score", 1),
        Event("worker-0", 1.0, 2.0, "score", 1),
    ]
    found = figure_1.merged(pd.DataFrame(rows), gap=0.1)
    assert found[found["event"] == "train"][["start", "end"]].to_numpy().tolist() == [[0, 2], [3, 4]]
    assert (found["event"] == "score").sum() == 2  # chunks stay apart


@pytest.mark.parametrize("publishes", [None, 1])
def test_without_a_run_or_enough_publishes_the_panel_says_so(
    make_run: Callable[..., RunFolder], axes: Axes, publishes: int | None
) -> None:
    folder = None
    if publishes:
        folder = make_run(events=True)
        lines = folder.events.read_text().splitlines(keepends=True)
        folder.events.write_text("".join(line for line in lines if "publish" not in line))
    timeline = figure_1.load(folder, "exact")
    assert timeline is None
    figure_1.draw(axes, timeline, "exact")
    assert axes.texts[0].get_text() == "No exact run with recorded events."
    assert figure_1.notes({"exact": None, "relaxed": None})[0].startswith("0 of 2 runs shown.")
