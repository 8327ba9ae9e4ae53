"""Everything that an experiment leaves beside its runs: figures with their provenance, table 1, claims, report."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from issgd_cli.claims import Runs, Verdict, as_json, judge, load_run
from issgd_cli.claims.evidence import FIRST_PAPER, Run
from issgd_cli.claims.quantiles import Axis
from issgd_cli.errors import RunError
from issgd_cli.figures import figure_1, figure_2, figure_3, figure_4, figure_5, page, report, staleness, style, table_1
from issgd_cli.figures import importances as importances_figure
from issgd_cli.figures import run as run_figure
from issgd_cli.figures.curves import PREFIX, Source, source_told
from issgd_cli.figures.plane import data_of, made_of
from issgd_cli.files import write_text, writing
from issgd_cli.runs.folder import RunFolder, hash_of

# The figures of an experiment's curves, by their number in the first paper. Figure 1 is of single runs. Figure 5 is of
# the papers that followed, whose figures 2 and 3 it holds.
FIGURES: dict[int, ModuleType] = {2: figure_2, 3: figure_3, 4: figure_4, 5: figure_5}
FIRST_ONLY, FOLLOWERS_ONLY = (figure_2, figure_3), (figure_5,)

Timelines = Mapping[figure_1.Mode, RunFolder | None]


def write_all(
    runs: Runs,
    out: Path,
    axis: Axis | None = None,
    interval: bool = False,
    command: Sequence[str] = (),
    timelines: Timelines | None = None,
    map_files: Mapping[tuple[str, int], Path] | None = None,
) -> tuple[list[Path], list[Verdict]]:
    """Figures 1-4, table 1, claims.json, manifests.json (of all runs), report.md and report.html.

    Args:
        runs: The experiment's, finished or not.
        out: The experiment's folder.
        axis: Of figures 2-4; None: seconds if all are a simulated cluster's, else steps, since real actors may share
            cores.
        interval: Whether figures 2-4 show the 95% interval of the medians.
        command: What the user typed; it goes into the figures' JSON.
        timelines: The exact and the relaxed run of figure 1; None: found among `runs`.
        map_files: (setting, seed) -> the CSV of a staleness map, for experiments that have one.

    Returns:
        Every file written, and the verdicts.

    Raises:
        RunError: There are no runs.
    """
    paths = plot_experiment(runs, out, axis or ("seconds" if runs.virtual else "steps"), interval, command, timelines)
    if map_files:
        paths += write_map(map_files, runs, out, command)
    table = table_1.load(runs)
    verdicts, captions = judge(runs), _captions(runs, paths)
    texts = {
        "table-1.md": table_1.as_markdown(table),
        "table-1.csv": table_1.as_csv(table),
        "claims.json": json.dumps(finite(as_json(verdicts, runs)), indent=2, ensure_ascii=False, allow_nan=False)
        + "\n",
        "manifests.json": json.dumps({run.name: run.manifest for run in runs.runs}, indent=1) + "\n",
        "report.md": report.report(runs, verdicts, captions),
        "report.html": page.page(runs, verdicts, [(caption, out / name) for caption, name in captions]),
    }
    for name, text in texts.items():
        _write(out / name, text)
    return [*paths, *(out / name for name in texts)], verdicts


def write_map(files: Mapping[tuple[str, int], Path], runs: Runs, out: Path, command: Sequence[str] = ()) -> list[Path]:
    """Writes staleness-map.{png,pdf,json} and the table .md.

    Args:
        files: (setting, seed) -> the map's CSV.
        runs: The experiment's, for the panels of real training; may be none.
        out: The experiment's folder.
        command: What the user typed.
    """
    found = staleness.load(files)
    stem = out / "staleness-map"
    with style.style():
        paths = style.save(staleness.figure(found, runs), stem)
    _write(stem.with_suffix(".md"), staleness.tables(found, runs))
    trajectories = [
        {"setting": setting, "seed": seed, "sha256": hash_of(path)} for (setting, seed), path in files.items()
    ]
    choices = {"trajectories": trajectories}
    return [*paths, stem.with_suffix(".md"), _write_provenance(stem, runs.runs, runs.tally(), command, choices)]


def plot_experiment(
    runs: Runs,
    out: Path,
    axis: Axis = "seconds",
    interval: bool = False,
    command: Sequence[str] = (),
    timelines: Timelines | None = None,
) -> list[Path]:
    """Writes figure-{1..4}.{png,pdf,json}, and figure-{2..4}-audit.* where there are exact audits.

    Raises:
        RunError: There are no runs.
    """
    if not runs.runs:
        raise RunError(f"No run of {runs.name or out} to plot. Start them with `issgd reproduce`.")
    with writing(out, style.ELSEWHERE):
        out.mkdir(parents=True, exist_ok=True)
    timelines = timelines if timelines is not None else found_timelines(runs)
    paths = plot_timelines(timelines, out, command) if FIRST_PAPER in runs.papers or any(timelines.values()) else []
    for source in sources_of(runs):
        for number, module in figures_of(runs).items():
            stem = out / f"figure-{number}{'-audit' if source == 'audit' else ''}"
            shown = runs.of(method=runs.importance) if module is figure_4 else runs.runs
            choices = {"axis": axis, "source": source, "interval": interval}
            paths += _plot(runs, module, stem, axis, source, interval)
            paths.append(_write_provenance(stem, shown, runs.tally(), command, choices))
    return paths


def figures_of(runs: Runs) -> dict[int, ModuleType]:
    """Those that say something of the papers these runs are about."""
    left_out = {*(() if FIRST_PAPER in runs.papers else FIRST_ONLY)}
    left_out |= {*(() if set(runs.papers) - {FIRST_PAPER} else FOLLOWERS_ONLY)}
    return {number: module for number, module in FIGURES.items() if module not in left_out}


def sources_of(runs: Runs) -> list[Source]:
    """What curves there are of: audits, and the database's records, which only a follower's runs may do without."""
    recorded = {quantity for run in runs.runs for quantity in run.trace["quantity"].unique()}
    found: dict[Source, bool] = {
        "database": FIRST_PAPER in runs.papers or "loss/train" in recorded,
        "audit": any(quantity.startswith("audit/") for quantity in recorded),
    }
    return [source for source, there in found.items() if there] or ["database"]


def plot_timelines(timelines: Timelines, out: Path, command: Sequence[str] = ()) -> list[Path]:
    """Writes figure-1: one panel exact, one relaxed; a missing run's panel says so."""
    found = {mode: figure_1.load(timelines.get(mode), mode) for mode in figure_1.MODES}
    with style.style():
        picture = style.new_figure(10, 5.8)
        picture.set_layout_engine("constrained")
        panels = picture.subplots(2, 1)
        for axes, (mode, timeline) in zip(panels, found.items(), strict=True):
            figure_1.draw(axes, timeline, mode)
        picture.legend(handles=figure_1.legend_handles(), loc="outside upper center", ncols=6, fontsize=8.5)
        style.footnote(picture, figure_1.notes(found))
        paths = style.save(picture, out / "figure-1")
    shown = [load_run(folder) for mode, folder in timelines.items() if folder is not None and found[mode] is not None]
    paths.append(_write_provenance(out / "figure-1", shown, f"{len(shown)} of 2 runs shown", command, {}))
    return paths


