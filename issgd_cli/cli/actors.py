"""`issgd master`, `issgd worker`, `issgd monitor`, and of peers `issgd server`, `issgd peer`: one actor of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from issgd_cli.cli.address import DatabaseFile, address, blaming, default

if TYPE_CHECKING:
    from issgd_cli.clusters.joining import Kind

Url = Annotated[
    str | None, typer.Option("--database", help="URL of the run's database; unless given, ISSGD_DATABASE's.")
]
Name = Annotated[str, typer.Option("--run", help="The run's name in the database, as `issgd train` prints it.")]
DataDir = Annotated[Path, typer.Option(help="Where the prepared datasets are.")]
Folder = Annotated[Path, typer.Option(help="The run's folder.")]
Model = Annotated[
    str | None, typer.Option("--model", help="The run's network, where that is your own package.module:function.")
]
Device = Annotated[str, typer.Option(help="For instance cuda:0; empty: as the run's configuration says.")]


def worker(
    run: Name,
    database: Url = None,
    database_file: DatabaseFile = None,
    data_dir: DataDir = Path("data"),
    index: Annotated[int | None, typer.Option(hidden=True)] = None,
    wait: Annotated[float, typer.Option(min=0, help="Wait so many seconds for the file, if it is not there.")] = 0.0,
    device: Device = "",
    model: Model = None,
) -> None:
    """Join a run as a worker, from this machine or another."""
    _join("worker", address(database, database_file, wait) or default(), run, data_dir, None, index, device, model)


def master(
    run: Name,
    folder: Folder,
    database: Url = None,
    database_file: DatabaseFile = None,
    data_dir: DataDir = Path("data"),
    device: Device = "",
    model: Model = None,
) -> None:
    """Be a run's master (`issgd train` starts one; this is for debugging)."""
    _join("master", address(database, database_file) or default(), run, data_dir, folder, None, device, model)


def peer(
    run: Name,
    database: Url = None,
    database_file: DatabaseFile = None,
    data_dir: DataDir = Path("data"),
    index: Annotated[int | None, typer.Option(hidden=True)] = None,
    wait: Annotated[float, typer.Option(min=0, help="Wait so many seconds for the file, if it is not there.")] = 0.0,
    device: Device = "",
    model: Model = None,
) -> None:
    """Join a run of cluster.roles = "peers" as a peer, from this machine or another."""
    _join("peer", address(database, database_file, wait) or default(), run, data_dir, None, index, device, model)


def server(
    run: Name,
    folder: Folder,
    database: Url = None,
    database_file: DatabaseFile = None,
    data_dir: DataDir = Path("data"),
    device: Device = "",
    model: Model = None,
) -> None:
    """Be the parameter server of a run's peers (`issgd train` starts one; this is for debugging)."""
    _join("server", address(database, database_file) or default(), run, data_dir, folder, None, device, model)


def monitor(
    run: Name,
    folder: Folder,
    database: Url = None,
    database_file: DatabaseFile = None,
    data_dir: DataDir = Path("data"),
    device: Device = "",
    model: Model = None,
) -> None:
    """Be a run's monitor (`issgd train` starts one; this is for debugging)."""
    _join("monitor", address(database, database_file) or default(), run, data_dir, folder, None, device, model)


def _join(
    kind: "Kind",
    url: str,
    run: str,
    data_dir: Path,
    folder: Path | None,
    index: int | None,
    device: str,
    model: str | None,
) -> None:
    from issgd_cli.clusters.cluster import GONE_STATUS
    from issgd_cli.clusters.joining import join
    from issgd_cli.errors import ConfigError, GoneError
    from issgd_cli.networks import naming

    if model is not None:
        naming.name(model)
    if not url:
        raise ConfigError(
            "Where is the run's database? Name it by --database-file, by ISSGD_DATABASE, or by --database redis://host:6379."
        )
    try:
        with blaming(url):
            join(kind, url, run, data_dir, folder, index, device or None)
    except GoneError as error:
        if kind in ("worker", "peer"):
            raise
        typer.echo(f"issgd: {error}", err=True)
        raise typer.Exit(GONE_STATUS) from None
