"""TensorBoard: event files in the run's own folder, for `tensorboard --logdir results`."""

import contextlib
from collections.abc import Mapping
from datetime import datetime

from torch.utils.tensorboard import SummaryWriter

from issgd_cli.runs.folder import RunFolder, locked
from issgd_cli.trackers.tracker import Tracker

FLUSH_SECONDS = 1  # of its own, two minutes


class TensorBoard(Tracker):
    """The files in RUN FOLDER/tensorboard, written anew."""

    def __init__(self, folder: RunFolder) -> None:
        """Removes the run's older event files.

        Raises:
            RunError: Another process is writing them.
        """
        place = folder.path / "tensorboard"
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(locked(place, "another `--track tensorboard`"))
        for older in place.glob("events.out.tfevents.*"):
            older.write_bytes(b"")  # a TensorBoard that reads a removed one would not go on to the next
        # So that TensorBoard's relative time is the run's own, also of a run that is over or simulated.
        self._start = datetime.fromisoformat(folder.read_manifest()["start"]).timestamp()
        # What an earlier page has shown to a TensorBoard that is open goes by the purge.
        self._writer = SummaryWriter(str(place), purge_step=0, flush_secs=FLUSH_SECONDS)

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        for quantity, value in values.items():
            self._writer.add_scalar(quantity, value, step, self._start + seconds)

    def close(self) -> None:
        self._writer.close()
        self._lock.close()
