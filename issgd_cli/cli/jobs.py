"""`train` and `reproduce` with `--cluster slurm`: runs as jobs; and `issgd head`, which a job's script starts."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from issgd_cli.cli.actors import Folder, Model

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Sequence

    from issgd_cli.cli.signals import Stop
    from issgd_cli.clusters.slurm import Slurm
    from issgd_cli.experiments.experiment import Run
    from issgd_cli.experiments.reproduction import Progress
    from issgd_cli.runs.folder import RunFolder


def head(
    folder: Folder,
    model: Model = None,
    quiet: Annotated[bool, typer.Option(help="Print no lines of what is trained.")] = False,
) -> None:
    """Be a Slurm job's head: server, master and monitor, and the workers' starter (the batch script starts one)."""
    from issgd_cli.cli.screen import watching
    from issgd_cli.cli.signals import stopping
    from issgd_cli.clusters.job import take_over
    from issgd_cli.experiments import run as training
    from issgd_cli.networks import naming
    from issgd_cli.runs.folder import RunFolder

    if model is not None:
        naming.name(model)
    there = RunFolder(folder)
    config, manifest = there.read_config(), there.read_manifest()
    naming.refuse_unnamed(config.model.network)
    if manifest["state"] == "finished":  # an earlier life of this job, in its last moment
        typer.echo(f"{folder} holds a finished run.")
        return
    take_over(there)
    # USR2: Slurm's warning that the job ends soon.
    with stopping(signal.SIGUSR2) as stop, watching(config, there) as watch:
        training.train(
            config,
            there,
            command=manifest.get("command") or [],
            resume=True,
            watch=(lambda snapshot: None) if quiet else watch,
            stop=stop,
        )


def submit(run: "Run", folder: "RunFolder", resume: bool) -> bool:
    """Submits a run and shows it; whether it has finished: False where whoever watched has left.

    Raises:
        RunError: The scheduler refuses it, or it has failed.
    """
    from issgd_cli.cli.screen import watching
    from issgd_cli.cli.signals import stopping
    from issgd_cli.clusters.jobs import script_of
    from issgd_cli.clusters.slurm import Slurm
    from issgd_cli.experiments import submission
    from issgd_cli.runs import folder as runs

    slurm = Slurm()
    command = runs.command_line()
    job = submission.submit(run.config, folder, slurm, command=command, resume=resume, labels=run.labels)
    typer.echo(f"Submitted job {job}: {script_of(folder)}")
    with stopping() as stop:
        with watching(run.config, folder) as watch:
            finished = submission.watch(folder, slurm, watch, stop)
    if finished:
        return True
    job = submission.at_work(folder, slurm.standings() or {}) or job  # it may have queued again under another number
    if _cancelled(stop, [job], slurm):
        typer.echo(f"Cancelled job {job}. Go on with `--resume`.")
        raise typer.Exit(128 + signal.SIGINT)
    typer.echo(f"Job {job} goes on. `issgd status` tells how it stands, `scancel {job}` ends it.")
    return False


def submit_all(
    runs: "Sequence[Run]",
    results: Path,
    command: list[str],
    jobs: int | None,
    watch: "Callable[[Progress], None]",
    stop: "Stop",
    beside: "Callable[[RunFolder], contextlib.AbstractContextManager[object]]",
) -> "Progress":
    """Submits an experiment's runs and shows them until they are over, or `stop` is set; see `arrays.reproduce`."""
    from issgd_cli.clusters.slurm import Slurm
    from issgd_cli.experiments import arrays

    return arrays.reproduce(runs, results, Slurm(), command=command, jobs=jobs, watch=watch, stop=stop, beside=beside)


def leave(runs: "Sequence[Run]", results: Path, stop: "Stop") -> NoReturn:
    """Leaves an experiment's jobs to themselves, or cancels them, as whoever watched says; and exits."""
    from issgd_cli.clusters.slurm import Slurm
    from issgd_cli.experiments import arrays

    slurm = Slurm()
    ids = arrays.jobs_of(runs, results, slurm)
    if ids and _cancelled(stop, ids, slurm):
        typer.echo("Cancelled. The same command goes on from here.")
    else:
        typer.echo(
            f"{len(ids)} jobs left to themselves. `issgd status` tells of them, the same command goes on watching."
        )
    raise typer.Exit(128 + (stop.signal_number or signal.SIGINT))


def _cancelled(stop: "Stop", ids: list[str], slurm: "Slurm") -> bool:
    """Whether whoever pressed Ctrl-C does not leave the jobs to themselves; asked where there is somebody to ask."""
    asks = stop.signal_number == signal.SIGINT and sys.stdin.isatty() and sys.stdout.isatty()
    what = f"job {ids[0]} to itself" if len(ids) == 1 else f"{len(ids)} jobs to themselves"
    if not asks or typer.confirm(f"\nLeave {what}?", default=True):
        return False
    for job in ids:
        slurm.cancel(job)
    return True
