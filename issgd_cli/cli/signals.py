"""What Ctrl-C and its like do: end a command at once, or once it has tidied up, and the exit status that tells it."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import typer

from issgd_cli.errors import IssgdError


class Stop(threading.Event):
    """Set by a signal; remembers which."""

    signal_number: int | None = None


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Within, SIGINT, SIGTERM and SIGHUP set the event, for a running cluster to look at.

    An error that follows is printed and exits with 128 + the signal. A terminal that is closed is told by SIGHUP;
    whoever started us by nohup wants it ignored.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number
        stop.set()

    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    previous = {number: signal.signal(number, handle) for number in heard}
    try:
        yield stop
    except IssgdError as error:
        if stop.signal_number is None:
            raise
        typer.echo(f"issgd: {error}", err=True)
        raise typer.Exit(128 + stop.signal_number) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def tidying() -> Iterator[None]:
    """Within, Ctrl-C unwinds what is under way, so that it leaves nothing half done, and exits with 130.

    Elsewhere it ends a command on the spot (`__main__.end_at_once`).
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("issgd: interrupted", err=True)
        raise typer.Exit(128 + signal.SIGINT) from None
    finally:
        signal.signal(signal.SIGINT, previous)
