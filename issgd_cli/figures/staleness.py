"""The staleness map: the proposal's sqrt Tr(Sigma) against workers and publish interval; real training beside it."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from issgd_cli.claims.evidence import Runs, audits_told
from issgd_cli.claims.settings import smoothing_label
from issgd_cli.claims.variance import ROUNDING
from issgd_cli.errors import RunError
from issgd_cli.figures import style

if TYPE_CHECKING:
    import pandas as pd

TITLE = "Variance of the proposal in use, relative to uniform draws, on clusters of 0 to 1024 workers"
COLUMNS = ("workers", "publish_every_steps", "smoothing", "step", "in_use", "ideal", "uniform", "mean_age_steps")
# By a smoothing's name, up to its colon; the last is for all others.
LOOKS: dict[str, dict[str, Any]] = {
    "+0": {"color": "#b30000", "marker": "o"},
    "+10": {"color": "#7A4B00", "marker": "D"},
    "+1": {"color": "#FF8000", "marker": "s"},
    "entropy": {"color": "#CC0077", "marker": "^"},
    "variance-optimal": {"color": "#00868B", "marker": "v"},
    "": {"color": "#555555", "marker": "P"},
}


@dataclass(frozen=True)
class Map:
    """Cells of every setting and seed: COLUMNS, and `setting`, `seed`, `ratio` = sqrt(Tr in use / Tr uniform)."""

    cells: "pd.DataFrame"

    @property
    def settings(self) -> list[str]:
        return list(dict.fromkeys(self.cells["setting"]))

    @property
    def smoothings(self) -> list[str]:
        return list(dict.fromkeys(self.cells["smoothing"]))

    def values(self, column: str) -> list[int]:
        return sorted(set(self.cells[column].astype(int)))


def load(files: Mapping[tuple[str, int], Path]) -> Map:
    """Reads (setting, seed) -> CSV.

    Raises:
        RunError: A file is not such a table.
    """
    import pandas as pd

    tables = []
    for (setting, seed), path in files.items():
        try:
            table = pd.read_csv(io.StringIO(path.read_text()))
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}). Remove it and run the experiment again.") from None
        if tuple(table.columns) != COLUMNS:
            raise RunError(f"{path} is not a staleness map. Remove it and run the experiment again.")
        tables.append(table.assign(setting=setting, seed=seed))
    cells = pd.concat(tables, ignore_index=True)
    return Map(cells.assign(ratio=np.sqrt(cells["in_use"] / cells["uniform"])))


def figure(found: Map, runs: Runs | None) -> Figure:
    """A row a setting; a column a publish interval, and one of real training where there are runs."""
    intervals = found.values("publish_every_steps")
    columns = len(intervals) + (1 if runs is not None and runs.finished else 0)
    picture = style.new_figure(3.1 * columns + 0.6, 3.2 * len(found.settings) + 0.9)
    picture.set_layout_engine("constrained")
    panels = picture.subplots(len(found.settings), columns, squeeze=False)
    for row, setting in zip(panels, found.settings, strict=True):
        highest = 1.0
        for axes, interval in zip(row, intervals, strict=False):
            highest = max(highest, _draw_cells(axes, found, setting, interval))
            axes.set_title(f"{setting}, publish every {interval} steps")
        for axes in row[: len(intervals)]:
            axes.set_ylim(0, min(1.1 * highest, 3.0))
        row[0].set_ylabel("sqrt Tr(in use) / sqrt Tr(uniform)")
        if runs is not None and columns > len(intervals):
            _draw_training(row[-1], runs, setting)
    style.legend_above(panels[0][0])
    style.footnote(picture, notes(found, runs))
    return picture


def notes(found: Map, runs: Runs | None) -> list[str]:
    """Lines of the footnote."""
    seeds = found.cells["seed"].nunique()
    steps = sorted(set(found.cells["step"]))
    told = audits_told(runs.runs if runs is not None else ())
    return [
        f"Medians over {seeds} trajectories of SGD with {len(steps)} exact audits each (steps {steps[0]} to "
        f"{steps[-1]}); bands: quartiles 1 and 3. Above 1 draws by these weights have more variance than uniform ones. "
        "Curves that leave a panel's top go on above it.",
        f"Right: mean training loss over the {told} of runs that really trained so; lines join medians.",
    ]


def tables(found: Map, runs: Runs | None) -> str:
    """Markdown: the map's table, and that of real training beside it, where there was any."""
    training = "" if runs is None else _training_table(runs, found.settings)
    return _map_table(found) + (f"\n{training}" if training else "")


