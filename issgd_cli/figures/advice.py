"""The figure of advice.json, and advice.html, a page that needs nothing else."""

import html
import json
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from issgd_cli.figures import advice_words as words
from issgd_cli.figures import markup, page, style
from issgd_cli.figures.advice_words import Told
from issgd_cli.files import write_text, writing

# Methods whose variance is drawn over the run, by their labels.
LOOKS: dict[str, dict[str, Any]] = {
    "reshuffled": {"color": style.BLUE, "linestyle": (0, (5, 1.5)), "linewidth": 1.4},
    "ideal": {"color": style.GREEN, "marker": "*"},
    "looking": {"color": "#7B3294", "marker": "D"},
    "second-moment": {"color": style.ORANGE, "marker": "s"},
    "online": {"color": "#CC0077", "marker": "^"},
    "issgd-3": {"color": "#00868B", "marker": "v"},
}


def figure(told: Told) -> Figure:
    """Uneven over the run, stale by age, and what it comes to."""
    picture = style.new_figure(13, 5.0)
    picture.set_layout_engine("constrained")
    left, middle, right = picture.subplots(1, 3, width_ratios=(1, 1, 1.05))
    _draw_run(left, told)
    _draw_ages(middle, told)
    _draw_work(right, told)
    trial = told["trial"]
    picture.suptitle(f"{trial['network']} on {trial['data']}: {_short(told)}", fontsize=11, x=0.01, ha="left")
    style.footnote(
        picture,
        [
            f"{trial['measured']:,} of {trial['examples']:,} examples at {len(told['moments'])} moments of "
            f"{trial['steps']:,} steps of reshuffled SGD, learning rate {trial['learning_rate']:g}, minibatches of "
            f"{trial['minibatch_size']}, seed {trial['seed']}. Bars: sampling error of the trial alone, of work "
            f"({told['certainty']:.0%} of {told['resamples']} bootstrap resamples of the examples). Work counts "
            "operations, of workers too; seconds are the same on this device, one after the other. Tr(Sigma) of "
            "methods is with norms as old as their tables would have held them."
        ],
    )
    return picture


def _short(told: Told) -> str:
    choice = words.method(told, told["choice"])
    if choice["name"] == told["methods"][0]["name"]:
        return "draw uniformly"
    return (
        f"{choice['name']} is predicted to take {choice['seconds']:.2f} of reshuffled SGD's seconds on this device, "
        f"{choice['work']:.2f} of its work"
    )


def _draw_run(axes: Axes, told: Told) -> None:
    found = told["moments"]
    steps = [one["step"] for one in found]
    of_square = [one["variance_share"] for one in found]
    axes.plot(steps, of_square, color="#555555", linestyle=(0, (1, 1)), label="variance's share of a square")
    for label, look in LOOKS.items():
        one = next((one for one in told["methods"] if one["label"] == label), None)
        if one is not None:
            axes.plot(steps, one["trace_by_moment"], markersize=4, label=one["name"], **look)
    axes.set_ylim(0, min(2.0, max(1.05, *axes.get_ylim())))
    axes.set_xlim(0, told["trial"]["steps"])
    axes.set_xlabel("step")
    axes.set_ylabel("a minibatch's variance / a plain one's")
    axes.set_title("How uneven: variance over the run")
    _legend(axes)


