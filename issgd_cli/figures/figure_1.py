"""Figure 1: the actors' timeline, drawn from the events of a real run: exact with its barriers, and relaxed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from issgd_cli.database.records import Event
from issgd_cli.figures import style
from issgd_cli.runs import traces
from issgd_cli.runs.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

Mode = Literal["exact", "relaxed"]
MODES: tuple[Mode, ...] = get_args(Mode)

TITLE = "Master, database and workers at work"
TITLES: dict[Mode, str] = {
    "exact": "Exact: at a barrier the master waits until every weight is new",
    "relaxed": "Relaxed: no barriers, the weights in use are of several versions",
}
MOST_ARROWS = 48  # more can't be told apart
INTERVALS = 3  # between publishes, where that many are readable
TALL = 0.56  # of a lane's bar

BARS: dict[str, dict[str, Any]] = {
    "train": {"facecolor": style.GREEN},
    "wait": {"facecolor": "#ffffff", "hatch": "////", "edgecolor": "#b0b0b0", "linewidth": 0.0},
    "score": {"facecolor": "#ffb566"},
}
NAMES = {"train": "master trains", "wait": "waits", "score": "worker scores a chunk"}
# Whose end of the arrow the database is, and what travels.
ARROWS = {
    "publish": ("to", "parameters", style.BLUE),
    "pull": ("from", "parameters", style.BLUE),
    "push": ("to", "probability weights", "#b35900"),
    "refresh": ("from", "probability weights", "#b35900"),
}


@dataclass(frozen=True)
class Timeline:
    """A few publishes from the middle of one run."""

    mode: Mode
    run: str  # <experiment>/<run>/<seed>
    state: str
    events: "pd.DataFrame"  # columns of Event, in the window, neighbours of a kind merged
    lanes: tuple[str, ...]  # from top to bottom
    start: float  # seconds since the run's start
    end: float
    barriers: tuple[float, ...]  # seconds; none in relaxed mode


def load(folder: RunFolder | None, mode: Mode) -> Timeline | None:
    """A readable window of a run's events; None without a run, or where it has published too little.

    Source: Alain et al. 2015, Figure 1.
    """
    if folder is None or not folder.events.exists():
        return None
    events = traces.read_events(folder.events)
    window = _window(events)
    if window is None:
        return None
    start, end = window
    seen = events[(events["end"] > start) & (events["start"] < end) & events["event"].isin([*BARS, *ARROWS])]
    workers = sorted({str(actor) for actor in seen["actor"] if str(actor).startswith("worker")})
    seen = merged(seen[seen["actor"].isin(["master", *workers])], gap=0.004 * (end - start))
    waits = seen[(seen["actor"] == "master") & (seen["event"] == "wait")]
    barriers = [time for pair in zip(waits["start"], waits["end"], strict=True) for time in pair]
    return Timeline(
        mode=mode,
        run="/".join(folder.path.parts[-3:]),
        state=str(folder.read_manifest()["state"]),
        events=seen,
        lanes=("master", "database", *workers),
        start=start,
        end=end,
        barriers=tuple(time for time in barriers if start <= time <= end) if mode == "exact" else (),
    )


def draw(axes: Axes, timeline: Timeline | None, mode: Mode) -> None:
    """One panel: time from left to right, a lane an actor, arrows for what travels through the database."""
    axes.set_title(TITLES[mode], loc="left")
    if timeline is None:
        style.say(axes, f"No {mode} run with recorded events.")
        return
    heights = {lane: -float(place) for place, lane in enumerate(timeline.lanes)}
    axes.grid(visible=False)
    axes.axhspan(heights["database"] - TALL / 2, heights["database"] + TALL / 2, color="#eef1f6", zorder=0)
    for time in timeline.barriers:
        span = (1 - len(timeline.lanes) - TALL / 2, TALL / 2)
        axes.vlines(time - timeline.start, *span, color="#222222", linestyle=":", linewidth=1.3, zorder=1)
    named: set[tuple[str, int]] = set()
    for event in timeline.events.itertuples():
        if event.event in BARS:
            _draw_bar(axes, event, heights[str(event.actor)], timeline, named)
        else:
            _draw_arrow(axes, event, heights, timeline)
    axes.set_yticks([heights[lane] for lane in timeline.lanes], [lane.replace("-", " ") for lane in timeline.lanes])
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, timeline.end - timeline.start)
    axes.set_ylim(-len(timeline.lanes) + 0.5, 0.8)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"seconds, from {timeline.start:.2f} s after the run's start")


def legend_handles() -> list[Any]:
    """What the bars, arrows and dotted lines are."""
    bars = [Patch(label=NAMES[name], **look) for name, look in BARS.items()]
    travellers = {what: colour for _, what, colour in ARROWS.values()}
    arrows = [
        Line2D([], [], color=colour, marker=">", markersize=4, linewidth=1, label=f"{what} travel")
        for what, colour in travellers.items()
    ]
    return [*bars, *arrows, Line2D([], [], color="#222222", linestyle=":", label="barrier")]


def notes(timelines: dict[Mode, Timeline | None]) -> list[str]:
    """Lines of the footnote."""
    shown = [
        f"{mode}: {timeline.run} ({timeline.state}), {timeline.start:.2f} to {timeline.end:.2f} s"
        if timeline
        else f"{mode}: no run"
        for mode, timeline in timelines.items()
    ]
    count = sum(timeline is not None for timeline in timelines.values())
    return [
        f"{count} of 2 runs shown. " + "; ".join(shown) + ".",
        "v5: where the master publishes version 5 of the parameters, and where each worker first scores with it.",
    ]


def merged(events: "pd.DataFrame", gap: float) -> "pd.DataFrame":
    """Joins an actor's training steps, and its waits, that follow each other within `gap` seconds."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for found in events.sort_values("start").to_dict("records"):
        row = {str(name): value for name, value in found.items()}
        key = (str(row["actor"]), str(row["event"]))
        before = last.get(key)
        if before is not None and row["event"] in ("train", "wait") and row["start"] - before["end"] <= gap:
            before["end"] = max(before["end"], row["end"])
            continue
        last[key] = row
        rows.append(row)
    return pd.DataFrame(rows, columns=list(Event._fields))


