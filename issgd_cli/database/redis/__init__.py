"""The database in a Redis (or Valkey) server.

Keys, all under `issgd:<run>:` so that several runs can share a server:

    start                      JSON: server time of the run's start, seconds, and which of the run's lives this is
    layout, <topic>            JSON documents
    status                     hash: actor -> JSON
    events                     hash: batch -> JSON
    p:<version>:<i>            4 MiB pieces of a parameter vector, written before
    p:cur                      the pointer to the newest whole one: JSON [version, step, bytes]
    <split>:<field>            one string an array of records.FIELDS
    g:<life>:<peer>:<i>        4 MiB pieces of a peer's gradient, written before, and removed with
    contributions              hash: peer -> JSON [ticket, version, count, loss, type, bytes] of the one that waits
    contributions:counts, :tickets    hash: peer -> count of its last one; and how many there were of all peers
    contributions:peers        hash: number -> token of the peer that has joined under it
    <split>:cursor, :claims    which chunk is next, and which are being scored (hash: chunk -> version and until when)

Only arrays of numbers (checked by records.flaw) and JSON (by documents.py) are read, never more of a value than can be
meant; nothing read is ever executed or unpickled. Master, server, monitor and launcher trust no worker, and no peer, to
write what it should.
"""

import contextlib
import copy

from issgd_cli.database import rehearsal
from issgd_cli.database.records import SPLITS, Layout, Records, Split
from issgd_cli.database.redis.contributions import RedisContributions
from issgd_cli.database.redis.messages import RedisMessages
from issgd_cli.database.redis.parameters import RedisParameters
from issgd_cli.errors import DatabaseError


class RedisDatabase(RedisMessages, RedisParameters, RedisContributions):
    """See Database: a life with its clock, messages, parameters, a table and contributions, over one connection."""

    def begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        self.rehearse()  # what the server cannot do is known now, not when an actor asks for it
        self._begin(layout, seconds, records)

    def rehearse(self) -> None:
        """Does all that a run does, in small, under a name within the run's own, and takes it away again.

        Raises:
            DatabaseError: The server, or this user there, cannot do what a run needs.
        """
        small = copy.copy(self)
        small._prefix, small._complaints = self._prefix + "rehearsal:", {}
        try:
            small._begin(rehearsal.LAYOUT, 0.0, {split: rehearsal.LAYOUT.empty(split) for split in SPLITS})
            rehearsal.rehearse(small)
            small.clear("stop")
        except DatabaseError:
            small._client.connection_pool.disconnect()  # one that was refused its EXEC would wait for another
            with contextlib.suppress(DatabaseError):
                small._unlink_all()
            raise
        small._unlink_all()
