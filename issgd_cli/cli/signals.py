"""What Ctrl-C and its like do: end a command at once, or once it has tidied up, and the exit status that tells it."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import typer

from issgd_cli.errors import IssgdError


class Stop(threading.Event):
    """Set by a signal; remembers which."""

    signal_number: int | None = None


@contextlib.contextmanager
def stopping(*more: signal.Signals) -> Iterator[Stop]:
    """Within, SIGINT, SIGTERM, SIGHUP, and `more`, set the event, for a running cluster to look at.

    An error that follows is printed and exits with 128 + the signal. A terminal that is closed is told by SIGHUP.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number
        stop.set()

    try:
        with _handled_by(handle, *more):
            yield stop
    except IssgdError as error:
        if stop.signal_number is None:
            raise
        typer.echo(f"issgd: {error}", err=True)
        raise typer.Exit(128 + stop.signal_number) from None


class _ToldError(BaseException):
    """A signal has come; no Exception, which somebody might take for an error of his own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def tidying() -> Iterator[None]:
    """Within, SIGINT, SIGTERM and SIGHUP unwind what is under way, so that it leaves nothing half done.

    Exits with 128 + the signal. Whatever is heavy is imported before: elsewhere Ctrl-C ends a command on the spot
    (`__main__.end_at_once`), since an exception that is raised within an import may get lost.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        raise _ToldError(number)

    try:
        with _handled_by(handle):
            yield
    except _ToldError as told:
        typer.echo("issgd: interrupted", err=True)
        raise typer.Exit(128 + told.number) from None


@contextlib.contextmanager
def _handled_by(handle: Callable[[int, FrameType | None], None], *more: signal.Signals) -> Iterator[None]:
    """Within, the signals that end a command go to `handle`, but for those that whoever started us wants ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *more)
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in heard}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
