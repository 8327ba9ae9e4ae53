"""`issgd plot`: figures, table and report of an experiment, or the plain figure of one run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from issgd_cli.experiments.experiment import Experiment, Mode, Run
    from issgd_cli.runs.folder import RunFolder

AxisName = Literal["seconds", "steps", "examples"]


def plot(
    what: Annotated[
        list[Path],
        typer.Argument(help="An experiment's TOML file (or several, shown as one), its folder, or one run's folder."),
    ],
    axis: Annotated[
        AxisName | None,
        typer.Option(help="Horizontal axis of figures 2-4; examples: by all actors. [steps; seconds if simulated]"),
    ] = None,
    interval: Annotated[bool, typer.Option("--interval", help="Also a 95% bootstrap interval of the medians.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write; unless given, beside the runs.")] = None,
    results_dir: Annotated[Path, typer.Option(help="Where runs are.")] = Path("results"),
) -> None:
    """Draw the paper's figures and table from the traces, and judge its claims; or draw one run."""
    from issgd_cli.errors import RunError
    from issgd_cli.experiments import experiment as experiments
    from issgd_cli.runs import folder as runs

    if all(path.suffix == ".toml" for path in what):
        plans = [experiments.read(path) for path in what]
        planned = [run for plan in plans for run in plan.runs()]
        place = results_dir / planned[0].config.name
        maps = {key: path for plan in plans for key, path in map_files(plan, results_dir).items()}
        write_outputs(planned, plans[0].timeline_runs({}), results_dir, out or place, axis, interval, maps)
        return
    for path in what:
        if (path / "manifest.json").exists():
            from issgd_cli.cli.signals import tidying
            from issgd_cli.figures.outputs import plot_run

            with tidying():
                written = plot_run(runs.RunFolder(path), out, runs.command_line())
            typer.echo(f"Wrote {', '.join(str(file) for file in written)}")
        elif found := [folder for folder in runs.find(path) if not _is_timeline(folder)]:
            _write(found, len(found), {}, out or path, axis, interval)
        else:
            raise RunError(f"No run in {path}. Name an experiment's TOML file, or a folder that `issgd status` lists.")


def write_outputs(
    planned: Sequence["Run"],
    timelines: "dict[Mode, Run]",
    results_dir: Path,
    out: Path,
    axis: AxisName | None = None,
    interval: bool = False,
    maps: "Mapping[tuple[str, int], Path] | None" = None,
) -> None:
    """Figures, table, claims and report of an experiment's runs, as far as they are there."""
    folders = [run.folder(results_dir) for run in planned]
    there = [folder for folder in folders if folder.state() is not None]
    shown = {mode: run.folder(results_dir) for mode, run in timelines.items()}
    finished = {mode: folder for mode, folder in shown.items() if folder.state() == "finished"}
    _write(there, len(folders), finished, out, axis, interval, maps)


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


def _write(
    folders: Sequence["RunFolder"],
    expected: int,
    timelines: "dict[Mode, RunFolder]",
    out: Path,
    axis: AxisName | None,
    interval: bool,
    maps: "Mapping[tuple[str, int], Path] | None" = None,
) -> None:
    from issgd_cli.claims import load
    from issgd_cli.cli.signals import tidying
    from issgd_cli.figures.outputs import write_all
    from issgd_cli.runs.folder import command_line

    with tidying():
        # Without runs of its own figure 1 is drawn from the compared ones.
        there = load(folders, expected)
        paths, verdicts = write_all(there, out, axis, interval, command_line(), timelines or None, maps)
    for verdict in verdicts:
        typer.echo(f"  {verdict.claim.id:3}  {verdict.verdict:10}  {verdict.claim.statement}")
    typer.echo(f"Wrote {len(paths)} files to {out}")


def _is_timeline(folder: "RunFolder") -> bool:
    from issgd_cli.experiments.experiment import TIMELINE

    return folder.path.parent.name.startswith(f"{TIMELINE}-")
