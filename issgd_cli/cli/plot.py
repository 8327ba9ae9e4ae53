"""`issgd plot`: figures, table and report of an experiment, or the plain figure of one run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

if TYPE_CHECKING:
    from issgd_cli.claims import Runs, Verdict
    from issgd_cli.experiments.experiment import Experiment, Mode, Run
    from issgd_cli.runs.folder import RunFolder

AxisName = Literal["seconds", "steps", "examples"]


class Shown(NamedTuple):
    """What a report is made of: the runs on one dataset."""

    folders: "Sequence[RunFolder]"
    expected: int
    timelines: "Mapping[Mode, RunFolder]"  # none: figure 1 is drawn from the compared runs


def plot(
    what: Annotated[
        list[Path],
        typer.Argument(help="An experiment's TOML file (or several, shown as one), its folder, or one run's folder."),
    ],
    axis: Annotated[
        AxisName | None,
        typer.Option(help="Horizontal axis of figures 2-4; examples: a method's work. [steps; seconds if simulated]"),
    ] = None,
    interval: Annotated[
        bool, typer.Option("--interval", help="Also an exact interval of the medians, of 95% or more.")
    ] = False,
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
        write_outputs(plans[0], planned, results_dir, out or place, axis, interval, maps)
        return
    for path in what:
        if (path / "manifest.json").exists():
            from issgd_cli.cli.signals import tidying
            from issgd_cli.figures.outputs import plot_run

            with tidying():
                written = plot_run(runs.RunFolder(path), out, runs.command_line())
            typer.echo(f"Wrote {', '.join(str(file) for file in written)}")
        elif found := [folder for folder in runs.find(path) if not _is_timeline(folder)]:
            from issgd_cli.claims.evidence import by_dataset

            shown = {dataset: Shown(folders, len(folders), {}) for dataset, folders in by_dataset(found).items()}
            _write(shown, out or path, axis, interval)
        else:
            raise RunError(f"No run in {path}. Name an experiment's TOML file, or a folder that `issgd status` lists.")


def write_outputs(
    plan: "Experiment",
    planned: Sequence["Run"],
    results_dir: Path,
    out: Path,
    axis: AxisName | None = None,
    interval: bool = False,
    maps: "Mapping[tuple[str, int], Path] | None" = None,
    overrides: "Mapping[str, object] | None" = None,
) -> None:
    """Figures, table, claims and report of an experiment's runs, as far as they are there, each dataset by itself.

    Args:
        plan: The experiment, whose runs for figure 1 are shown.
        planned: Its runs, or those of several experiments.
        results_dir: Where runs are.
        out: Where to write.
        axis: Of figures 2-4.
        interval: Whether they show an interval of the medians.
        maps: As `map_files` gives them.
        overrides: Of the runs for figure 1.
    """
    shown = {}
    for dataset in dict.fromkeys(run.dataset for run in planned):
        folders = [run.folder(results_dir) for run in planned if run.dataset == dataset]
        timelines = plan.timeline_runs(overrides or {}, dataset) if dataset in plan.datasets else {}
        places = {mode: run.folder(results_dir) for mode, run in timelines.items()}
        shown[dataset] = Shown(
            [folder for folder in folders if folder.state() is not None],
            len(folders),
            {mode: folder for mode, folder in places.items() if folder.state() == "finished"},
        )
    _write(shown, out, axis, interval, maps)


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
    shown: Mapping[str, Shown],
    out: Path,
    axis: AxisName | None,
    interval: bool,
    maps: "Mapping[tuple[str, int], Path] | None" = None,
) -> None:
    """One dataset's into `out`; where they have names, each one's into a folder of its own, and a page of all."""
    from issgd_cli.claims import load
    from issgd_cli.cli.signals import tidying
    from issgd_cli.errors import RunError
    from issgd_cli.figures import index
    from issgd_cli.figures.outputs import write_all
    from issgd_cli.runs.folder import command_line

    if "" in shown and len(shown) > 1:
        raise RunError(
            f"Some runs are of a named dataset ({', '.join(name for name in shown if name)}), others of none: they are "
            "never compared with each other. Name one experiment's TOML file."
        )
    judged: dict[str, tuple[Runs, Sequence[Verdict]]] = {}
    for dataset, (folders, expected, timelines) in shown.items():
        if not folders and any(other.folders for other in shown.values()):
            judged[dataset] = load([], expected), []
            continue
        with tidying():
            there, place = load(folders, expected), out / dataset
            paths, verdicts = write_all(there, place, axis, interval, command_line(), timelines or None, maps)
        judged[dataset] = there, verdicts
        for verdict in verdicts:
            typer.echo(f"  {verdict.claim.id:3}  {verdict.verdict:17}  {verdict.claim.statement}")
        typer.echo(f"Wrote {len(paths)} files to {place}")
    if "" not in judged:
        with tidying():
            typer.echo(f"Wrote {index.write(judged, out)}")


def _is_timeline(folder: "RunFolder") -> bool:
    from issgd_cli.experiments.experiment import TIMELINE

    return folder.path.parent.name.startswith(f"{TIMELINE}-")
