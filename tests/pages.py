"""A tracker that keeps what it is given."""

from collections.abc import Mapping
from typing import ClassVar

from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.traces import Row
from issgd_cli.trackers.tracker import Tracker


class Page(Tracker):
    """All pages are in `all`, in the order begun; a test empties it."""

    all: ClassVar[list["Page"]] = []

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.rows, self.closed = folder, list[Row](), False
        self.all.append(self)

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        assert not self.closed
        self.rows += [Row(step, seconds, quantity, value) for quantity, value in values.items()]

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Refusing(Page):
    """Takes nothing."""

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        raise ConnectionError("nobody answers")
