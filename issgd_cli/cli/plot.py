"""`issgd plot`: figures, table and report of an experiment, or the plain figure of one run."""

import contextlib
import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from issgd_cli.cli.track import Track, show_all

if TYPE_CHECKING:
    from issgd_cli.claims import Runs, Verdict
    from issgd_cli.experiments.experiment import Experiment, Run
    from issgd_cli.runs.folder import RunFolder
    from issgd_cli.runs.packed import Sources

REFERENCE = Path("results/reference")

AxisName = Literal["seconds", "steps", "examples"]


def plot(
    what: Annotated[
        list[Path],
        typer.Argument(
            help="An experiment's TOML file (or several, shown as one), its folder or one with its traces.tar.gz, or "
            "one run's folder."
        ),
    ],
    axis: Annotated[
        AxisName | None,
        typer.Option(help="Horizontal axis of figures 2-4; examples: a method's work. [steps; seconds if simulated]"),
    ] = None,
    interval: Annotated[
        bool, typer.Option("--interval", help="Also an exact interval of the medians, of 95% or more.")
    ] = False,
    pack: Annotated[
        bool, typer.Option("--pack", help="Also all traces as one file, traces.tar.gz, to plot without the runs.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Show the report in the browser.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write; unless given, beside the runs.")] = None,
    results_dir: Annotated[Path, typer.Option(help="Where runs are.")] = Path("results"),
    track: Track = None,
) -> None:
    """Draw the paper's figures and table from the traces, and judge its claims; or draw one run."""
    from issgd_cli.errors import RunError
    from issgd_cli.experiments import experiment as experiments
    from issgd_cli.experiments.selection import settled
    from issgd_cli.runs.folder import find

    plain = [path for path in what if path.suffix != ".toml"]
    if 0 < len(plain) < len(what):
        raise RunError("Several TOML files are shown as one, each folder by itself. Name either files or folders.")
    if len(plain) > 1 and out is not None:
        raise RunError(f"Each folder has figures of its own, which {out} cannot hold. Name one folder with `--out`.")
    if not plain:
        plans = [experiments.read(path) for path in what]
        planned = [run for plan in plans for run in settled(plan.runs(), results_dir, guessing=True)]
        place = results_dir / planned[0].config.name
        maps = {key: path for plan in plans for key, path in map_files(plan, results_dir).items()}
        write_outputs(sources_of(plans[0], planned, results_dir, maps), out or place, axis, interval, pack)
        pages = [(out or place) / ("report.html" if "" in plans[0].datasets else "report.md")]
        folders = [folder for run in planned if (folder := run.folder(results_dir)).state() is not None]
    else:
        pages = [_plot_folder(path, out, axis, interval, pack) for path in what]
        folders = [folder for path in what for folder in find(path)]
    if track is not None:
        show_all(track, folders)
    for page in pages if open_ else ():
        show(page)


def sources_of(
    plan: "Experiment",
    planned: Sequence["Run"],
    results_dir: Path,
    maps: "Mapping[tuple[str, int], Path] | None" = None,
    overrides: "Mapping[str, object] | None" = None,
) -> "dict[str, Sources]":
    """An experiment's runs as far as they are there, and the finished ones of figure 1; each dataset by itself.

    Args:
        plan: The experiment, whose runs for figure 1 are shown.
        planned: Its runs, or those of several experiments.
        results_dir: Where runs are.
        maps: As `map_files` gives them.
        overrides: Of the runs for figure 1.
    """
    from issgd_cli.runs.packed import Sources

    found = {}
    for dataset in dict.fromkeys(run.dataset for run in planned):
        folders = [run.folder(results_dir) for run in planned if run.dataset == dataset]
        there = [folder for folder in folders if folder.state() is not None]
        timelines = plan.timeline_runs(overrides or {}, dataset) if dataset in plan.datasets else {}
        places = {mode: run.folder(results_dir) for mode, run in timelines.items()}
        finished = {mode: folder for mode, folder in places.items() if folder.state() == "finished"}
        found[dataset] = Sources(there, _expected(planned, dataset), finished, maps or {})
    return found


def _expected(planned: "Sequence[Run]", dataset: str) -> int:
    """How many runs of a dataset are to be shown: where others choose settings, one of a method and seed."""
    of_dataset = [run for run in planned if run.dataset == dataset]
    chosen = any(run.chooses for run in of_dataset)
    return len(
        {
            ("" if chosen else run.setting, run.method, run.config.seed, run.config.name)
            for run in of_dataset
            if not run.chooses
        }
    )


def write_outputs(
    shown: "Mapping[str, Sources]", out: Path, axis: AxisName | None = None, interval: bool = False, pack: bool = False
) -> None:
    """Figures, table, claims and report; of named datasets each one's in a folder of its own, and a page of all.

    Args:
        shown: Dataset -> its runs.
        out: Where to write.
        axis: Of figures 2-4.
        interval: Whether they show an interval of the medians.
        pack: Whether also the traces are written, as one file.
    """
    from issgd_cli.claims import load
    from issgd_cli.cli.signals import tidying
    from issgd_cli.errors import RunError
    from issgd_cli.figures import board, index
    from issgd_cli.runs.folder import command_line

    if "" in shown and len(shown) > 1:
        raise RunError(
            f"Some runs are of a named dataset ({', '.join(name for name in shown if name)}), others of none: they are "
            "never compared with each other. Name one experiment's TOML file."
        )
    judged: dict[str, tuple[Runs, Sequence[Verdict]]] = {}
    for dataset, sources in shown.items():
        if not sources.folders and any(other.folders for other in shown.values()):
            judged[dataset] = load([], sources.expected), []
        else:
            judged[dataset] = _write(sources, out / dataset, axis, interval, pack)
    contests, said = board.at_equal_work({dataset: runs for dataset, (runs, _) in judged.items()}), list[str]()
    with tidying():
        if contests:
            paths, said = board.write(contests, out, command_line())
            typer.echo(f"Wrote {', '.join(map(str, paths))}")
        if "" not in judged:
            typer.echo(f"Wrote {index.write(judged, out, said)}")


