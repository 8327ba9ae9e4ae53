"""All that a run asks of its database, in small: a server that can do this can hold a run."""

import numpy as np

from issgd_cli.database.contributions import Contribution
from issgd_cli.database.protocol import Database
from issgd_cli.database.records import SPLITS, ChunkScores, Event, Layout, Published
from issgd_cli.errors import DatabaseError

LAYOUT = Layout(train=3, valid=1, test=1, chunk_size=2)
GRADIENT = Contribution(0, 1, 1, 0.5, np.ones(3, "<f4"))


def rehearse(database: Database) -> None:
    """Plays launcher, master, worker, monitor, peer and server in turn on a run that has just begun with LAYOUT.

    Raises:
        DatabaseError: The server refuses a part of it, or does not give back what it was given.
    """
    parameters = np.arange(3, dtype=np.float32)
    database.put("description", {"config": {}, "dataset": "none", "model": "none", "resumed": False})
    database.publish(Published(1, 0), parameters)
    ones = np.ones(2, np.float32)
    kept = [database.newest() == Published(1, 0), database.get("description") is not None]
    chunk = database.claim(1, "train", 1.0)
    if chunk is not None:
        kept.append(database.push(chunk, 1, ChunkScores(ones, ones, np.ones(2, np.uint8), 1.0)))
    status = {"process": 1, "seconds": database.seconds(), "bytes": 0, "examples": {}, "doing": "wait"}
    database.report("worker-0", status)
    database.push_events("worker-0:1", [Event("worker-0", 0.0, 1.0, "score", 1)])
    kept += [chunk is not None, database.statuses() == {"worker-0": status}, len(database.events()) == 1]
    database.forget_events(["worker-0:1"])
    read = database.parameters()
    kept += [read is not None and bool((read[1] == parameters).all()), not database.events()]
    kept += [database.weights().norms.sum() == 2, database.behind(1) == 3]
    kept += [database.records()[split].versions.max() <= 1 for split in SPLITS]
    kept += [database.enlist(7, "one") == 7, database.enlist(7, "another") == 8]
    kept += [database.contribute(GRADIENT), (waits := database.contribution(3)) is not None]
    if waits is not None:
        kept += [bool((waits.gradient == GRADIENT.gradient).all()), not database.is_taken(0)]
        database.take(waits)
    kept += [database.is_taken(0), database.contributed(0) == 1]
    if not all(kept):
        raise DatabaseError(
            "The database does not give back what it was given.",
            "Name one server, not a proxy or a group of them, that nobody else writes these keys of.",
        )
