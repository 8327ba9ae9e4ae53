"""A run's connection to a Redis (or Valkey) server: it waits for one that is away, and fails in our own words."""

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from issgd_cli.database import documents
from issgd_cli.database.documents import LONGEST, checked
from issgd_cli.database.redis.replies import GONE, explained, refuse_unfit
from issgd_cli.database.urls import arguments
from issgd_cli.errors import AwayError, DatabaseError, GoneError

ANSWER_SECONDS = 10  # a command that takes longer is tried again
IMPATIENT_SECONDS = 5  # or given up, by who has better things to do than to wait
PATIENCE_SECONDS = 90  # a server that is away for so long is waited for
FAREWELL_SECONDS = 24 * 3600  # how long what nobody may ever remove stays: a last word, a gradient on its way

T = TypeVar("T")

_command = threading.local()  # when this thread gave the command that is under way: `given`


@contextlib.contextmanager
def in_our_words() -> Iterator[None]:
    """Within, whatever goes wrong between the server and us is a DatabaseError; a script it does not know is none."""
    _command.given = time.monotonic()
    try:
        yield
    except redis.exceptions.NoScriptError:
        raise
    except redis.RedisError as error:
        raise explained(error) from None


class _Client(redis.Redis):
    """Says in our own words that the server cannot be reached."""

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        with in_our_words():
            return super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]


class _Patience(ExponentialBackoff):
    """Tries again soon and then every second, for PATIENCE_SECONDS; every command may be repeated without harm.

    The client's retries are nested (a command connects again), so each would begin to count anew: the time is counted
    from when the command was given.
    """

    def __init__(self) -> None:
        super().__init__(cap=1.0, base=0.05)

    def compute(self, failures: int) -> float:
        """Seconds until the next try."""
        if time.monotonic() > _command.given + PATIENCE_SECONDS:
            raise AwayError(f"The database does not answer: not once in {PATIENCE_SECONDS} s. Is the server up?")
        return super().compute(min(failures, 10))


class Connection:
    """What everything that a run asks of the server is built on: keys, checked texts, scripts."""

    def __init__(self, url: str, run: str, patient: bool = True) -> None:
        """Connects at the first command.

        Args:
            url: redis://, rediss:// (with `?ssl_ca_certs=FILE` where a CA of one's own has signed) or unix://.
            run: The run's name, a prefix of all of its keys.
            patient: Ride through an outage of PATIENCE_SECONDS; else give up at once.

        Raises:
            DatabaseError: The URL cannot be used, or turns off the verification of certificates.
        """
        self._arguments = arguments(url)
        self._client = _Client(
            **self._arguments,
            retry=Retry(_Patience(), -1) if patient else Retry(NoBackoff(), 0),
            socket_timeout=ANSWER_SECONDS if patient else IMPATIENT_SECONDS,
            health_check_interval=15,
        )
        self._prefix = f"issgd:{run}:"

    def _key(self, *parts: object) -> str:
        """The run's own, of these parts."""
        return self._prefix + ":".join(str(part) for part in parts)

    def ping(self) -> str:
        """The server's name and version; tried once, so that a wrong URL is known at once.

        Raises:
            DatabaseError: It does not answer, refuses us, or is of a kind that cannot hold a run.
        """
        once = Retry(NoBackoff(), 0)
        with in_our_words(), redis.Redis(**self._arguments, socket_timeout=10, retry=once) as client:
            info = client.info()
        refuse_unfit(info)
        name = "valkey" if "valkey_version" in info else "redis"
        return f"{name} {checked('version', documents.word, str(info.get(f'{name}_version')))}"

    def _read(self, read: Callable[[bytes], T], *parts: object) -> T | None:
        """A text, checked; None where there is none. A byte more than is allowed shows one that is too long."""
        text = cast(bytes, self._client.getrange(self._key(*parts), 0, LONGEST))
        return cast(T, checked(":".join(map(str, parts)), read, text)) if text else None

    def _needed(self, read: Callable[[bytes], T], *parts: object) -> T:
        """Likewise, of what every run has.

        Raises:
            GoneError: There is none.
        """
        value = self._read(read, *parts)
        if value is None:
            raise self._no_run(":".join(map(str, parts)))
        return value

    def _no_run(self, key: str) -> GoneError:
        return GoneError(f"The database holds no run {self._prefix.split(':', 1)[1][:-1]} (no {key}).")

    def _scripted(self, script: str, keys: Sequence[str | bytes], arguments: list[Any]) -> object:
        """What one of scripts.ALL returns.

        Raises:
            GoneError: The server does not know it and is not to be taught.
        """
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        for _ in range(2):
            try:
                return self._client.evalsha(digest, len(keys), *keys, *arguments)
            except redis.exceptions.NoScriptError:  # the server was restarted, or another issgd began the run
                with contextlib.suppress(DatabaseError):  # a worker may not
                    self._client.script_load(script)
        raise GoneError(GONE)

    def _unlink_all(self) -> None:
        """Removes all keys of the run."""
        pattern = re.sub(r"([\\\[\]*?^-])", r"\\\1", self._prefix) + "*"
        keys = list(self._client.scan_iter(match=pattern, count=1000))
        for first in range(0, len(keys), 500):
            self._client.unlink(*keys[first : first + 500])

    def close(self) -> None:
        self._client.close()
