"""`--track`: the curves of runs also in TensorBoard, Trackio or Weights & Biases."""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from issgd_cli.errors import RunError
from issgd_cli.trackers import TRACKERS, ready

if TYPE_CHECKING:
    from issgd_cli.runs.folder import RunFolder


def _known(name: str | None) -> str | None:
    if name is not None and name not in TRACKERS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(TRACKERS)}.")
    return name


Track = Annotated[
    str | None,
    typer.Option("--track", metavar="TRACKER", callback=_known, help=f"Curves also in {' or '.join(TRACKERS)}."),
]


def beside(name: str | None) -> "Callable[[RunFolder], contextlib.AbstractContextManager[object]]":
    """What a run goes on within, so that a tracker shows it live; without a name, nothing.

    Raises:
        TrackerError: The tracker is not installed, or cannot be used.
    """
    if name is None:
        return contextlib.nullcontext
    tracker = ready(name)
    from issgd_cli.trackers.following import following

    return lambda folder: following(tracker, folder, lambda what: typer.echo(f"issgd: {what}", err=True))


def show_all(name: str, folders: "Sequence[RunFolder]") -> None:
    """Shows the traces of runs to a tracker, as they are now.

    Raises:
        TrackerError: The tracker is not installed, or takes no more.
        RunError: There is no run, or a trace cannot be read.
    """
    if not folders:
        raise RunError("`--track` shows runs, and there is none. Packed traces are for `issgd plot` alone.")
    tracker = ready(name)
    from issgd_cli.cli.signals import tidying
    from issgd_cli.trackers.following import show

    with tidying():
        for folder in folders:
            show(tracker, folder)
    typer.echo(f"Showed {len(folders)} runs to {name}.")
