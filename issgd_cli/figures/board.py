"""The scoreboard: how much work each method takes to get where reshuffled SGD gets, task by task. Nobody's figure."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from issgd_cli.claims.choice import WORDS
from issgd_cli.claims.evidence import Runs
from issgd_cli.claims.quantiles import coverage
from issgd_cli.claims.scoreboard import ANOTHER, BASELINE, Board, board, sentences, told_of
from issgd_cli.claims.targets import RUN
from issgd_cli.claims.verdicts import PerSeed
from issgd_cli.figures import style
from issgd_cli.figures.outputs import finite
from issgd_cli.files import write_text, writing

NAME = "board"
COLUMNS = 4  # of panels, at most
LEAST, MOST = 0.25, 4.0  # ratios beyond these are drawn at the edge
MARKS = {"training loss": ("o", "full"), "test error": ("D", "none")}


def at_equal_work(tasks: Mapping[str, Runs]) -> dict[str, Runs]:
    """The experiment's tasks whose runs all end at one work, reshuffled SGD's among them; none: it has no board."""
    return {
        task or runs.name: runs
        for task, runs in tasks.items()
        if len({run.config.master.work for run in runs.runs} - {None}) == 1
        and all(run.config.master.work for run in runs.runs)
        and len(runs.methods) > 1
        and any(run.finished and not run.chooses for run in runs.of(method=BASELINE))
    }


def write(tasks: Mapping[str, Runs], out: Path, command: Sequence[str] = ()) -> tuple[list[Path], list[str]]:
    """Writes board.{png,pdf,json,md}; these files, and what the board says in words.

    Args:
        tasks: As `at_equal_work` gives them.
        out: The experiment's folder.
        command: What the user typed.
    """
    found = board(tasks)
    with style.style():
        paths = style.save(figure(found), out / NAME)
    runs = {task: runs.tally() for task, runs in tasks.items()}
    content = {"command": list(command), "runs": runs, **found.plain()}
    texts = {
        f"{NAME}.json": json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        f"{NAME}.md": page(found),
    }
    for name, text in texts.items():
        with writing(out / name, style.ELSEWHERE):
            write_text(out / name, text)
    return [*paths, *(out / name for name in texts)], sentences(found)


def figure(found: Board) -> Figure:
    """A panel a task, a line a method, a mark a target: the median over seeds, and its interval."""
    columns = min(COLUMNS, len(found.tasks))
    rows = -(-len(found.tasks) // columns)
    picture = style.new_figure(max(2.6 * columns + 1.6, 6.4), (0.27 * len(found.methods) + 0.75) * rows + 1.2)
    picture.set_layout_engine("constrained")
    panels = picture.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axes, task in zip(panels, found.tasks, strict=False):
        _draw(axes, found, task)
    for axes in panels[len(found.tasks) :]:
        axes.set_visible(False)
    style.legend_above(panels[0])
    style.footnote(picture, notes(found))
    return picture


def notes(found: Board) -> list[str]:
    """Lines of the footnote."""
    counts = {len(ratios) for ratios in _all(found) if ratios.interval is not None}
    least = min(map(coverage, counts), default=0.0)
    sure = f"exact intervals between two of the seeds' own values ({least:.1%} or more)" if counts else ""
    chosen = ", each at the learning rates that are best for it" if len(found.ratios) > len(MARKS) else ""
    return [
        f"Work to reach the training loss that reshuffled SGD has at {RUN:.0%} of the work that all do, and its best "
        "test error until then, over its own work to reach them; medians over seeds of the same initial weights"
        f"{', ' + sure if sure else ''}{chosen}. Left of 1 is "
        "better; at the right edge: never reached in the median, or with four times the work. Curves are smoothed by a "
        f"running median of five audits ({found.audits}); work is every actor's. Bold: ours. Thin lines: from the "
        "least ratio to the largest, of fewer than six seeds, and of reshuffled SGD's to the target of another seed, "
        "as chance has it.",
    ]


def page(found: Board) -> str:
    """board.md: what it says in words, then a table a target."""
    sections = ["# Work to get where reshuffled SGD gets", "\n".join(f"- {line}" for line in sentences(found))]
    sections.append(
        "In brackets: an interval of the median over seeds, two of their own values, and how many seeds there are, or "
        f"how many of them get there. {ANOTHER}: from the least to the largest ratio of reshuffled SGD's own runs to "
        f"the target of the seed before, as chance has it. {found.audits[0].upper()}{found.audits[1:]}."
    )
    for target, tasks in found.ratios.items():
        rows = [["", *tasks], ["---"] * (1 + len(tasks))]
        for method in found.methods:
            rows.append([method, *(_cell(method, row.get(method)) for row in tasks.values())])
        sections += [f"## {target[0].upper()}{target[1:]}", _table(rows)]
    if any(len(seconds) for row in found.seconds.values() for seconds in row.values()):
        rows = [["", *found.seconds], ["---"] * (1 + len(found.seconds))]
        rows += [
            [method, *(_cell(method, row.get(method)) for row in found.seconds.values())] for method in found.methods
        ]
        sections += [
            "## The same in seconds: training loss",
            "Of training alone, without the audits; where both runs were made on one machine, with whatever ran beside "
            "them.",
            _table([row for row in rows if any(row[1:])]),
        ]
    rows = [["", *found.tasks], ["---"] * (1 + len(found.tasks))]
    for method in found.methods:
        rates = [found.rates(task, method) for task in found.tasks]
        rows.append([method, *(", ".join(f"{rate:g}" for rate in each) for each in rates)])
    sections += [
        "## Learning rates",
        "Where there are two: of the lowest training loss, and the one that validates best.",
        _table([row for row in rows if any(row[1:])]),
        *_margins(found),
        "## Made on",
        "\n".join(
            f"- {machine or 'a machine that is not known'}: "
            + ", ".join(f"{count} run{'s' * (count > 1)} of {method}" for method, count in counts.items())
            for machine, counts in found.machines.items()
        ),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _margins(found: Board) -> list[str]:
    sections = []
    for by, tasks in found.margins.items():
        rows = [["", *tasks], ["---"] * (1 + len(tasks))]
        for method in found.methods:
            ends = [row.get(method, ()) for row in tasks.values()]
            rows.append([method, *(" before ".join(f"{end:.3g}" for end in each) for each in ends)])
        sections += [
            f"## What the rates were chosen by: {WORDS[by]}",
            "In the mean over the seeds that choose: the lowest, and that of the rate that came next.",
            _table([row for row in rows if any(row[1:])]),
        ]
    return sections


def _cell(method: str, ratios: PerSeed | None) -> str:
    if ratios is None or not len(ratios):
        return ""
    return _range(ratios) if method == ANOTHER else told_of(ratios)


def _range(ratios: PerSeed) -> str:
    return " to ".join(ratios.word(ratio, ".2f") for ratio in (ratios.values.min(), ratios.values.max()))


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _draw(axes: Axes, found: Board, task: str) -> None:
    methods = [method for method in found.methods[::-1] if method != BASELINE]  # the first at the top
    axes.axvline(1.0, color=style.BLUE, linewidth=1.2, label=style.NAMES[BASELINE])
    for place, (target, (marker, filled)) in enumerate(MARKS.items()):
        row = found.ratios.get(target, {}).get(task, {})
        for height, method in enumerate(methods):
            if not len(row.get(method, ())) or method in found.elsewhere.get(target, {}).get(task, ()):
                continue  # what is not at its best rate is in the tables alone
            color = style.GREEN if method in found.ours else "#444444"
            at = height + 0.16 - 0.32 * place
            # Below six seeds, and of what chance does, a thin line, from the least to the largest.
            interval = None if method == ANOTHER else row[method].interval
            span = interval or (row[method].values.min(), row[method].values.max())
            axes.plot(np.clip(span, LEAST, MOST), [at, at], color=color, linewidth=1.4 if interval else 0.5)
            if method == ANOTHER:
                continue
            looks: dict[str, Any] = {"marker": marker, "fillstyle": filled, "color": color, "linestyle": "none"}
            axes.plot(np.clip(row[method].median, LEAST, MOST), at, markersize=4.5, clip_on=False, zorder=3, **looks)
    axes.set_title(task)
    axes.set_xscale("log", base=2)
    axes.set_xlim(LEAST, MOST)
    axes.set_xticks([0.25, 0.5, 1.0, 2.0, 4.0], ["1/4", "1/2", "1", "2", "never"])
    axes.set_ylim(-0.6, len(methods) - 0.4)
    axes.set_yticks(range(len(methods)), [style.NAMES.get(method, method) for method in methods])
    if axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
        for label, method in zip(axes.get_yticklabels(), methods, strict=True):
            label.set_fontweight("bold" if method in found.ours else "normal")
    for target, (marker, filled) in MARKS.items():
        looks = {"marker": marker, "fillstyle": filled, "color": "#444444", "linestyle": "none"}
        axes.plot([], [], label=target, **looks)


def _all(found: Board) -> list[PerSeed]:
    return [ratios for tasks in found.ratios.values() for row in tasks.values() for ratios in row.values()]
