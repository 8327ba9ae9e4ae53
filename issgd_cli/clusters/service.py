"""The service that a run's actors meet in: a database server of the run's own, or one that somebody else runs."""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from issgd_cli.actors.actor import HANDS
from issgd_cli.clusters.mending import OwnedDatabase
from issgd_cli.clusters.processes import text_of
from issgd_cli.config.config import Config
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.database.server import Server, serving
from issgd_cli.errors import IssgdError
from issgd_cli.runs.folder import RunFolder


@dataclass
class Service:
    """A run's part of a server, for the run's owner.

    Attributes:
        run_name: In the database.
        url: For launcher, master and monitor.
        database: The owner's connection.
        server: The run's own; None where somebody else looks after it.
        hand: What joins the run from elsewhere: a worker, or a peer; empty: nobody does.
    """

    run_name: str
    url: str
    database: OwnedDatabase
    server: Server | None = None
    hand: str = "worker"

    def poll(self) -> int | None:
        """The exit status of the run's own server; None while it lives, or where it is not ours."""
        return None if self.server is None else self.server.process.poll()

    def restart(self) -> None:
        """Starts the run's own server again after its death, empty.

        Raises:
            DatabaseError: It does not come up.
        """
        if self.server is not None:
            self.server.restart()

    def last_words(self) -> str:
        """What the run's own server has written to its log."""
        return "" if self.server is None else text_of(self.server.log)

    def url_for(self, actor: str) -> str:
        """The URL that an actor is given."""
        return self.server.worker_url if self.server is not None and actor.startswith(HANDS) else self.url

    def guard(self) -> str:
        """How the database tells a worker from the master, for the manifest."""
        if self.server is None:
            return "its own: whoever has the URL can do what its user may"
        if self.server.limits_workers:
            return "users and key permissions: a worker writes its records, status and events"
        return "users alone, since only Redis 7.0 has key permissions: a worker's password opens all of the run's keys"

    def welcome(self) -> list[str]:
        """Who may join the run, and how, for people; a line each."""
        join = f"issgd {self.hand} --run {self.run_name} --database-file FILE"
        if self.server is None:
            return [f"{self.hand}s join by: {join}, where FILE holds the database's URL"] if self.hand else []
        lines = []
        if self.server.invitation is not None and self.hand:
            lines.append(
                f"{self.hand}s on other machines join by: {join}, where FILE is their copy of {self.server.invitation}"
            )
        if not self.server.limits_workers:
            lines.append(f"{self.server.version}: {self.guard()}")
        return lines


def _joins(config: Config) -> str:
    """What of a run another machine can add to; empty where each of its peers is waited for at every step."""
    if config.cluster.roles != "peers":
        return "worker"
    return "peer" if config.peers.mode == "asynchronous" else ""


@contextlib.contextmanager
def opened(config: Config, folder: RunFolder) -> Iterator[Service]:
    """A run's service for as long as the block lasts, noted in its manifest.

    Raises:
        DatabaseError: The server is not there, or is none that can hold a run.
    """
    if config.database.url:
        with _connected(config, folder, config.database.url, None) as service:
            yield service
        return
    with serving(folder.log_of("database"), config.database.listen) as server:
        with _connected(config, folder, server.url, server) as service:
            yield service


@contextlib.contextmanager
def _connected(config: Config, folder: RunFolder, url: str, server: Server | None) -> Iterator[Service]:
    # The token keeps two checkouts that do the same run on one server apart.
    place = "/".join(folder.path.parts[-3:])
    name = folder.read_manifest().get("run_name") or f"{place}-{secrets.token_hex(4)}"
    # Impatient: whoever waits for a server here must hear Ctrl-C.
    with contextlib.closing(RedisDatabase(url, name, patient=False)) as database:
        service = Service(name, url, database, server, _joins(config))
        folder.update_manifest(database=database.ping(), database_guard=service.guard(), run_name=name)
        try:
            yield service
        finally:
            if server is None:
                with contextlib.suppress(IssgdError):
                    database.clear("stop")
