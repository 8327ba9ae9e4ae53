"""The command line: parse, call, print. Whatever is heavy is imported by the command that needs it."""

import atexit
import gc
import sys
from typing import Annotated

import typer

from issgd_cli.cli import actors, advise, doctor, jobs, output, plot, prepare, reproduce, status, train
from issgd_cli.cli.address import refuse_passwords
from issgd_cli.errors import IssgdError

app = typer.Typer(
    name="issgd",
    help="Importance sampling for SGD: reproduces Alain et al. 2015 with a master, workers and a database.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"issgd {version('issgd')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Importance sampling for SGD."""


app.command()(prepare.prepare)
app.command()(train.train)
app.command()(reproduce.reproduce)
app.command()(plot.plot)
app.command()(advise.advise)
app.command()(status.status)
app.command()(doctor.doctor)
app.command()(actors.master)
app.command()(actors.worker)
app.command()(actors.server)
app.command()(actors.peer)
app.command()(actors.monitor)
app.command()(jobs.head)


def main() -> None:
    """Runs a command. Exit status: 0 done, 1 an error, 2 wrong usage, 130 and 143 interrupted by a signal."""
    atexit.register(gc.freeze)  # Python's last look for garbage, in all of torch's modules, takes half a second
    output.forgive()
    try:
        refuse_passwords(sys.argv[1:])
        app()
    except IssgdError as error:
        typer.echo(f"issgd: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        what = error.filename or "A file, or the current folder,"
        reason = error.strerror or type(error).__name__
        typer.echo(f"issgd: {what} cannot be used: {reason}. Look at its path, its permissions and its disk.", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("issgd: interrupted", err=True)
        sys.exit(130)
    finally:
        if (loss := output.lost()) is not None:
            typer.echo(f"issgd: not all of this could be written to standard output: {loss.strerror}.", err=True)
