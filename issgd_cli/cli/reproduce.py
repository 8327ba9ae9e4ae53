"""`issgd reproduce`: every run of an experiment, then its figures, table and report."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from issgd_cli.cli.address import VARIABLE, default, on_default
from issgd_cli.cli.prepare import prepare_files
from issgd_cli.cli.track import Track, beside

if TYPE_CHECKING:
    import threading

    from rich.console import Group

    from issgd_cli.experiments.experiment import Run
    from issgd_cli.experiments.reproduction import Progress


def reproduce(
    experiment: Annotated[Path, typer.Argument(help="A TOML file, for instance experiments/quick.toml.")],
    seeds: Annotated[str | None, typer.Option(help="Instead of the file's: 0-49, or 0-4,7.")] = None,
    only: Annotated[str, typer.Option(help="setting=a, dataset=mnist, method=issgd, or several with commas.")] = "",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time; unless given, 1, and as many as Slurm lets on a cluster."),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="slurm: each run a job, of arrays; local, alone, ray or simulated: for all runs.")
    ] = None,
    devices: Annotated[str, typer.Option(help="Dealt out to the jobs: cuda:0,cuda:1,...")] = "",
    database: Annotated[
        str | None, typer.Option(help="URL; unless given, ISSGD_DATABASE's; none: a server a run.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A function of your own that the file names as a network; any number of them."),
    ] = None,
    data_dir: Annotated[str | None, typer.Option(help="Where prepared datasets are.")] = None,
    results_dir: Annotated[Path, typer.Option(help="Where runs go.")] = Path("results"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value; any number of them.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run and how long it takes.")] = False,
    track: Track = None,
) -> None:
    """Do every run of an experiment, skipping the finished ones, and draw its figures, table and report."""
    from issgd_cli.cli.jobs import leave, submit_all
    from issgd_cli.cli.plot import map_files, sources_of, write_outputs
    from issgd_cli.cli.signals import stopping
    from issgd_cli.config.layers import assignments, merged
    from issgd_cli.errors import ConfigError, RunError
    from issgd_cli.experiments import experiment as experiments
    from issgd_cli.experiments import selection
    from issgd_cli.networks import naming
    from issgd_cli.runs import folder as run_folders

    for function in model or []:
        naming.name(function)
    overrides = merged(
        {"database": {"url": database}} if database is not None else {},
        {"data": {"dir": data_dir}} if data_dir else {},
        {"cluster": {"kind": cluster}} if cluster is not None else {},
        assignments(set_ or []),
    )
    plan = experiments.read(experiment)
    chosen = experiments.parse_seeds(seeds) if seeds else None
    planned = plan.runs(chosen, selection.parse_only(only), overrides)
    runs = selection.settled(planned, results_dir, guessing=dry_run)
    if not runs:
        raise ConfigError(f"{experiment} runs that method on other datasets: --only {only} leaves nothing to run.")
    datasets = dict.fromkeys(run.dataset for run in runs)
    timelines = [run for dataset in datasets for run in plan.timeline_runs(overrides, dataset).values()]
    everything = [on_default(run, overrides) for run in (*runs, *timelines)]
    for run in everything:
        naming.refuse_unnamed(run.config.model.network)
    as_jobs = _are_jobs(everything, devices)
    prepare_files(everything)
    if dry_run:
        _say_how_long(everything, results_dir, jobs or 1)
        return
    if default() in {run.config.database.url for run in everything} - {""}:
        typer.echo(f"Runs use the database server whose URL is in {VARIABLE}.", err=True)
    tracked = beside(track)
    place = results_dir / runs[0].config.name
    with run_folders.locked(place, "another `issgd reproduce`"):
        command = run_folders.command_line()
        with stopping() as stop:
            with watching(jobs or (len(everything) if as_jobs else 1)) as watch:

                def do(wanted: Sequence["Run"]) -> "Progress":
                    if as_jobs:
                        return submit_all(wanted, results_dir, command, jobs, watch, stop, tracked)
                    from issgd_cli.experiments.reproduction import (
                        reproduce as reproduce_runs,  # here: who is refused need not wait for torch
                    )

                    return reproduce_runs(
                        wanted,
                        results_dir,
                        command=command,
                        jobs=jobs or 1,
                        devices=[device.strip() for device in devices.split(",") if device.strip()],
                        watch=watch,
                        stop=stop,
                        beside=tracked,
                    )

                progress = do(everything)
                later = [run for run in selection.settled(planned, results_dir) if run not in runs]
                if later and not stop.is_set():  # whose settings are chosen only now
                    everything += [on_default(run, overrides) for run in later]
                    progress = do(everything)
            if stop.is_set() and not as_jobs:
                raise RunError("Interrupted. The same command goes on from here.")
        if stop.is_set():
            leave(everything, results_dir, stop)
        if plan.map is not None and not only:
            from issgd_cli.experiments.staleness_map import compute, parts

            with stopping() as stop:
                compute(parts(plan, results_dir, chosen, overrides), plan.map, _saying(stop))
        done, before, failed = len(progress.done), progress.skipped, len(progress.failed)
        typer.echo(f"\n{done} runs done, {before} were finished before, {failed} failed.")
        for name, reason in progress.failed.items():
            typer.echo(f"  {name} failed: {reason}")
        # All that the file plans, so that a part of it never stands for the whole.
        all_runs = selection.settled([*plan.runs(overrides=overrides), *planned], results_dir, guessing=True)
        by_folder = {run.folder(results_dir): run for run in all_runs}
        if any(folder.state() is not None for folder in by_folder):
            maps = map_files(plan, results_dir, chosen, overrides)
            sources = sources_of(plan, list(by_folder.values()), results_dir, maps, overrides)
            write_outputs(sources, place)
            if "" in plan.datasets:
                typer.echo(f"The report: {place / 'report.html'}, or {place / 'report.md'}; the figures beside it.")
            else:
                typer.echo(f"The report: {place / 'report.md'}; each dataset's in its folder, the figures beside it.")
    if progress.failed:
        raise typer.Exit(1)


def _are_jobs(runs: Sequence["Run"], devices: str) -> bool:
    """Whether a scheduler is given the runs.

    Raises:
        ConfigError: Some of them alone, or this machine's devices are dealt out to them.
    """
    from issgd_cli.errors import ConfigError

    kinds = {run.config.cluster.kind for run in runs}
    if "slurm" not in kinds:
        return False
    if kinds != {"slurm"}:
        raise ConfigError("Some of the file's runs are Slurm's and some are not. Give it all by `--cluster slurm`.")
    if devices:
        raise ConfigError("--devices deals out this machine's. What a job gets, cluster.slurm.gpus_per_task says.")
    return True


def _say_how_long(runs: Sequence["Run"], results: Path, jobs: int) -> None:
    """Every run with its estimate from a measured step; nothing is run."""
    from issgd_cli.cli.screen import duration
    from issgd_cli.simulation.estimate import Estimate, estimate

    known: dict[tuple[str, str, str], Estimate] = {}
    left = 0.0
    for run in runs:
        kind = run.setting, run.dataset, run.method
        if kind not in known:
            known[kind] = estimate(run.config, jobs)
        guess = known[kind]
        finished = run.folder(results).state() == "finished"
        left += 0 if finished else guess.seconds
        note = "finished" if finished else f"{duration(guess.seconds)}, {guess.steps:,} steps"
        typer.echo(f"{run.folder(results).path}  {note}")
    step = max(guess.step_seconds for guess in known.values())
    typer.echo(
        f"{len(runs)} runs, about {duration(left / jobs)} with {jobs} at a time on this machine ({os.cpu_count()} "
        f"cores, {next(iter(known.values())).device}; from measured steps, up to {step * 1000:.1f} ms each with the "
        "other actors beside them); starting and audits come on top."
    )


@contextlib.contextmanager
def watching(jobs: int) -> Iterator[Callable[["Progress"], None]]:
    """A `watch` for `reproduction.reproduce`: a screen in a terminal, lines elsewhere."""
    from rich.console import Console
    from rich.live import Live

    from issgd_cli.cli.screen import LINE_SECONDS

    console = Console()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            yield lambda progress: live.update(_screen(progress, jobs))
        return
    said = {"at": 0.0, "ended": -1.0}

    def watch(progress: "Progress") -> None:
        ended = len(progress.done) + len(progress.failed) + progress.skipped
        if ended != said["ended"] or time.monotonic() - said["at"] >= LINE_SECONDS:
            said.update(at=time.monotonic(), ended=ended)
            under_way = [f"{name} step {_step(s):,}" for name, s in progress.running.items()]
            typer.echo("  ".join([_tally(progress, jobs), *under_way]))

    yield watch


def _saying(stop: "threading.Event") -> Callable[[str], None]:
    """Tells what the staleness map is at, every few seconds, and ends it when it is interrupted."""
    from issgd_cli.cli.screen import LINE_SECONDS
    from issgd_cli.errors import RunError

    said = {"at": 0.0}

    def say(text: str) -> None:
        if stop.is_set():
            raise RunError("Interrupted. The same command goes on from here.")
        if time.monotonic() - said["at"] >= LINE_SECONDS:
            said["at"] = time.monotonic()
            typer.echo(f"  map: {text}")

    return say


def _step(snapshot: object) -> int:
    statuses = getattr(snapshot, "statuses", {})
    return int((statuses.get("master") or statuses.get("server") or {}).get("step", 0))


def _tally(progress: "Progress", jobs: int) -> str:
    from issgd_cli.cli.screen import duration

    left = progress.seconds_left(jobs)
    return (
        f"{len(progress.done) + progress.skipped} of {progress.total} done, {len(progress.running)} running, "
        + (f"{progress.queued} queued, " if progress.queued else "")
        + f"{len(progress.failed)} failed, {duration(time.monotonic() - progress.started)}"
        + (f", {duration(left)} left" if left is not None else "")
    )


def _screen(progress: "Progress", jobs: int) -> "Group":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    ended = len(progress.done) + progress.skipped + len(progress.failed)
    table = Table(box=None, header_style="dim", padding=(0, 2))
    for column in ("running", "step", "seconds", "train loss", "test error"):
        table.add_column(column, justify="left" if column == "running" else "right")
    for name, snapshot in progress.running.items():
        latest = snapshot.statuses.get("monitor", {}).get("latest", {})
        values = (f"{latest[key]:.4f}" if key in latest else "-" for key in ("loss/train", "error/test"))
        table.add_row(name, f"{_step(snapshot):,}", f"{snapshot.seconds:.0f}", *values)
    failures = [
        Text(f"failed: {name}: {reason.splitlines()[0]}", style="red") for name, reason in progress.failed.items()
    ]
    bar = ProgressBar(total=progress.total, completed=ended, width=60)
    return Group(Text(_tally(progress, jobs), style="bold"), bar, "", table, *failures)
