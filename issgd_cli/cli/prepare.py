"""`issgd prepare`: a dataset, ready to train on."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from issgd_cli.experiments.experiment import Run


def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="svhn, svhn-train, cifar10, cifar100, cifar10n-worse (-aggre, -random1 to 3), flowers-102, mnist, "
            "fashion-mnist, house-numbers, trec, sst2, mr, modelnet40, modelnet10, polynomial, toy, image, or your "
            "own FILE.npz."
        ),
    ] = "svhn",
    source: Annotated[
        Path | None, typer.Option("--from", help="Official files: their folder; of image, FILE.png.")
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Where prepared datasets go.")] = Path("data"),
    size: Annotated[int | None, typer.Option(help="Examples to make (house-numbers, polynomial, toy).")] = None,
    validation_fraction: Annotated[float, typer.Option(help="Held out for validation.")] = 0.05,
    split_seed: Annotated[int, typer.Option(help="Of the split and of the stored order.")] = 42,
    force: Annotated[bool, typer.Option(help="Make it anew even if it is there.")] = False,
) -> None:
    """Bring a dataset into data/: download, check, split, standardise. `house-numbers` is made on the spot."""
    from issgd_cli import datasets
    from issgd_cli.cli.screen import progress_bar
    from issgd_cli.cli.signals import tidying

    with tidying(), progress_bar() as progress:
        place = datasets.prepare(
            dataset,
            data_dir,
            source=source,
            size=size,
            validation_fraction=validation_fraction,
            split_seed=split_seed,
            force=force,
            progress=progress,
        )
    data = datasets.load(place.name, data_dir)
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    learned = f"{data.classes} classes" if data.classes else f"{data.outputs} numbers to predict"
    typer.echo(f"{dataset} is ready in {place}: {counts} examples of {data.features} features, {learned}.")
    fitting = "text" if data.tokens else "siren" if dataset == "image" else "pointnet" if len(data.shape) == 2 else ""
    network = f" --set model.network={fitting}" if fitting else ""
    loss = "" if data.classes else " --set model.loss=squared"
    typer.echo(f"Next: issgd train --data {shlex.quote(place.name)} --workers 3{network}{loss}")


def prepare_files(runs: Iterable["Run"]) -> None:
    """Prepares the users' own files that these runs are the first to use, with a bar as `prepare` has."""
    wanted = [run for run in runs if run.data_file and not (Path(run.config.data.dir) / run.config.data.name).is_dir()]
    if not wanted:
        return
    from issgd_cli import datasets
    from issgd_cli.cli.screen import progress_bar
    from issgd_cli.cli.signals import tidying

    with tidying(), progress_bar() as progress:
        for file, data in {run.data_file: run.config.data for run in reversed(wanted)}.items():
            datasets.prepare(
                str(file),
                Path(data.dir),
                validation_fraction=data.validation_fraction,
                split_seed=data.split_seed,
                progress=progress,
            )
