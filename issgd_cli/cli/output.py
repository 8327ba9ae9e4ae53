"""Standard output and error that decide nothing: their reader may leave, their disk be full, and the work goes on."""

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

from issgd_cli.errors import IssgdError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Forgiving(io.FileIO):
    """Takes whatever is written; what the system refuses is lost, and the first reason kept."""

    lost: OSError | None = None

    def write(self, content: "ReadableBuffer", /) -> int:
        while True:
            try:
                written = super().write(content)
            except OSError as error:
                self.lost = self.lost or error
                return memoryview(content).nbytes
            if written is not None:
                return written
            select.select([], [self], [], 1.0)  # somebody has made it non-blocking, and its reader is slow


_streams: dict[str, _Forgiving] = {}


def forgive() -> None:
    """From now on nothing that is printed can fail, nor can a letter that the terminal does not know."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file to be opened would be taken for it
            os.open(os.devnull, os.O_RDWR)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream: TextIO | None = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):
            continue  # nowhere, or wherever a caller of ours wants it
        _streams[name] = raw = _Forgiving(descriptor, "w", closefd=False)
        lines = name == "stderr" or stream.isatty()
        text = io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "replace", line_buffering=lines)
        setattr(sys, name, text)


def lost() -> OSError | None:
    """Why something that was printed did not arrive, if its reader did not just leave."""
    if sys.stdout is not None:
        sys.stdout.flush()
    found = _streams["stdout"].lost if "stdout" in _streams else None
    return None if found is None or found.errno == errno.EPIPE else found


def refuse_lost() -> None:
    """For commands that do nothing but tell.

    Raises:
        IssgdError: Something of it did not arrive.
    """
    if (error := lost()) is not None:
        _streams["stdout"].lost = None  # it is told by this
        raise IssgdError(f"Standard output cannot be written: {error.strerror}. Send it elsewhere.")
