"""A moment of the simulated cluster: what a checkpoint holds of it, so that a run goes on from there to the bit.

The records, the parameters and the optimiser's vectors are every checkpoint's. Here is the rest: whose turn it is among
the chunks and who may score which, what each actor is doing until when and with which parameters, the proposal in use
and the round of publishing and reading that is to replace it, and how far the monitor had written. Generators cannot be
saved: each actor is begun anew and told where it was. It takes as much room as the parameter vectors that are in use
anywhere, and the proposal.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from issgd_cli.actors.master import Master
from issgd_cli.actors.monitor import Monitor
from issgd_cli.actors.peer import Peer
from issgd_cli.actors.server import Server
from issgd_cli.actors.worker import Worker
from issgd_cli.errors import DamagedError
from issgd_cli.files import writing
from issgd_cli.runs import cutting
from issgd_cli.runs.arrays import START_AGAIN, Arrays
from issgd_cli.runs.checkpoints import Checkpoint
from issgd_cli.runs.folder import RunFolder
from issgd_cli.simulation.virtual import Life, VirtualTime

State = Mapping[str, Any]
Workers = Sequence[Worker | Peer]


def taken(time: VirtualTime, master: Master | Server, monitor: Monitor, workers: Workers, folder: RunFolder) -> Arrays:
    """This moment's, while the master makes its checkpoint: all is counted and written, and the master goes on next."""
    parameters = {worker.version: worker.parameters for worker in workers if worker.parameters is not None}
    state = {
        "time": time.state(),
        "database": time.database.state(),
        "master": master.state(),
        "workers": {str(number): worker.state() for number, worker in enumerate(workers)},
        "parameters": {str(version): vector for version, vector in parameters.items()},
        "written": {**monitor.written_so_far(), "events_bytes": folder.events.stat().st_size},
    }
    return {name: np.asarray(value) for name, value in _flat(state)}


def cut_back(folder: RunFolder, checkpoint: Checkpoint) -> None:
    """Takes out of the trace and the events what was written after the moment."""
    written = _nested(checkpoint.moment)["written"]
    sampled_at, proposal_step = float(written["sampled_at"]), int(written["proposal_step"])
    cutting.drop_after(folder.trace, checkpoint.step, sampled_at, proposal_step)
    with writing(folder.events):
        os.truncate(folder.events, min(int(written["events_bytes"]), folder.events.stat().st_size))


def restore(
    time: VirtualTime,
    going_on: Life,
    master: Master | Server,
    monitor: Monitor,
    workers: Workers,
    folder: RunFolder,
    moment: Arrays,
) -> None:
    """Puts everybody back to where they were.

    Args:
        time: Its database begun with the checkpoint's records, its lives added.
        going_on: The master's life.
        master, monitor, workers: Made anew; or a parameter server in the master's place, and peers in the workers'.
        folder: Of the run.
        moment: The checkpoint's.

    Raises:
        DamagedError: It is none of this run's.
    """
    try:
        state = _nested(moment)
        time.database.restore(state["database"])
        master.restore(state["master"])
        monitor.sampled_at, monitor.caught_up = float(state["written"]["sampled_at"]), True
        parameters = state.get("parameters", {})
        for number, worker in enumerate(workers):
            own = state["workers"][str(number)]
            worker.restore(own, parameters.get(str(own["version"])))
        time.restore(state["time"], going_on, [] if master.task is None else [master.task])
    except (KeyError, ValueError, TypeError, IndexError, StopIteration, RuntimeError) as error:
        raise DamagedError(folder.checkpoint, f"its moment: {error!r}", START_AGAIN) from None


def _flat(state: State, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}/")
        else:
            yield path + name, value


def _nested(arrays: Arrays) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for path, array in arrays.items():
        *sections, last = path.split("/")
        place = state
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = array
    return state
