"""The scoreboard's picture, table and file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from issgd_cli.claims.scoreboard import board
from issgd_cli.figures import style
from issgd_cli.figures.board import MOST, at_equal_work, figure, page, write
from tests.contests import falling, task

TASKS = {
    "easy": task({"reshuffled": falling(), "second-moment": falling(2.0), "dlis": falling(0.5)}),
    "hard": task({"reshuffled": falling(), "second-moment": falling(1.1, 0.1), "low": falling(0.9, 0.1)}),
}


def test_a_board_is_of_runs_that_end_at_the_same_work() -> None:
    assert at_equal_work(TASKS) == TASKS
    assert at_equal_work({"": TASKS["easy"]}) == {"test": TASKS["easy"]}  # an experiment without datasets: its name
    no_limit = task({"reshuffled": falling(), "dlis": falling()})
    plain = [
        replace(
            run, config=run.config.model_copy(update={"master": run.config.master.model_copy(update={"work": None})})
        )
        for run in no_limit.runs
    ]
    assert at_equal_work({"one": replace(no_limit, runs=tuple(plain))}) == {}
    assert at_equal_work({"one": replace(no_limit, runs=tuple(plain[:1]) + no_limit.runs[1:])}) == {}
    assert at_equal_work({"one": task({"dlis": falling(), "low": falling()})}) == {}


def test_it_is_written_as_picture_table_and_numbers(tmp_path: Path) -> None:
    paths, said = write(TASKS, tmp_path, ["issgd", "plot"])
    assert sorted(path.name for path in paths) == ["board.json", "board.md", "board.pdf", "board.png"]
    with Image.open(tmp_path / "board.png") as picture:
        assert picture.width > 500
    content = json.loads((tmp_path / "board.json").read_text())
    assert content["command"] == ["issgd", "plot"]
    never = content["training loss"]["easy"]["dlis"]
    assert (never["ratio"], never["low"], never["seeds"]) == ("inf", "inf", 10)
    assert content["training loss"]["hard"]["second-moment"]["low"] < 1
    assert content["sentences"] == said != []


def test_a_table_has_every_method_and_task_and_says_never() -> None:
    text = page(board(TASKS))
    assert "| dlis | never (never to never; 0 of 10) |  |" in text
    assert "| reshuffled, another seed | 1.00 to 1.00 | 1.00 to 1.00 |" in text
    assert "| reshuffled | 1.00 (1.00 to 1.00; 10) | 1.00 (1.00 to 1.00; 10) |" in text
    assert "| second-moment | 0.01 | 0.01 |" in text  # learning rates


def test_below_six_seeds_there_is_no_interval() -> None:
    few = {"easy": task({"reshuffled": falling(), "low": falling(2.0)}, range(3))}
    assert "| low | 0.50, 0.50, 0.50 |" in page(board(few))


def test_each_task_has_a_panel_and_what_is_never_reached_lies_at_its_edge() -> None:
    with style.style():
        picture = figure(board(TASKS))
    easy, hard = (axes for axes in picture.axes if axes.get_visible())
    assert (easy.get_title(), hard.get_title()) == ("easy", "hard")
    labels = [label.get_text() for label in easy.get_yticklabels()]
    assert labels == ["LOW", "DLIS", "second-moment", "reshuffled, another seed"]
    drawn = [np.asarray(line.get_xydata(), np.float64) for line in easy.lines]
    points = [tuple(of_line[0]) for of_line in drawn if len(of_line) == 1]
    assert any(x == MOST and round(y) == labels.index("DLIS") for x, y in points)
    assert any(0.48 < x < 0.52 and round(y) == labels.index("second-moment") for x, y in points)
