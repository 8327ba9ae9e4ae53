"""What a server's refusals mean for a run, and what to do about each."""

import re
from collections.abc import Mapping
from typing import Any

import redis

from issgd_cli.config.passwords import without_password
from issgd_cli.database.permissions import KEYS, OWNER_COMMANDS, allowed
from issgd_cli.database.redis.scripts import CALLED
from issgd_cli.errors import AwayError, DatabaseError, GoneError

GONE = "The run's records are gone from the database: it was emptied or restarted, or the run set back to a checkpoint."
PRIMARY = "A run writes: name the replica's primary in the URL."
ALONE = "The keys of a run belong together: name a server that runs without cluster mode."
MEMORY = (
    "Raise its maxmemory: a run needs room for four times the parameters, with peers once more for each of them, and "
    "for its records."
)
NOTHING_LOST = "A run's keys must stay: set its maxmemory-policy to noeviction, or its maxmemory to 0."
SCRIPTS = (
    "A run needs Lua scripts: name a server that has them, EVALSHA and SCRIPT not renamed, Valkey's module lua loaded."
)
PERMISSIONS = (
    f"The URL's user needs the keys {KEYS} and {allowed(OWNER_COMMANDS)}; for a worker alone SECURITY.md says what "
    "suffices."
)
LOADING = "It is reading its data from disk. Wait until it is done."

# The first that fits: the kind of error, and what is in its text.
_REMEDIES: list[tuple[type[redis.RedisError], str, str]] = [
    (redis.exceptions.BusyLoadingError, "", LOADING),
    (redis.ConnectionError, "max number of clients", "Raise its maxclients, or end some of its clients."),
    (redis.ConnectionError, "CERTIFICATE_VERIFY", "Name the CA that signed it: rediss://host:6379?ssl_ca_certs=FILE."),
    (redis.exceptions.ReadOnlyError, "", PRIMARY),
    (redis.exceptions.AskError, "", ALONE),  # MOVED is one, too
    (redis.exceptions.ClusterError, "", ALONE),
    (redis.exceptions.ClusterCrossSlotError, "", ALONE),
    (redis.exceptions.TryAgainError, "", ALONE),
    (redis.exceptions.OutOfMemoryError, "", MEMORY),
    (redis.exceptions.NoPermissionError, "", PERMISSIONS),
    (redis.ResponseError, r"NOPERM|user executing the script|ACL failure|EXEC without MULTI", PERMISSIONS),
    (redis.ResponseError, r"in cluster mode", ALONE),
    (redis.ResponseError, r"unknown command ['`](EVALSHA|SCRIPT)|unknown subcommand ['`]LOAD", SCRIPTS),
    (redis.ResponseError, r"scripting engine|^Engine '", SCRIPTS),  # Valkey without its module lua
    (redis.ResponseError, r"unknown (sub)?command", f"A run needs the commands {', '.join(OWNER_COMMANDS)}."),
    (redis.ResponseError, r"^MISCONF", "It cannot save its data: free its disk, or switch its saving off."),
    (redis.ResponseError, r"^WRONGTYPE", "Nobody else may write the run's keys."),
    (redis.ResponseError, r"DB index", "Leave the number behind the host's / out of the URL."),
    (redis.ResponseError, r"protected mode", "Give it a user or a password, and write them into the URL."),
]
_OTHERWISE = (
    "It must be writable by this user, have room for four times the parameters and with peers once more for each of "
    "them (maxmemory), and nobody else may write the run's keys."
)


def explained(error: redis.RedisError) -> DatabaseError:
    """A client's error in our words, with the remedy."""
    said = _said(error)
    if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthenticationWrongNumberOfArgsError):
        return DatabaseError(
            f"The database refuses us: {said}.",
            "Look at the URL's user and password; they are given in the environment variable ISSGD_DATABASE, or in a "
            "file by --database-file.",
        )
    fitting = (remedy for kind, text, remedy in _REMEDIES if isinstance(error, kind) and re.search(text, said, re.I))
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return AwayError(
            f"The database does not answer: {said}.", next(fitting, "Is the server up, and the URL right?")
        )
    if re.match(r"(ERR )?GONE\b", said):
        return GoneError(GONE)
    of = f", one of {', '.join(CALLED)}" if "called from script" in said else ""
    return DatabaseError(f"The database refuses a command{of}: {said}.", next(fitting, _OTHERWISE))


def _said(error: Exception) -> str:
    """What the client or the server said; without the command, and what that would have written."""
    text = re.sub(r"^Command # \d+ \(.*\) of pipeline caused error: ", "", str(error), flags=re.DOTALL)
    text = re.sub(r"^HELLO must be called .*", "Authentication required", text)
    return _line(re.sub(r",? with args beginning with: .*", "", text, flags=re.DOTALL))


def _line(text: str) -> str:
    """In a line without secrets; a server may say anything."""
    text = without_password("".join(letter if letter.isprintable() else " " for letter in text)).rstrip(". ")
    return text if len(text) <= 300 else text[:300] + "..."


def refuse_unfit(told: Mapping[str, Any]) -> None:
    """A server can answer and be of no use to a run: that is told by its INFO, and best known at once.

    Raises:
        DatabaseError: It is a cluster's, a sentinel, a replica or loading, or it evicts keys.
    """
    mode = str(told.get("redis_mode") or told.get("server_mode") or "standalone")
    if mode != "standalone" or told.get("cluster_enabled") == 1:
        raise DatabaseError(
            "The database cannot hold a run: its server runs in " + _said(ValueError(mode)) + " mode.", ALONE
        )
    if told.get("role", "master") != "master":
        raise DatabaseError("The database cannot hold a run: its server is a read-only replica.", PRIMARY)
    if told.get("loading") == 1:
        raise AwayError("The database does not answer: it is loading.", LOADING)
    policy = str(told.get("maxmemory_policy", "noeviction"))
    if told.get("maxmemory", 0) != 0 and policy != "noeviction":
        raise DatabaseError(
            f"The database cannot hold a run: full, it drops keys (maxmemory-policy {_line(policy)}).",
            NOTHING_LOST,
        )
