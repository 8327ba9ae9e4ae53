"""What a user is told of a run: what the database shows of it, and what happened, once each."""

import time
from dataclasses import dataclass, field

from issgd_cli.clusters.cluster import Snapshot
from issgd_cli.clusters.mending import mend
from issgd_cli.clusters.service import Service
from issgd_cli.errors import AwayError, DatabaseError, GoneError

AWAY_SECONDS = 2.0  # a server that is silent for so long is told of
MOST_NOTICES = 1000


@dataclass
class Notices:
    """Keeps a run's snapshot.

    Attributes:
        service: Of the run.
        snapshot: What was seen last; its `processes` are the supervisor's.
        away_since: Since when the database has not answered, by the monotonic clock; None while it does.
    """

    service: Service
    snapshot: Snapshot = field(default_factory=Snapshot)
    away_since: float | None = None

    def tell(self, line: str) -> None:
        """What has just happened."""
        self.snapshot.notices.append(line)

    def look(self) -> None:
        """Takes in what the database tells of the run, if it is there."""
        if self.service.poll() is not None:  # else the client would go on trying for a while
            return
        try:
            self._read()
        except AwayError:
            self._note_silence()
            return
        except GoneError:  # master or monitor will say so, too
            return
        except DatabaseError as error:
            self._tell_once([str(error)])
        self._note_answer()

    def _read(self) -> None:
        database, snapshot = self.service.database, self.snapshot
        if mended := mend(database):
            self.tell(f"the database's clock was set back by {mended:.0f} s; the run's own goes on")
        snapshot.statuses, snapshot.seconds = database.statuses(), database.seconds()
        told = [f"{actor}: {line}" for actor, status in snapshot.statuses.items() for line in status["notices"]]
        self._tell_once([*database.complaints(), *told])

    def _tell_once(self, lines: list[str]) -> None:
        """What actors and database tell of, once each; whoever writes there cannot flood the screen."""
        for line in lines:
            if line not in self.snapshot.notices and len(self.snapshot.notices) < MOST_NOTICES:
                self.tell(line)

    def _note_silence(self) -> None:
        now = time.monotonic()
        self.away_since = self.away_since or now
        if now - self.away_since >= AWAY_SECONDS:
            if not self.snapshot.away:
                self.tell("the database does not answer; waiting for it, and training as far as that goes")
            self.snapshot.away = now - self.away_since

    def _note_answer(self) -> None:
        if self.snapshot.away and self.away_since is not None:
            self.tell(f"the database answers again, after {time.monotonic() - self.away_since:.0f} s")
        self.away_since, self.snapshot.away = None, 0.0
