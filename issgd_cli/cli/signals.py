"""Ctrl-C and SIGTERM as an event that a running cluster looks at, and the exit status that belongs to them."""

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
    """Within, SIGINT and SIGTERM set the event; an error that follows is printed and exits with 128 + the signal."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
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
