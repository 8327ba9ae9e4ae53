"""Shows a run's trace to a tracker: all of it, or, while the run goes on, each row as it appears in the file."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from itertools import groupby

from issgd_cli.errors import IssgdError, TrackerError
from issgd_cli.runs import traces
from issgd_cli.runs.folder import RunFolder
from issgd_cli.trackers.tracker import Tracker

LOOK_SECONDS = 1.0


class Follower:
    """Hands over each row of one run's trace once.

    Rows of a trace may be taken back: a run that goes on from its checkpoint writes those past it again. Then the page
    is closed, and a new one begun with all that the trace holds.
    """

    def __init__(self, start: Callable[[RunFolder], Tracker], folder: RunFolder, old: bool = True) -> None:
        """Nothing is handed over yet.

        Args:
            start: Begins a page for a run.
            folder: The run's.
            old: Whether a trace that is there already is shown before it changes. When a run is resumed its first
                change is the cut: the page need not be begun before.
        """
        self.start, self.folder = start, folder
        self.page: Tracker | None = None
        self.shown: set[str] = set()  # lines
        self.looked_at = None if old else self._stamp()

    def look(self) -> None:
        """Hands over what is new in the trace.

        Raises:
            RunError: The trace cannot be read.
            TrackerError: The tracker does not take it.
        """
        stamp = self._stamp()
        if stamp is None or stamp == self.looked_at:
            return
        lines = traces.whole_lines(self.folder.trace)
        try:
            self._show(lines)
        except IssgdError:
            raise
        except Exception as error:  # whatever a package of others raises
            raise TrackerError(f"The tracker takes no more of {self.folder.trace} ({error}).") from error
        self.looked_at = stamp

    def _show(self, lines: list[str]) -> None:
        if not self.shown <= set(lines):
            self.close()
        fresh = [traces.parsed(line, self.folder.trace) for line in lines if line not in self.shown]
        if not fresh:
            return
        self.page = self.page or self.start(self.folder)
        for (step, seconds), rows in groupby(fresh, lambda row: (row.step, row.seconds)):
            self.page.log(step, seconds, {row.quantity: row.value for row in rows})
        self.shown.update(lines)

    def close(self) -> None:
        """Ends the page, if there is one; the next begins anew."""
        page, self.page, self.shown = self.page, None, set()
        if page is not None:
            page.close()

    def _stamp(self) -> tuple[int, int, int] | None:
        """Changes with the trace; None where there is none."""
        try:
            status = self.folder.trace.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def show(start: Callable[[RunFolder], Tracker], folder: RunFolder) -> None:
    """All of a run's trace, once.

    Raises:
        RunError: The trace cannot be read.
        TrackerError: The tracker does not take it.
    """
    follower = Follower(start, folder)
    try:
        follower.look()
    finally:
        follower.close()


@contextlib.contextmanager
def following(start: Callable[[RunFolder], Tracker], folder: RunFolder, tell: Callable[[str], None]) -> Iterator[None]:
    """Within, what a run adds to its trace is shown about once a second, and the rest of it at the end.

    A tracker decides nothing: one that fails is told of, and the run goes on.

    Args:
        start: Begins a page for a run.
        folder: The run's, which is not there yet or is gone on with.
        tell: Called with what has failed.
    """
    over = threading.Event()
    follower = Follower(start, folder, old=False)

    def follow() -> None:
        try:
            try:
                while not over.wait(LOOK_SECONDS):
                    follower.look()
                follower.look()
            finally:
                follower.close()
        except Exception as error:
            tell(f"{error} The run goes on; `issgd plot` with `--track` shows it later.")

    thread = threading.Thread(target=follow, name=f"following {folder.path}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