def _write(
    sources: "Sources", out: Path, axis: AxisName | None, interval: bool, pack: bool
) -> "tuple[Runs, Sequence[Verdict]]":
    """Of one dataset's runs."""
    from issgd_cli.claims import load
    from issgd_cli.cli.signals import tidying
    from issgd_cli.figures import outputs, style
    from issgd_cli.runs import packed
    from issgd_cli.runs.folder import command_line

    with tidying():
        # Without runs of its own figure 1 is drawn from the compared ones.
        runs = load(sources.folders, sources.expected)
        timelines = sources.timelines or outputs.found_timelines(runs)
        paths, verdicts = outputs.write_all(runs, out, axis, interval, command_line(), timelines, sources.maps)
        if pack:
            with_events = [folder for folder in timelines.values() if folder is not None]
            packed.pack(sources, out / packed.NAME, with_events, style.ELSEWHERE)
            paths.append(out / packed.NAME)
    for verdict in verdicts:
        typer.echo(f"  {verdict.claim.id:3}  {verdict.verdict:17}  {verdict.claim.statement}")
    typer.echo(f"Wrote {len(paths)} files to {out}")
    _beside_reference(verdicts, runs, out)
    return runs, verdicts


def _beside_reference(verdicts: "Sequence[Verdict]", runs: "Runs", out: Path) -> None:
    """Where results/reference has an experiment of this name: its claims beside the ones found here."""
    from issgd_cli.claims import folders, reference
    from issgd_cli.files import write_text

    path = REFERENCE / runs.name / "claims.json"
    if not path.exists() or path.parent.resolve() == out.resolve():
        return
    rows = reference.compared(verdicts, folders(runs), reference.read(path))
    write_text(out / "reference.md", reference.as_markdown(rows))
    typer.echo(f"Beside {path.parent}:")
    if others := reference.other_runs(rows):
        typer.echo(f"  {others}")
    for row in rows:
        far = "" if row.explained else f"; {row.number} further apart than seeds explain (p = {row.p:.2g})"
        said = row.said.upper() if row.said == "differs" else row.said
        typer.echo(f"  {row.claim:3}  {row.there or '-':17}  {row.here:17}  {said}{far}")


def show(page: Path) -> None:
    """Opens a page in the browser; where there is none to see it with, says where it lies."""
    seen = sys.platform != "linux" or {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & set(os.environ)
    # Without a display a browser for terminals would take over this one.
    if not seen or not webbrowser.open(page.absolute().as_uri()):
        typer.echo(f"No display to show it on. Open {page.absolute()} in a browser.")


def map_files(
    plan: "Experiment",
    results_dir: Path,
    seeds: "Sequence[int] | None" = None,
    overrides: "Mapping[str, object] | None" = None,
) -> dict[tuple[str, int], Path]:
    """The experiment's staleness map, as far as it is there: (setting, seed) -> CSV."""
    if plan.map is None:
        return {}
    from issgd_cli.experiments.staleness_map import parts

    wanted = list(dict.fromkeys([*plan.seeds, *(seeds or [])]))
    found = parts(plan, results_dir, wanted, overrides or {})
    return {(part.setting, part.seed): part.path for part in found if part.path.exists()}


def _plot_folder(path: Path, out: Path | None, axis: AxisName | None, interval: bool, pack: bool) -> Path:
    """Plots one run, the runs of a folder, or those that are packed in it; the page or picture to look at."""
    from issgd_cli.claims.loading import by_dataset
    from issgd_cli.errors import RunError
    from issgd_cli.runs import folder as runs
    from issgd_cli.runs import packed

    if (path / "manifest.json").exists():
        from issgd_cli.cli.signals import tidying
        from issgd_cli.figures.outputs import plot_run

        with tidying():
            written = plot_run(runs.RunFolder(path), out, runs.command_line())
        typer.echo(f"Wrote {', '.join(str(file) for file in written)}")
        return written[0]
    place = out or path
    if found := [folder for folder in runs.find(path) if not _is_timeline(folder)]:
        shown = {dataset: packed.Sources(folders, _judged(folders)) for dataset, folders in by_dataset(found).items()}
        write_outputs(shown, place, axis, interval, pack)
    elif packs := [one for one in (path / packed.NAME, *sorted(path.glob(f"*/{packed.NAME}"))) if one.exists()]:
        with contextlib.ExitStack() as stack:
            read = {one.parent: stack.enter_context(packed.unpacked(one)) for one in packs}
            shown = {"" if folder == path else folder.name: sources for folder, sources in read.items()}
            write_outputs(shown, place, axis, interval, pack)
    else:
        raise RunError(f"No run in {path}. Name an experiment's TOML file, or a folder that `issgd status` lists.")
    return place / ("report.html" if (place / "report.html").exists() else "report.md")


def _judged(folders: "Sequence[RunFolder]") -> int:
    """How many runs are to be shown: all, or where some choose settings, of the others one of each method and seed."""
    from issgd_cli.runs.folder import CHOOSING

    manifests = [folder.read_manifest() for folder in folders]
    others = [told for told in manifests if told.get("role") != CHOOSING]
    return len(others if len(others) == len(manifests) else {(told.get("method"), told["seed"]) for told in others})


def _is_timeline(folder: "RunFolder") -> bool:
    from issgd_cli.experiments.experiment import TIMELINE

    return folder.path.parent.name.startswith(f"{TIMELINE}-")
