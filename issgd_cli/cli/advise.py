"""`issgd advise`: whether importance sampling would pay, from a short plain run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from issgd_cli.cli.output import refuse_lost
from issgd_cli.cli.prepare import prepare_files
from issgd_cli.cli.signals import tidying


def advise(
    experiment: Annotated[Path | None, typer.Argument(help="A TOML file; without one, the paper's setting a.")] = None,
    setting: Annotated[str | None, typer.Option(help="One of the file's settings; the first unless given.")] = None,
    dataset: Annotated[str | None, typer.Option(help="One of the file's datasets; the first unless given.")] = None,
    data: Annotated[str | None, typer.Option(help="A prepared dataset's name, or FILE.npz.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="mlp, cnn, resnet18, vit, text, polynomial, siren, pointnet, or your own package.module:function."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="0 unless given.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the trial; unless given, what --seconds let.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="About so long it takes without --steps.")] = 120,
    examples: Annotated[int, typer.Option(min=2, help="How many training examples are measured.")] = 2048,
    data_dir: Annotated[str | None, typer.Option(help="Where prepared datasets are.")] = None,
    results_dir: Annotated[Path, typer.Option(help="Where advice goes: its folder `advice`.")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="Where to write instead.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value; any number of them.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
) -> None:
    """Say whether importance sampling would pay: a short plain run, norms measured on the way, and what follows."""
    from issgd_cli.config.layers import assignments, merged
    from issgd_cli.config.values import is_place
    from issgd_cli.experiments import experiment as experiments
    from issgd_cli.networks import naming

    if model is not None and is_place(model):
        naming.name(model)
    flags: dict[str, dict[str, Any]] = {"data": {"name": data, "dir": data_dir}, "model": {"network": model}}
    given = {section: {k: v for k, v in keys.items() if v is not None} for section, keys in flags.items()}
    overrides = merged(given, {} if seed is None else {"seed": seed}, assignments(set_ or []))
    plan = experiments.read(experiment) if experiment else experiments.single()
    run = plan.one(setting, None, overrides, dataset)
    naming.refuse_unnamed(run.config.model.network)
    prepare_files([run])

    import torch

    from issgd_cli.actors.devices import computing, device_of
    from issgd_cli.cli.screen import progress_bar
    from issgd_cli.clusters.resuming import dataset_of
    from issgd_cli.experiments.advice import costs, forecast, record, trial
    from issgd_cli.figures import advice as page
    from issgd_cli.figures import advice_words
    from issgd_cli.problem import Problem

    config = run.config
    of_seed = f"-seed-{config.seed}" if config.seed else ""
    place = out or results_dir / "advice" / f"{config.data.name}-{config.hash()}{of_seed}"
    with tidying(), computing(config), progress_bar() as progress:
        device = torch.device(device_of(config, "master", 0))
        problem = Problem(config, dataset_of(config))
        taken = costs.costs_of(config, problem, device)
        length = steps or trial.steps_within(seconds, config, problem.data.sizes["train"], examples, taken)
        last = trial.moments_of(length)[-1]

        def watch(step: int) -> None:
            progress("plain training, twice", step, 2 * last)

        found = trial.run(config, problem, device, length, examples, taken, watch)
        told = record.record(forecast.advice(found, config), config, problem, device.type)
        pages = page.write(told, place)
    typer.echo(advice_words.screen(told))
    typer.echo(f"\nWrote {pages[0]}, and {', '.join(path.name for path in pages[1:])} beside it.")
    if open_:
        from issgd_cli.cli.plot import show

        show(pages[0])
    refuse_lost()
