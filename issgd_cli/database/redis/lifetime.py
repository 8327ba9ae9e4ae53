"""A run's life on the server, from its beginning to its farewell, and its clock."""

import json
import secrets
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from issgd_cli.database import documents
from issgd_cli.database.documents import LONGEST, checked
from issgd_cli.database.protocol import Topic
from issgd_cli.database.records import FIELDS, SPLITS, Layout, Records, Split
from issgd_cli.database.redis import scripts
from issgd_cli.database.redis.connection import FAREWELL_SECONDS, Connection, in_our_words
from issgd_cli.database.redis.replies import GONE
from issgd_cli.errors import GoneError

CLOCK_STEP_SECONDS = 1.0  # what a server's clock goes back by at once is no drift


class RedisLifetime(Connection):
    """See Lifetime."""

    _life: str | None = None  # of the run, as far as we know
    _offset: float | None = None  # of the run's clock to this machine's, seconds
    _latest = 0.0  # that `seconds` has told
    _layout: Layout | None = None

    def _begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        """As `begin`, on a server that is known to do all that a run needs."""
        self._unlink_all()
        for script in scripts.ALL:  # a worker may run them, not load them
            self._client.script_load(script)
        with in_our_words(), self._client.pipeline(transaction=True) as pipeline:
            for split in SPLITS:
                for name, field in FIELDS.items():
                    array = np.ascontiguousarray(getattr(records[split], name), field.dtype)
                    pipeline.set(self._key(split, name), array.tobytes())
            pipeline.set(self._key("layout"), json.dumps(asdict(layout)))
            pipeline.execute()
        whole, micro = self._client.time()
        start = documents.Start(secrets.token_hex(8), whole + micro / 1e6 - seconds)
        # Written last: who finds a start finds the rest.
        self._client.set(self._key("start"), json.dumps(start._asdict()))
        self._layout, self._life, self._offset, self._latest = layout, start.life, None, seconds
        self.synchronise()

    def layout(self) -> Layout:
        if self._layout is None:
            self._layout = self._needed(documents.read_layout, "layout")
        return self._layout

    def clear(self, topic: Topic) -> None:
        """Removes the run from a server that outlives it, but for one document that tells late actors to leave."""
        self._unlink_all()
        self._client.set(self._key(topic), "{}", ex=FAREWELL_SECONDS)

    def seconds(self) -> float:
        if self._offset is None:
            self.synchronise()
        self._latest = max(self._latest, time.monotonic() + (self._offset or 0.0))
        return self._latest

    def synchronise(self) -> float:
        """Reads the run's clock; from one reading to the next `seconds` goes on by this machine's own.

        A server's clock that has been set back is not followed: the run's owner mends that by `advance`.

        Returns:
            By how many seconds the server's clock has been moved against this machine's since the last reading.

        Raises:
            GoneError: The run is no longer there, or has been set back to a checkpoint since.
        """
        asked = time.monotonic()
        with in_our_words(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.getrange(self._key("start"), 0, LONGEST)
            pipeline.time()
            text, (whole, micro) = pipeline.execute()
        answered = time.monotonic()
        if not text:
            raise self._no_run("start")
        start = checked("start", documents.read_start, text)
        if self._life not in (None, start.life):
            raise GoneError(GONE)
        # The server looked at its clock at some time between: that bounds the offset, which moves as little as it must.
        seconds = whole + micro / 1e6 - start.seconds
        before = seconds - answered if self._offset is None else self._offset
        moved = float(min(max(before, seconds - answered), seconds - asked)) - before
        self._life, self._offset = start.life, before + (moved if moved > -CLOCK_STEP_SECONDS else 0.0)
        return moved

    def advance(self, seconds: float) -> None:
        """Moves the run's clock forward, for all its clients; the owner alone may."""
        start = self._needed(documents.read_start, "start")
        self._client.set(self._key("start"), json.dumps(start._replace(seconds=start.seconds - seconds)._asdict()))

    def _now(self, version: int) -> list[Any]:
        """The arguments of scripts.NOW."""
        if self._life is None:
            self.synchronise()
        return [self._key("start"), self._life, self._key("p", "cur"), version]