def plot_run(folder: RunFolder, out: Path | None = None, command: Sequence[str] = ()) -> list[Path]:
    """Writes run.{png,pdf,json} for one run, into its own folder unless told otherwise.

    On points of a plane, in classes, importances.{png,pdf,json} too.
    """
    run = load_run(folder)
    out = folder.path if out is None else out
    with writing(out, style.ELSEWHERE):
        out.mkdir(parents=True, exist_ok=True)
    told = f"1 run, {run.state}"
    with style.style():
        paths = style.save(run_figure.figure(run), out / "run")
    paths.append(_write_provenance(out / "run", [run], told, command, {"axis": "steps"}))
    if (data := data_of(run)) is not None:
        with style.style():
            paths += style.save(importances_figure.figure(run, data), out / "importances")
        paths.append(_write_provenance(out / "importances", [run], told, command, made_of(run, data)))
    return paths


def found_timelines(runs: Runs) -> dict[figure_1.Mode, RunFolder | None]:
    """The first run by scores of each mode that recorded events: the paper's ISSGD and finished ones before others."""
    candidates = [run for run in runs.runs if run.by_scores]
    candidates.sort(key=lambda run: (run.method != runs.importance, not run.finished))
    found: dict[figure_1.Mode, RunFolder | None] = {"exact": None, "relaxed": None}
    for run in candidates:
        folder = RunFolder(run.path)
        if found[run.config.master.mode] is None and folder.events.exists():
            found[run.config.master.mode] = folder
    return found


def _plot(runs: Runs, module: Any, stem: Path, axis: Axis, source: Source, interval: bool) -> list[Path]:
    panels = module.load(runs, axis, source, interval)
    columns = len(panels[0])
    with style.style():
        picture = style.new_figure(max(4.9 * columns, 6.4), 3.1 * module.ROW_COUNT + 0.9)
        picture.set_layout_engine("constrained")
        axes = picture.subplots(module.ROW_COUNT, columns, squeeze=False)
        module.draw(axes, panels, axis)
        style.footnote(picture, module.notes(runs, source, interval))
        return style.save(picture, stem)


def _write_provenance(
    stem: Path, shown: Sequence[Run], tally: str, command: Sequence[str], choices: Mapping[str, object]
) -> Path:
    """The JSON beside a figure: which runs, with which traces, by which command, on which machines."""
    path = stem.with_name(stem.name + ".json")
    content = {
        "command": list(command),
        **choices,
        "counts": tally,
        "hardware": list(
            {json.dumps(machine): machine for run in shown if (machine := run.manifest.get("machine"))}.values()
        ),
        "runs": [_provenance(run) for run in shown],
    }
    _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return path


def _write(path: Path, text: str) -> None:
    with writing(path, style.ELSEWHERE):
        write_text(path, text)


def _provenance(run: Run) -> dict[str, object]:
    trace = RunFolder(run.path).trace
    return {
        "path": run.name,
        "setting": run.setting,
        "method": run.method,
        "seed": run.seed,
        "state": run.state,
        "sha256": {"trace.csv": hash_of(trace) if trace.exists() else None},
    }


def _captions(runs: Runs, paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Caption and file of each picture, the audited beside the paper's kind."""
    written = {path.name for path in paths}
    captions = [("Figure 1. " + figure_1.TITLE, "figure-1.png")] if "figure-1.png" in written else []
    for number, module in FIGURES.items():
        for source in PREFIX:
            name = f"figure-{number}{'-audit' if source == 'audit' else ''}.png"
            if name in written:
                captions.append((f"Figure {number}. {module.TITLE} ({source_told(runs, source)})", name))
    if "staleness-map.png" in written:
        captions.insert(0, (staleness.TITLE + " (the table: staleness-map.md)", "staleness-map.png"))
    return captions


def finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null, and "inf" or "-inf", which a run that diverged is."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
