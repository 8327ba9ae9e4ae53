"""The database in a Redis (or Valkey) server.

Keys, all under `issgd:<run>:` so that several runs can share a server:

    start                      JSON: server time of the run's start, seconds, and which of the run's lives this is
    layout, <topic>            JSON documents
    status                     hash: actor -> JSON
    events                     hash: batch -> JSON
    p:<version>:<i>            4 MiB pieces of a parameter vector, written before
    p:cur                      the pointer to the newest whole one: JSON [version, step, bytes]
    <split>:<field>            one string an array of records.FIELDS
    <split>:cursor, :claims    which chunk is next, and which are being scored (hash: chunk -> version and until when)

Only arrays of numbers (checked by records.flaw) and JSON (by documents.py) are read, never more of a value than can be
meant; nothing read is ever executed or unpickled. Master, monitor and launcher trust no worker to write what it should.
"""

import contextlib
import copy
import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar, cast

import numpy as np
import redis
from numpy.typing import NDArray
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from issgd_cli.database import documents, rehearsal, scripts
from issgd_cli.database.documents import LONGEST, LONGEST_NAME, UnfitError, checked
from issgd_cli.database.protocol import Document, Topic
from issgd_cli.database.records import (
    FIELDS,
    LARGEST_VERSION,
    SPLITS,
    Chunk,
    ChunkScores,
    Event,
    Layout,
    Published,
    Records,
    Split,
    Weights,
    flaw,
    refuse_flawed,
    refuse_nonfinite,
)
from issgd_cli.database.replies import GONE, explained, refuse_unfit
from issgd_cli.database.urls import arguments
from issgd_cli.errors import AwayError, DatabaseError, GoneError

PIECE = 4 * 2**20  # of a parameter vector: one value of 76 MB would keep other clients waiting
FAREWELL_SECONDS = 24 * 3600  # how long a cleared run still tells its workers to leave
MOST_ENTRIES = 1000  # of statuses, or of batches of events, that are read at once
MOST_COMPLAINTS = 20
LONGEST_LEASE_SECONDS = 600  # a chunk is never withheld for longer, whatever a claim says
CLOCK_STEP_SECONDS = 1.0  # what a server's clock goes back by at once is no drift
ANSWER_SECONDS = 10  # a command that takes longer is tried again
IMPATIENT_SECONDS = 5  # or given up, by who has better things to do than to wait
PATIENCE_SECONDS = 90  # a server that is away for so long is waited for
KEPT_VERSIONS = 3  # so that a reader can finish while the master goes on publishing

T = TypeVar("T")

_command = threading.local()  # when this thread gave the command that is under way: `given`


@contextlib.contextmanager
def _explained() -> Iterator[None]:
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
        with _explained():
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