def _window(events: "pd.DataFrame") -> tuple[float, float] | None:
    """From a publish in the middle of the run to one or more publishes later, as many as can be read."""
    publishes = events[(events["event"] == "publish") & (events["actor"] == "master")].sort_values("start")
    starts = publishes["start"].to_numpy(np.float64)
    if len(starts) < 2:
        return None
    arrows = events[events["event"].isin(ARROWS)]
    for intervals in range(min(INTERVALS, len(starts) - 1), 0, -1):
        first = (len(starts) - 1 - intervals) // 2
        start, end = float(starts[first]), float(starts[first + intervals])
        margin = 0.015 * (end - start)
        start, end = start - margin, end + margin
        if ((arrows["end"] > start) & (arrows["start"] < end)).sum() <= MOST_ARROWS:
            return start, end
    return start, end


def _draw_bar(axes: Axes, event: Any, height: float, timeline: Timeline, named: set[tuple[str, int]]) -> None:
    """A worker's first bar at each version says which; `named` remembers those that did."""
    left = max(event.start, timeline.start) - timeline.start
    right = min(event.end, timeline.end) - timeline.start
    look = {"edgecolor": "white", "linewidth": 0.6, **BARS[event.event]}
    axes.barh(height, right - left, left=left, height=TALL, zorder=2, **look)
    place = (str(event.actor), int(event.version))
    width = timeline.end - timeline.start
    if event.event == "score" and place not in named and right - left > 0.02 * width:
        named.add(place)
        axes.text(left + 0.003 * width, height, f"v{event.version}", ha="left", va="center", fontsize=7.5, zorder=4)


def _draw_arrow(axes: Axes, event: Any, heights: dict[str, float], timeline: Timeline) -> None:
    """Vertical: what travels is there at the event's end, at this scale at once."""
    direction, _, colour = ARROWS[event.event]
    time = event.end - timeline.start
    if not 0 <= time <= timeline.end - timeline.start:
        return
    side = 1 if str(event.actor) == "master" else -1
    ends = [heights[str(event.actor)] - side * TALL / 2, heights["database"] + side * TALL / 2]
    tail, tip = ends if direction == "to" else reversed(ends)
    look = {"arrowstyle": "-|>", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
    axes.annotate("", xy=(time, tip), xytext=(time, tail), arrowprops=look, zorder=3)
    if event.event == "publish":
        axes.text(time, heights["master"] + TALL / 2 + 0.06, f"v{event.version}", ha="center", va="bottom", fontsize=8)
