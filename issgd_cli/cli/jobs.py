"""`issgd train --cluster slurm`: a run as a job; and `issgd head`, what that job's script starts."""

import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from issgd_cli.cli.actors import Folder, Model

if TYPE_CHECKING:
    from issgd_cli.experiments.experiment import Run
    from issgd_cli.runs.folder import RunFolder


def head(
    folder: Folder,
    model: Model = None,
    quiet: Annotated[bool, typer.Option(help="Print no lines of what is trained.")] = False,
) -> None:
    """Be a Slurm job's head: server, master and monitor, and the workers' starter (the batch script starts one)."""
    from issgd_cli.cli.screen import watching
    from issgd_cli.cli.signals import stopping
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
    asks = stop.signal_number == signal.SIGINT and sys.stdin.isatty() and sys.stdout.isatty()
    if asks and not typer.confirm(f"\nLeave job {job} to itself?", default=True):
        slurm.cancel(job)
        typer.echo(f"Cancelled job {job}. Go on with `--resume`.")
        raise typer.Exit(128 + signal.SIGINT)
    typer.echo(f"Job {job} goes on. `issgd status` tells how it stands, `scancel {job}` ends it.")
    return False