def _draw_ages(axes: Axes, told: Told) -> None:
    found = told["moments"]
    shown = {"early": found[0], "middle": found[len(found) // 2], "late": found[-1]}
    highest, colours = 1.0, ("#9ecae1", "#4292c6", "#08306b")
    axes.axhline(1.0, **LOOKS["reshuffled"])
    ages = [int(age) for age in found[-1]["by_age"]]
    for (when, one), colour in zip(shown.items(), colours, strict=True):
        known = ages[: len(one["by_age"])]
        best, plain = ([at[what] for at in one["by_age"].values()] for what in ("best", "unsmoothed"))
        axes.plot(known, best, color=colour, marker="o", markersize=4, label=f"{when} (step {one['step']:,})")
        axes.plot(known, plain, color=colour, linestyle=(0, (1, 1)), linewidth=1.2)
        axes.plot([ages[0] / 2], [one["ideal"]], color=colour, marker="*", markersize=9, linestyle="")
        highest = max(highest, *plain)
    axes.plot([], [], color="#555555", marker="*", markersize=9, linestyle="", label="ideal")
    axes.plot([], [], color="#555555", linestyle=(0, (1, 1)), label="without smoothing")
    epoch = told["trial"]["steps_an_epoch"]
    axes.set_xscale("log", base=4)
    axes.set_xlim(ages[0] / 2.8, max(ages[-1], epoch) * 1.4)
    axes.set_xticks([ages[0] / 2, *ages], ["0", *(f"{age:,}" for age in ages)])
    axes.set_xticks([], minor=True)
    axes.axvline(epoch, color="#999999", linewidth=0.8)
    place = (epoch / 1.05, 0.02)
    axes.annotate("an epoch", place, xycoords=("data", "axes fraction"), fontsize=7.5, color="#666666", ha="right")
    axes.set_ylim(0, min(1.05 * highest, 2.0))
    axes.set_xlabel("age of the norms in steps")
    axes.set_title("How stale: variance by the norms' age")
    _legend(axes)


def _draw_work(axes: Axes, told: Told) -> None:
    shown = list(reversed(told["methods"]))
    for place, one in enumerate(shown):
        colour = style.GREEN if one["name"] == told["choice"] else "#333333" if one["settings"] else "#999999"
        if one["workers"]:
            axes.plot([one["steps"], one["work"]], [place, place], color="#cccccc", linewidth=0.8)
            axes.plot([one["steps"]], [place], "D", color=colour, markersize=4.5, markerfacecolor="white")
        axes.plot([one["work_low"], one["work_high"]], [place, place], color=colour, linewidth=5, alpha=0.35)
        axes.plot([one["work"]], [place], "o", color=colour, markersize=5)
        axes.plot([one["seconds"]], [place], "x", color=colour, markersize=5)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
        axes.annotate(
            f"{one['work']:.2f}", (one["work"], place + 0.2), fontsize=7.5, ha="center", color=colour, bbox=box
        )
    axes.axvline(1.0, zorder=0, **LOOKS["reshuffled"])
    axes.plot([], [], "o", color="#333333", label="work")
    axes.plot([], [], "x", color="#333333", label="seconds on this device")
    axes.plot([], [], "D", color="#333333", markerfacecolor="white", markersize=4.5, label="steps, devices to spare")
    low = min(min(one["work_low"], one["steps"], one["seconds"]) for one in shown) / 1.2
    high = max(max(one["work_high"], one["seconds"]) for one in shown) * 1.3
    ticks = [tick for tick in (0.125, 0.25, 0.5, 0.7, 1, 2, 4, 8, 16, 32) if low <= tick <= high]
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(np.arange(len(shown)), [one["name"] for one in shown])
    axes.set_ylim(-0.5, len(shown) - 0.3)
    axes.set_xlabel("of reshuffled SGD's")
    axes.set_title("To reach reshuffled SGD's training loss")
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Below its panel, no wider than that."""
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=2,
        handlelength=2.2,
        columnspacing=1.0,
        fontsize=8,
    )


def html_page(told: Told, picture: Path) -> str:
    """The page; the picture is within it."""
    choice = words.settings(told, told["choice"])
    advised = markup.paragraph(words.headline(told), "advised") + (
        f"<pre>{html.escape(choice)}</pre>" if choice else ""
    )
    if words.trying(told):
        advised += f"{markup.paragraph(words.trying(told))}<pre>{html.escape(words.lines(words.LOOKING))}</pre>"
    if told["quickest"] is not None:
        lines = html.escape(words.settings(told, told["quickest"]))
        advised += f"{markup.paragraph(words.spare(told))}<pre>{lines}</pre>"
    tables = [words.methods(told), words.moments(told), words.moments(told, "unsmoothed")]
    trial = told["trial"]
    parts = {
        "title": html.escape(f"Will importance sampling pay? {trial['network']} on {trial['data']}"),
        "policy": page.POLICY,
        "styles": page.static("page.css"),
        "ran": markup.listed(words.what_was_run(told)),
        "advised": advised,
        "figure": page.embedded(("Predicted from the trial", picture)),
        "tables": "\n".join(
            f"<h2>{html.escape(table.title)}</h2>{markup.table(table.head, table.rows)}"
            + (markup.paragraph(table.note, "source") if table.note else "")
            for table in tables
        ),
        "model": markup.paragraph(words.MODEL),
    }
    return Template(page.static("advice.html")).substitute(parts)


def write(told: Told, place: Path) -> list[Path]:
    """advice.html, advice.json, and the figure by itself.

    Raises:
        RunError: They cannot be written there.
    """
    with writing(place, style.ELSEWHERE):
        place.mkdir(parents=True, exist_ok=True)
    with style.style():
        pictures = style.save(figure(told), place / "advice")
    texts = {
        place / "advice.html": html_page(told, pictures[0]),
        place / "advice.json": json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for path, text in texts.items():
        with writing(path, style.ELSEWHERE):
            write_text(path, text)
    return [*texts, *pictures]