class RedisDatabase:
    """See Database."""

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
        self._life: str | None = None  # of the run, as far as we know
        self._offset: float | None = None  # of the run's clock to this machine's, seconds
        self._latest = 0.0  # that `seconds` has told
        self._layout: Layout | None = None
        self._complaints: dict[str, str] = {}

    def _key(self, *parts: object) -> str:
        return self._prefix + ":".join(str(part) for part in parts)

    def ping(self) -> str:
        """The server's name and version; tried once, so that a wrong URL is known at once.

        Raises:
            DatabaseError: It does not answer, refuses us, or is of a kind that cannot hold a run.
        """
        once = Retry(NoBackoff(), 0)
        with _explained(), redis.Redis(**self._arguments, socket_timeout=10, retry=once) as client:
            info = client.info()
        refuse_unfit(info)
        name = "valkey" if "valkey_version" in info else "redis"
        return f"{name} {checked('version', documents.word, str(info.get(f'{name}_version')))}"

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

    def begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        self.rehearse()  # what the server cannot do is known now, not when an actor asks for it
        self._begin(layout, seconds, records)

    def _begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        self._unlink_all()
        for script in scripts.ALL:  # a worker may run them, not load them
            self._client.script_load(script)
        with _explained(), self._client.pipeline(transaction=True) as pipeline:
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

    def _unlink_all(self) -> None:
        pattern = re.sub(r"([\\\[\]*?^-])", r"\\\1", self._prefix) + "*"
        keys = list(self._client.scan_iter(match=pattern, count=1000))
        for first in range(0, len(keys), 500):
            self._client.unlink(*keys[first : first + 500])

    def clear(self, topic: Topic) -> None:
        """Removes the run from a server that outlives it, but for one document that tells late actors to leave."""
        self._unlink_all()
        self._client.set(self._key(topic), "{}", ex=FAREWELL_SECONDS)

    def synchronise(self) -> float:
        """Reads the run's clock; from one reading to the next `seconds` goes on by this machine's own.

        A server's clock that has been set back is not followed: the run's owner mends that by `advance`.

        Returns:
            By how many seconds the server's clock has been moved against this machine's since the last reading.

        Raises:
            GoneError: The run is no longer there, or has been set back to a checkpoint since.
        """
        asked = time.monotonic()
        with _explained(), self._client.pipeline(transaction=False) as pipeline:
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

    def seconds(self) -> float:
        if self._offset is None:
            self.synchronise()
        self._latest = max(self._latest, time.monotonic() + (self._offset or 0.0))
        return self._latest

    def layout(self) -> Layout:
        if self._layout is None:
            self._layout = self._needed(documents.read_layout, "layout")
        return self._layout

    def _read(self, read: Callable[[bytes], T], *parts: object) -> T | None:
        """A text, checked; None where there is none. A byte more than is allowed shows one that is too long."""
        text = cast(bytes, self._client.getrange(self._key(*parts), 0, LONGEST))
        return cast(T, checked(":".join(map(str, parts)), read, text)) if text else None

    def _needed(self, read: Callable[[bytes], T], *parts: object) -> T:
        value = self._read(read, *parts)
        if value is None:
            raise self._no_run(":".join(map(str, parts)))
        return value

    def _no_run(self, key: str) -> GoneError:
        return GoneError(f"The database holds no run {self._prefix.split(':', 1)[1][:-1]} (no {key}).")

    def put(self, topic: Topic, document: Document) -> None:
        self._client.set(self._key(topic), json.dumps(document))

    def get(self, topic: Topic) -> Document | None:
        return self._read(documents.read_topic(topic), topic)

    def report(self, actor: str, status: Document) -> None:
        self._client.hset(self._key("status"), actor, json.dumps(status))
        self._client.expire(self._key("status"), FAREWELL_SECONDS)  # else an actor's last word stays for ever

    def statuses(self) -> dict[str, Document]:
        return self._entries("status", documents.read_status)

    def push_events(self, batch: str, events: Sequence[Event]) -> None:
        self._client.hset(self._key("events"), batch, json.dumps([list(event) for event in events]))
        self._client.expire(self._key("events"), FAREWELL_SECONDS)

    def events(self) -> dict[str, list[Event]]:
        return self._entries("events", documents.read_events)

    def _entries(self, key: str, read: Callable[[bytes], T]) -> dict[str, T]:
        """A hash that every actor writes to: a damaged entry is taken out and complained of, the others are read."""
        limits = [MOST_ENTRIES, LONGEST_NAME, LONGEST]
        pairs = iter(cast(list[bytes], self._scripted(scripts.ENTRIES, [self._key(key)], limits)))
        entries = {}
        for name, text in sorted(zip(pairs, pairs, strict=True)):
            try:
                entries[documents.word(name.decode(errors="replace"))] = read(text)
            except UnfitError as error:
                self._client.hdel(self._key(key), name)
                if len(self._complaints) < MOST_COMPLAINTS:
                    whose = ascii(name.decode(errors="replace"))[1:-1][:40]
                    self._complaints[f"{key} {whose}"] = f"the database's {key} of {whose} was left aside: {error}"
        return entries

    def complaints(self) -> list[str]:
        return list(self._complaints.values())

    def forget_events(self, batches: Sequence[str]) -> None:
        if batches:
            self._client.hdel(self._key("events"), *batches)

    def publish(self, published: Published, parameters: NDArray[np.float32]) -> None:
        refuse_nonfinite(parameters, published.version)
        content = np.ascontiguousarray(parameters, "<f4").view(np.uint8)
        for piece, first in enumerate(range(0, len(content), PIECE)):
            self._client.set(self._key("p", published.version, piece), content[first : first + PIECE].tobytes())
        self._client.set(self._key("p", "cur"), json.dumps([published.version, published.step, len(content)]))
        old = published.version - KEPT_VERSIONS
        if old > 0:
            self._client.unlink(*(self._key("p", old, piece) for piece in range(-(-len(content) // PIECE))))

    def newest(self) -> Published | None:
        pointer = self._read(documents.read_pointer, "p", "cur")
        return None if pointer is None else pointer[0]

    def parameters(self) -> tuple[Published, NDArray[np.float32]] | None:
        before = None
        while pointer := self._read(documents.read_pointer, "p", "cur"):
            published, length = pointer
            if pointer == before:
                raise DatabaseError(
                    f"Pieces of the newest parameters, version {published.version}, are missing in the database, or of "
                    "another length. Its maxmemory-policy must be noeviction, and only the master may write them."
                )
            content = bytearray()
            while len(content) < length:
                wanted = min(PIECE, length - len(content))
                piece = self._client.getrange(self._key("p", published.version, len(content) // PIECE), 0, wanted)
                if len(piece) != wanted:
                    break  # the master has moved on by several versions: read the pointer again
                content += cast(bytes, piece)
            else:
                parameters = np.frombuffer(content, "<f4")
                refuse_nonfinite(parameters, published.version)
                return published, parameters
            before = pointer
        return None

    def claim(self, version: int, split: Split, lease_seconds: float) -> Chunk | None:
        order = (split, *(other for other in SPLITS if other != split))
        keys = [self._key(name, part) for name in order for part in ("versions", "cursor", "claims", "seconds")]
        arguments = [*self._now(version), min(lease_seconds, LONGEST_LEASE_SECONDS), LONGEST_LEASE_SECONDS]
        found = cast(list[int] | None, self._scripted(scripts.CLAIM, keys, arguments))
        if found is None:
            return None
        chunk = Chunk(order[found[0]], found[1])
        if chunk.number >= self.layout().chunks(chunk.split):
            raise DatabaseError(f"The database's {chunk.split}:versions are of more chunks than the dataset has.")
        return chunk

    def _now(self, version: int) -> list[Any]:
        """The arguments of scripts.NOW."""
        if self._life is None:
            self.synchronise()
        return [self._key("start"), self._life, self._key("p", "cur"), version]

    def push(self, chunk: Chunk, version: int, scores: ChunkScores) -> bool:
        span = self.layout().span(chunk.split, chunk.number)
        refuse_flawed(chunk, span.stop - span.start, scores)
        contents = [
            np.ascontiguousarray(getattr(scores, name), FIELDS[name].dtype).tobytes()
            for name in ("norms", "losses", "errors")
        ]
        norm2 = b"" if scores.gradient_norm2 is None else np.array(scores.gradient_norm2, "<f8").tobytes()
        keys = [self._key(chunk.split, name) for name in FIELDS]
        arguments = [*self._now(version), chunk.number, span.start, *contents, norm2]
        return self._scripted(scripts.PUSH, keys, arguments) == 1

    def _scripted(self, script: str, keys: list[str], arguments: list[Any]) -> object:
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        for _ in range(2):
            try:
                return self._client.evalsha(digest, len(keys), *keys, *arguments)
            except redis.exceptions.NoScriptError:  # the server was restarted, or another issgd began the run
                with contextlib.suppress(DatabaseError):  # a worker may not
                    self._client.script_load(script)
        raise GoneError(GONE)

    def _arrays(self, fields: Sequence[str], splits: Sequence[Split]) -> dict[Split, dict[str, NDArray[Any]]]:
        """These fields of these splits, read at one instant; each checked for its length and for what it may hold."""
        layout = self.layout()
        sizes = {
            (split, name): layout.shape(split, name) * np.dtype(FIELDS[name].dtype).itemsize
            for split in splits
            for name in fields
        }
        with _explained(), self._client.pipeline(transaction=True) as pipeline:
            for (split, name), size in sizes.items():
                pipeline.getrange(self._key(split, name), 0, size)  # a byte more, if there is one
            pipeline.getrange(self._key("p", "cur"), 0, LONGEST)
            *contents, pointer = cast(list[bytes], pipeline.execute())
        newest = checked("p:cur", documents.read_pointer, pointer)[0].version if pointer else LARGEST_VERSION
        arrays: dict[Split, dict[str, NDArray[Any]]] = {split: {} for split in splits}
        for ((split, name), size), content in zip(sizes.items(), contents, strict=True):
            if not content:
                raise self._no_run(f"{split}:{name}")
            if len(content) != size:
                found = f"{len(content)} bytes" + (" or more" * (len(content) > size))
                raise DatabaseError(f"The database holds {found} at {split}:{name}, where {size} bytes belong.")
            arrays[split][name] = np.frombuffer(content, FIELDS[name].dtype)
        for split in splits:
            if wrong := flaw(arrays[split], newest):
                raise DatabaseError(
                    f"The database's {split}:{wrong}. Somebody else than our workers writes there, or a disk or memory "
                    "is failing; a run resumes from its checkpoint."
                )
        return arrays

    def weights(self, previous: bool) -> Weights:
        names = ["norms", "versions", "previous_versions", "seconds", *(["previous_norms"] if previous else [])]
        arrays = self._arrays(names, ["train"])["train"]
        norms, versions, previous_versions, seconds, *rest = (arrays[name] for name in names)
        return Weights(norms, rest[0] if previous else None, versions, previous_versions, seconds)

    def records(self) -> dict[Split, Records]:
        return {split: Records(**arrays) for split, arrays in self._arrays(list(FIELDS), SPLITS).items()}

    def behind(self, version: int) -> int:
        return sum(int((found["versions"] < version).sum()) for found in self._arrays(["versions"], SPLITS).values())

    def close(self) -> None:
        self._client.close()
