"""`issgd train`: one run, shown live."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from issgd_cli.cli.address import DatabaseFile, address, blaming, on_default
from issgd_cli.cli.prepare import prepare_files
from issgd_cli.cli.track import Track, beside
from issgd_cli.registries import METHODS

if TYPE_CHECKING:
    from issgd_cli.config.config import Config
    from issgd_cli.runs.folder import RunFolder


def train(
    experiment: Annotated[Path | None, typer.Argument(help="A TOML file; without one, the paper's setting a.")] = None,
    method: Annotated[
        str | None, typer.Option(help=f"A method of the file; where it lists none: {', '.join(METHODS)}.")
    ] = None,
    setting: Annotated[str | None, typer.Option(help="One of the file's settings; the first unless given.")] = None,
    dataset: Annotated[str | None, typer.Option(help="One of the file's datasets; the first unless given.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Worker processes.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="0 unless given.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="End after so many steps.")] = None,
    seconds: Annotated[float | None, typer.Option(help="End after so many seconds.")] = None,
    mode: Annotated[str | None, typer.Option(help="relaxed, or exact: barriers, bit for bit repeatable.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="local, alone (no workers), slurm (a job), ray, or simulated (a virtual clock)."),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="URL; unless given, ISSGD_DATABASE's; none: a server of our own.")
    ] = None,
    database_file: DatabaseFile = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT where workers elsewhere reach our own server.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="mlp, cnn, resnet18, vit, text, polynomial, siren, pointnet, or your own package.module:function."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="A prepared dataset's name, or FILE.npz.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Where prepared datasets are.")] = None,
    results_dir: Annotated[Path, typer.Option(help="Where runs go.")] = Path("results"),
    name: Annotated[str | None, typer.Option(help="The experiment's name.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value; any number of them.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    track: Track = None,
) -> None:
    """Train once: start Redis, a master, workers and a monitor, show them live, leave a run folder."""
    from issgd_cli.config.layers import assignments, merged
    from issgd_cli.config.values import is_place
    from issgd_cli.experiments import experiment as experiments
    from issgd_cli.networks import naming
    from issgd_cli.runs import folder as runs

    if model is not None and is_place(model):
        naming.name(model)

    flags: dict[str, dict[str, Any]] = {
        "worker": {"count": workers},
        "master": {"steps": steps, "seconds": seconds, "mode": mode},
        "cluster": {"kind": cluster},
        "database": {"url": address(database, database_file), "listen": listen},
        "data": {"name": data, "dir": data_dir},
        "model": {"network": model},
    }
    given = {section: {k: v for k, v in keys.items() if v is not None} for section, keys in flags.items()}
    top = {"name": name, "seed": seed}
    overrides = merged(given, {k: v for k, v in top.items() if v is not None}, assignments(set_ or []))
    plan = experiments.read(experiment) if experiment else experiments.single()
    run = on_default(plan.one(setting, method, overrides, dataset), overrides)
    naming.refuse_unnamed(run.config.model.network)
    folder = run.folder(results_dir)
    tracked = beside(track)
    prepare_files([run])
    if run.config.cluster.kind == "slurm":
        from issgd_cli.cli.jobs import submit

        with tracked(folder):
            finished = submit(run, folder, resume)
        if finished:
            _summarise(run.config, folder)
        return

    from issgd_cli.cli.screen import watching  # here: whoever mistypes need not wait for torch to load
    from issgd_cli.cli.signals import stopping
    from issgd_cli.experiments import run as training

    with (
        tracked(folder),
        blaming(run.config.database.url),
        stopping() as stop,
        watching(run.config, folder) as watch,
    ):
        if folder.state() is None:
            _say_how_long(run.config)
        training.train(
            run.config,
            folder,
            command=runs.command_line(),
            resume=resume,
            watch=watch,
            stop=stop,
            labels=run.labels,
        )
    _summarise(run.config, folder)


def _say_how_long(config: "Config") -> None:
    """Before a run of more than a few minutes: how long, and which setting is faster."""
    from issgd_cli.cli.screen import duration
    from issgd_cli.simulation.estimate import estimate

    guess = estimate(config)
    if guess.seconds < 300:
        return
    typer.echo(
        f"About {duration(guess.seconds)}: {guess.steps:,} steps at {guess.step_seconds:.3g} s on {guess.device}, "
        f"{guess.epochs:.2g} passes over the data."
    )
    if guess.device == "cpu" and guess.step_seconds > 0.02 and config.model.network == "mlp":
        typer.echo(
            "The paper's size is slow without a GPU. A minute's version of it: "
            f"issgd train --data {shlex.quote(config.data.name)} --steps 2000 --set model.hidden=[128,128,128,128] "
            "--set model.initial_weight_std=0.05" + (" --set data.train_size=20000" if guess.examples > 20_000 else "")
        )


def _summarise(config: "Config", folder: "RunFolder") -> None:
    """The last values, where the files lie, and what to type next."""
    from issgd_cli.cli.screen import duration
    from issgd_cli.runs import traces

    trace = traces.read(folder.trace)
    last = trace.groupby("quantity").value.last()
    virtual = " on the virtual clock" if config.cluster.kind == "simulated" else ""
    typer.echo(f"\nFinished: {trace.step.max():,} steps in {duration(trace.seconds.max())}{virtual}.")
    for split in ("train", "valid", "test"):
        error = last.get(f"audit/error/{split}")  # None: the loss knows none
        of_error = "" if error is None else f"  error {error:.4f}"
        typer.echo(f"  {split:5}  loss {last[f'audit/loss/{split}']:.4f}{of_error}")
    roots = []
    for name in ("ideal", "stale", "in_use", "uniform"):
        value = last.get(f"audit/trace/{name}")
        if value is not None:
            roots.append(f"{name.replace('_', ' ')} {value**0.5:.3g}" if value >= 0 else f"{name} negative")
    sample = config.monitor.audit_examples
    how = "exact" if sample is None else f"estimated from {sample:,} examples"
    typer.echo(f"  sqrt Tr(Sigma), {how} at the last step: {', '.join(roots)}")
    audits = trace[trace.quantity.str.startswith("audit/trace/")]
    table = audits.pivot_table(index="step", columns="quantity", values="value")
    uniform = table["audit/trace/uniform"]
    if "audit/trace/uniform_in_use" in table:  # over the examples that could be drawn, where some could not
        uniform = table["audit/trace/uniform_in_use"].fillna(uniform)
    worse = int((table["audit/trace/in_use"] > uniform).sum())
    typer.echo(f"  the proposal in use had more variance than uniform draws at {worse} of {len(table)} audits")
    typer.echo(f"Trace, events, logs and final parameters: {folder.path}")
    typer.echo(f"Next: issgd plot {shlex.quote(str(folder.path))}")