def _map_table(found: Map) -> str:
    """Of each setting, smoothing and interval, how many workers it takes, and where it is worse than SGD."""
    rows = [
        "| setting | smoothing | publish every | "
        "from so many workers on the median audit has less variance than uniform draws | "
        "median ratio with the most workers | share of all audits worse than uniform (1 worker and more) |",
        "|---|---|---|---|---|---|",
    ]
    for (setting, smoothing, interval), group in found.cells.groupby(
        ["setting", "smoothing", "publish_every_steps"], sort=False
    ):
        served = group[group["workers"] > 0]
        medians = served.groupby("workers")["ratio"].median().sort_index()
        # From this count on all larger ones are below, too.
        beyond = medians.index[~(medians < 1 - ROUNDING)].to_numpy(np.int64)
        enough = medians.index[medians.index > beyond.max(initial=0)].to_numpy(np.int64)
        worse = float((served["ratio"] > 1 + ROUNDING).mean())
        fewest = str(enough.min()) if len(enough) else "none of these"
        rows.append(f"| {setting} | {smoothing} | {interval} | {fewest} | {medians.iloc[-1]:.3f} | {worse:.0%} |")
    return "\n".join(rows) + "\n"


def _training_table(runs: Runs, settings: Iterable[str]) -> str:
    """Of each setting, smoothing and number of workers, mean training losses relative to plain SGD's, seed by seed."""
    rows = []
    for setting in settings:
        trained = _trained(runs, setting)
        plain = {seed: loss for by_workers in trained.values() for seed, loss in by_workers.get(0, {}).items()}
        for smoothing, by_workers in trained.items():
            for workers, losses in sorted(by_workers.items()):
                gaps = [losses[seed] / plain[seed] - 1 for seed in sorted(losses.keys() & plain.keys())]
                if workers and gaps:
                    told = f"{min(gaps):+.1%} to {max(gaps):+.1%} ({len(gaps)})"
                    rows.append(f"| {setting} | {smoothing} | {workers} | {told} |")
    if not rows:
        return ""
    head = "| setting | smoothing | workers | mean training loss, relative to plain SGD's: seeds (how many) |"
    return "\n".join([head, "|---|---|---|---|", *rows]) + "\n"


def _draw_cells(axes: Axes, found: Map, setting: str, interval: int) -> float:
    """One panel; returns the highest median."""
    workers = found.values("workers")
    places = np.arange(len(workers))
    mine = found.cells[(found.cells["setting"] == setting) & (found.cells["publish_every_steps"] == interval)]
    axes.axhline(1.0, color=style.BLUE, linestyle=(0, (5, 1.5)), linewidth=1.4, label="uniform (SGD)")
    ideal = float(np.nanmedian(np.sqrt(mine["ideal"] / mine["uniform"])))
    axes.axhline(ideal, color=style.GREEN, linewidth=1.4, label="ideal")
    highest = 0.0
    for smoothing in found.smoothings:
        look = look_of(smoothing)
        by_workers = mine[mine["smoothing"] == smoothing].groupby("workers")["ratio"]
        low, median, high = (by_workers.quantile(q).reindex(workers).to_numpy() for q in (0.25, 0.5, 0.75))
        axes.fill_between(places, low, high, color=look["color"], alpha=0.12, linewidth=0)
        axes.plot(places, median, markersize=4, linewidth=1.5, label=smoothing, **look)
        highest = max(highest, float(np.nanmax(median)))
    axes.set_xticks(places, [str(count) for count in workers])
    axes.set_xlabel("workers")
    return highest


def _draw_training(axes: Axes, runs: Runs, setting: str) -> None:
    """Mean audited training loss over the run, by worker count, one line a smoothing."""
    found = {
        label: {workers: list(losses.values()) for workers, losses in by_workers.items()}
        for label, by_workers in _trained(runs, setting).items()
    }
    counts = sorted({count for by_workers in found.values() for count in by_workers})
    place = {count: number for number, count in enumerate(counts)}
    for label, by_workers in found.items():
        look = look_of(label)
        known = sorted(by_workers)
        axes.plot([place[n] for n in known], [np.median(by_workers[n]) for n in known], markersize=4, **look)
        for count in known:
            axes.plot([place[count]] * len(by_workers[count]), by_workers[count], ".", color=look["color"], alpha=0.5)
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.set_xlabel("workers (0: plain SGD)")
    axes.set_ylabel("mean training loss")
    axes.set_title(f"{setting}, real training, publish every {_published(runs, setting)}")
    axes.set_ylim(bottom=0)


def _trained(runs: Runs, setting: str) -> dict[str, dict[int, dict[int, float]]]:
    """Smoothing -> workers -> seed -> the mean of a finished run's audited training losses."""
    found: dict[str, dict[int, dict[int, float]]] = {}
    for run in runs.of(setting):
        values = run.series("audit/loss/train").values
        if run.finished and len(values):
            by_workers = found.setdefault(smoothing_label(run.config), {})
            by_workers.setdefault(run.config.worker.count, {})[run.seed] = float(values.mean())
    return found


def _published(runs: Runs, setting: str) -> str:
    return ", ".join(sorted({str(run.config.master.publish_every_steps) for run in runs.of(setting)}))


def look_of(smoothing: str) -> dict[str, Any]:
    """Colour and marker, the same in the map and beside it."""
    return LOOKS.get(smoothing) or LOOKS.get(smoothing.partition(":")[0]) or LOOKS[""]
