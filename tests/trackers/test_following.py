"""Each row is shown once, while a trace grows, is cut and written again, or put in order, of one run or of several."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issgd_cli.errors import RunError, TrackerError
from issgd_cli.runs import cutting
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.traces import Row, TraceWriter, read_lines
from issgd_cli.trackers import following as module
from issgd_cli.trackers.following import Follower, following, show
from tests.pages import Page, Refusing
from tests.rows import row, written


def held(folder: RunFolder) -> list[Row]:
    return [row for _, row in read_lines(folder.trace)]


def test_rows_are_shown_as_they_come_each_once(folder: RunFolder, pages: list[Page]) -> None:
    follower = Follower(Page, folder)
    follower.look()
    assert pages == []  # nothing to show yet
    for step in range(3):
        written(folder.trace, [row(step), row(step, "error/train"), row(step, "loss/test", float("inf"))])
        follower.look()
        follower.look()
        (page,) = pages
        assert page.rows == held(folder)
    follower.close()
    assert page.closed


def test_a_row_that_is_still_being_written_is_shown_once_it_is_whole(folder: RunFolder, pages: list[Page]) -> None:
    follower = Follower(Page, folder)
    written(folder.trace, [row(0), row(1, value=0.25)])
    text = folder.trace.read_text()
    for end in (text.rindex("0.25") + 3, len(text)):
        folder.trace.write_text(text[:end])
        follower.look()
    (page,) = pages
    assert page.rows == [row(0), row(1, value=0.25)]


def test_rows_that_were_taken_back_are_on_no_page_that_is_open(folder: RunFolder, pages: list[Page]) -> None:
    follower = Follower(Page, folder)
    written(folder.trace, [row(0), row(1), row(2, value=1.0)])
    follower.look()
    cutting.drop_from(folder.trace, 1)
    follower.look()
    written(folder.trace, [row(1), row(2, value=2.0), row(3)])
    follower.look()
    first, second = pages
    assert first.closed
    assert not second.closed
    assert second.rows == held(folder) == [row(0), row(1), row(2, value=2.0), row(3)]


def test_a_trace_that_is_put_in_order_stays_on_its_page(folder: RunFolder, pages: list[Page]) -> None:
    follower = Follower(Page, folder)
    rows = [row(0), row(0, "audit/loss/train"), row(1)]
    written(folder.trace, rows)
    follower.look()
    writer = TraceWriter(folder.trace, Row._fields)
    writer.put_in_order()
    writer.close()
    assert held(folder) != rows
    follower.look()
    (page,) = pages
    assert page.rows == rows


def test_of_a_resumed_run_the_page_begins_with_the_cut(folder: RunFolder, pages: list[Page]) -> None:
    written(folder.trace, [row(0), row(1), row(2, value=1.0)])
    follower = Follower(Page, folder, old=False)
    follower.look()
    assert pages == []
    cutting.drop_from(folder.trace, 2)
    follower.look()
    written(folder.trace, [row(2, value=2.0)])
    follower.look()
    (page,) = pages
    assert page.rows == [row(0), row(1), row(2, value=2.0)]


def test_a_resumed_run_from_whose_trace_nothing_was_cut_is_shown_whole(folder: RunFolder, pages: list[Page]) -> None:
    written(folder.trace, [row(0), row(1)])
    follower = Follower(Page, folder, old=False)
    cutting.drop_from(folder.trace, 2)
    follower.look()
    assert [page.rows for page in pages] == [[row(0), row(1)]]


# What is done, and a number: of the step to cut at, or of the rows to write.
changes = st.lists(st.tuples(st.sampled_from(["look", "cut", "write"]), st.integers(0, 4)), max_size=12)


@given(changes)
def test_whatever_happens_the_open_page_shows_the_trace(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, int]]
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    pages: list[Page] = []

    def start(folder: RunFolder) -> Page:
        pages.append(Page(folder))
        return pages[-1]

    follower, step = Follower(start, folder), 0
    for when, (change, number) in enumerate([*story, ("write", 1), ("look", 0)]):
        if change == "look":
            follower.look()
        elif change == "cut":
            step = min(step, number)
            cutting.drop_from(folder.trace, step)
        elif number:
            written(folder.trace, [row(step + more, value=float(when)) for more in range(number)])
            step += number
    assert sorted(pages[-1].rows) == sorted(held(folder))
    assert [page.closed for page in pages] == [True] * (len(pages) - 1) + [False]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.usefixtures("quick")
def test_runs_are_followed_while_they_go_on_each_on_its_page(tmp_path: Path, pages: list[Page]) -> None:
    one, other = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "other")
    told: list[str] = []
    with following(Page, one, told.append), following(Page, other, told.append):
        for folder in (one, other):
            folder.path.mkdir()
            written(folder.trace, [row(0)])
        until(lambda: [page.rows for page in pages] == [[row(0)], [row(0)]])
        written(one.trace, [row(1)])
    assert {page.folder: page.rows for page in pages} == {one: [row(0), row(1)], other: [row(0)]}
    assert all(page.closed for page in pages)
    assert told == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("following")]


def test_what_came_last_is_shown_when_a_run_ends_whatever_ends_it(folder: RunFolder, pages: list[Page]) -> None:
    def run() -> None:
        with following(Page, folder, print):
            written(folder.trace, [row(0)])
            raise RunError("the end")

    with pytest.raises(RunError, match="the end"):
        run()
    (page,) = pages
    assert page.closed
    assert page.rows == [row(0)]


@pytest.mark.usefixtures("quick")
def test_a_tracker_that_fails_is_told_of_and_the_run_goes_on(folder: RunFolder, pages: list[Page]) -> None:
    told: list[str] = []
    with following(Refusing, folder, told.append):
        written(folder.trace, [row(0)])
        until(lambda: told != [])
        written(folder.trace, [row(1)])
    (sentence,) = told
    assert f"takes no more of {folder.trace} (nobody answers). The run goes on" in sentence
    assert [page.closed for page in pages] == [True]


def test_all_of_a_run_that_is_over_is_shown_or_it_fails(folder: RunFolder, pages: list[Page]) -> None:
    written(folder.trace, [row(0), row(1)])
    show(Page, folder)
    (page,) = pages
    assert page.closed
    assert page.rows == [row(0), row(1)]
    with pytest.raises(TrackerError, match="nobody answers"):
        show(Refusing, folder)
    folder.trace.write_text("nonsense\n")
    with pytest.raises(RunError, match="is not a table"):
        show(Page, folder)
