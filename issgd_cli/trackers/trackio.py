"""Trackio: a local database of runs, for `trackio show`, or what its own environment variables name instead."""

from collections.abc import Mapping

import trackio

from issgd_cli.runs.folder import RunFolder
from issgd_cli.trackers.tracker import Tracker, described


class Trackio(Tracker):
    """One of Trackio's runs, always a new one: it takes nothing back."""

    def __init__(self, folder: RunFolder) -> None:
        self._run = trackio.init(**described(folder), resume="never", embed=False)

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        self._run.log({"seconds": seconds, **values}, step=step)

    def close(self) -> None:
        self._run.finish()
