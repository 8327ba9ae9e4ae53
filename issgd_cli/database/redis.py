"""The database in a Redis (or Valkey) server.

Keys, all under `issgd:<run>:` so that several runs can share a server:

    start                      server time of the run's start, seconds
    layout, <topic>            JSON documents
    status                     hash: actor -> JSON
    events                     hash: batch -> JSON
    p:<version>:<i>            4 MiB pieces of a parameter vector, written before
    p:cur                      the pointer to the newest whole one: JSON [version, step, bytes]
    <split>:<field>            one string an array of records.FIELDS
    <split>:cursor, :claims    which chunk is next, and which are being scored (hash: chunk -> version and until when)

Only length-checked arrays of numbers and JSON are read; nothing read is ever executed or unpickled.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import redis
from numpy.typing import NDArray
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from issgd_cli.database.protocol import Document, Topic
from issgd_cli.database.records import FIELDS, SPLITS, Chunk, ChunkScores, Layout, Published, Records, Split, Weights
from issgd_cli.errors import DatabaseError
from issgd_cli.traces import Event

PIECE = 4 * 2**20  # of a parameter vector: one value of 76 MB would keep other clients waiting
FAREWELL_SECONDS = 24 * 3600  # how long a cleared run still tells its workers to leave
REFUSALS = (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError, redis.exceptions.NoPermissionError)
KEPT_VERSIONS = 3  # so that a reader can finish while the master goes on publishing

# Time since the run's start; every script that stamps needs it.
_NOW = """
local start = redis.call('GET', KEYS[1])
if not start then return redis.error_reply('GONE') end
local time = redis.call('TIME')
local now = tonumber(time[1]) - tonumber(start) + tonumber(time[2]) / 1e6
"""

# KEYS: start, norms, previous_norms, losses, errors, versions, previous_versions, seconds, gradient_norms2,
# gradient_versions. ARGV: chunk, first example, version, norms, losses, errors, ||g_B||^2 or ''.
_PUSH = (
    _NOW
    + """
local chunk, first, version = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local stored = redis.call('GETRANGE', KEYS[6], 4 * chunk, 4 * chunk + 3)
if #stored < 4 then return redis.error_reply('GONE') end
if struct.unpack('<i4', stored) >= version then return 0 end
if struct.unpack('<i4', stored) > 0 then
  redis.call('SETRANGE', KEYS[3], 4 * first, redis.call('GETRANGE', KEYS[2], 4 * first, 4 * first + #ARGV[4] - 1))
  redis.call('SETRANGE', KEYS[7], 4 * chunk, stored)
end
redis.call('SETRANGE', KEYS[2], 4 * first, ARGV[4])
redis.call('SETRANGE', KEYS[4], 4 * first, ARGV[5])
redis.call('SETRANGE', KEYS[5], first, ARGV[6])
redis.call('SETRANGE', KEYS[6], 4 * chunk, struct.pack('<i4', version))
redis.call('SETRANGE', KEYS[8], 8 * chunk, struct.pack('<d', now))
if #ARGV[7] > 0 then
  redis.call('SETRANGE', KEYS[9], 8 * chunk, ARGV[7])
  redis.call('SETRANGE', KEYS[10], 4 * chunk, struct.pack('<i4', version))
end
return 1
"""
)

# KEYS: start, p:cur, then of each split, the wanted one first: versions, cursor, claims, seconds.
# ARGV: version, lease in seconds. Returns {which split, chunk} or nothing.
_CLAIM = (
    _NOW
    + """
local version, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
for split = 0, (#KEYS - 2) / 4 - 1 do
  local key = 3 + 4 * split
  local versions = redis.call('GET', KEYS[key])
  if not versions then return redis.error_reply('GONE') end
  local chunks = #versions / 4
  local cursor = tonumber(redis.call('GET', KEYS[key + 1]) or '0')
  for step = 0, chunks - 1 do
    local chunk = (cursor + step) % chunks
    if struct.unpack('<i4', versions, 4 * chunk + 1) < version then
      local claim = redis.call('HGET', KEYS[key + 2], chunk)
      local claimed, till = 0, 0
      if claim then claimed, till = struct.unpack('<i4d', claim) end
      if claimed < version or till < now then
        redis.call('HSET', KEYS[key + 2], chunk, struct.pack('<i4d', version, now + lease))
        redis.call('SET', KEYS[key + 1], (chunk + 1) % chunks)
        return {split, chunk}
      end
    end
  end
end
local newest = redis.call('GET', KEYS[2])
if newest and cjson.decode(newest)[1] == version then
  for split = 0, (#KEYS - 2) / 4 - 1 do
    local versions = redis.call('GET', KEYS[3 + 4 * split])
    for chunk = 0, #versions / 4 - 1 do
      if struct.unpack('<i4', versions, 4 * chunk + 1) == version then
        redis.call('SETRANGE', KEYS[6 + 4 * split], 8 * chunk, struct.pack('<d', now))
      end
    end
  end
end
return false
"""
)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Within, a server that cannot be reached or that will not obey is a DatabaseError."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise DatabaseError(f"The database does not answer: {error}. Is the server up, and the URL right?") from None
    except REFUSALS as error:
        raise DatabaseError(
            f"The database refuses a command: {error}. It must be writable by this user and have room for four times "
            "the parameters (maxmemory)."
        ) from None


class _Client(redis.Redis):
    """Says in our own words that the server cannot be reached."""

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        with _explained():
            return super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]


class RedisDatabase:
    """See Database."""

    def __init__(self, url: str, run: str, patient: bool = True) -> None:
        """Connects at the first command.

        Args:
            url: redis://, rediss:// or unix://.
            run: The run's name, a prefix of all of its keys.
            patient: Ride through an outage of half a minute; else give up at once, for who only looks on.

        Raises:
            DatabaseError: The URL is none.
        """
        self._url = url
        try:
            self._client = _Client.from_url(
                url,
                # Rides through an outage of some 30 s; every command may be repeated without harm.
                retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 40 if patient else 0),
                socket_timeout=10 if patient else 2,
                health_check_interval=15,
            )
        except ValueError as error:
            raise DatabaseError(
                f"The database's URL is not valid: {error}. Write redis://host:6379 for instance."
            ) from None
        self._prefix = f"issgd:{run}:"
        self._push = self._client.register_script(_PUSH)
        self._claim = self._client.register_script(_CLAIM)
        self._start: float | None = None
        self._layout: Layout | None = None

    def _key(self, *parts: object) -> str:
        return self._prefix + ":".join(str(part) for part in parts)

    def ping(self) -> str:
        """The server's name and version; tried once, so that a wrong URL is known at once.

        Raises:
            DatabaseError: It does not answer, or refuses us.
        """
        try:
            once = Retry(NoBackoff(), 0)
            with _explained(), redis.Redis.from_url(self._url, socket_timeout=10, retry=once) as client:
                info = client.info("server")
        except redis.RedisError as error:
            raise DatabaseError(f"The database refuses us: {error}. Look at the URL's user and password.") from None
        if "valkey_version" in info:
            return f"valkey {info['valkey_version']}"
        return f"redis {info['redis_version']}"

    def begin(self, layout: Layout, seconds: float, records: dict[Split, Records]) -> None:
        self._unlink_all()
        with _explained(), self._client.pipeline(transaction=True) as pipeline:
            for split in SPLITS:
                for name, field in FIELDS.items():
                    array = np.ascontiguousarray(getattr(records[split], name), field.dtype)
                    pipeline.set(self._key(split, name), array.tobytes())
            pipeline.set(self._key("layout"), json.dumps(asdict(layout)))
            pipeline.execute()
        self._start = self._server_time() - seconds
        # Written last: who finds a start finds the rest.
        self._client.set(self._key("start"), repr(self._start))
        self._layout = layout

    def _unlink_all(self) -> None:
        pattern = re.sub(r"([\\\[\]*?^-])", r"\\\1", self._prefix) + "*"
        keys = list(self._client.scan_iter(match=pattern, count=1000))
        for first in range(0, len(keys), 500):
            self._client.unlink(*keys[first : first + 500])

    def clear(self, topic: Topic) -> None:
        """Removes the run from a server that outlives it, but for one document that tells late actors to leave."""
        self._unlink_all()
        self._client.set(self._key(topic), "{}", ex=FAREWELL_SECONDS)

    def _server_time(self) -> float:
        whole, micro = self._client.time()
        return whole + micro / 1e6

    def seconds(self) -> float:
        if self._start is None:
            self._start = float(self._needed("start"))
        return self._server_time() - self._start

    def layout(self) -> Layout:
        if self._layout is None:
            self._layout = Layout(**json.loads(self._needed("layout")))
        return self._layout

    def _needed(self, *parts: object) -> bytes:
        value = cast(bytes | None, self._client.get(self._key(*parts)))
        if value is None:
            raise DatabaseError(
                f"The database holds no run {self._prefix.split(':', 1)[1][:-1]} (no {':'.join(map(str, parts))})."
            )
        return value

    def put(self, topic: Topic, document: Document) -> None:
        self._client.set(self._key(topic), json.dumps(document))

    def get(self, topic: Topic) -> Document | None:
        text = cast(bytes | None, self._client.get(self._key(topic)))
        return None if text is None else _document(text)

    def report(self, actor: str, status: Document) -> None:
        self._client.hset(self._key("status"), actor, json.dumps(status))
        self._client.expire(self._key("status"), FAREWELL_SECONDS)  # else an actor's last word stays for ever

    def statuses(self) -> dict[str, Document]:
        found = cast(dict[bytes, bytes], self._client.hgetall(self._key("status")))
        return {actor.decode(): _document(text) for actor, text in sorted(found.items())}

    def push_events(self, batch: str, events: Sequence[Event]) -> None:
        self._client.hset(self._key("events"), batch, json.dumps([list(event) for event in events]))
        self._client.expire(self._key("events"), FAREWELL_SECONDS)

    def events(self) -> dict[str, list[Event]]:
        found = cast(dict[bytes, bytes], self._client.hgetall(self._key("events")))
        return {batch.decode(): [Event(*event) for event in json.loads(text)] for batch, text in sorted(found.items())}

    def forget_events(self, batches: Sequence[str]) -> None:
        if batches:
            self._client.hdel(self._key("events"), *batches)

    def publish(self, published: Published, parameters: NDArray[np.float32]) -> None:
        content = np.ascontiguousarray(parameters, "<f4").view(np.uint8)
        for piece, first in enumerate(range(0, len(content), PIECE)):
            self._client.set(self._key("p", published.version, piece), content[first : first + PIECE].tobytes())
        self._client.set(self._key("p", "cur"), json.dumps([published.version, published.step, len(content)]))
        old = published.version - KEPT_VERSIONS
        if old > 0:
            self._client.unlink(*(self._key("p", old, piece) for piece in range(-(-len(content) // PIECE))))

    def newest(self) -> Published | None:
        text = cast(bytes | None, self._client.get(self._key("p", "cur")))
        return None if text is None else Published(*json.loads(text)[:2])

    def parameters(self) -> tuple[Published, NDArray[np.float32]] | None:
        before = b""
        while text := cast(bytes | None, self._client.get(self._key("p", "cur"))):
            version, step, length = json.loads(text)
            if text == before:
                raise DatabaseError(
                    f"Pieces of the newest parameters, version {version}, are missing in the database. Its "
                    "maxmemory-policy must be noeviction."
                )
            content = bytearray()
            while len(content) < length:
                piece = cast(bytes | None, self._client.get(self._key("p", version, len(content) // PIECE)))
                if piece is None:
                    break  # the master has moved on by several versions: read the pointer again
                content += piece
            else:
                return Published(version, step), np.frombuffer(content, "<f4")
            before = text
        return None

    def claim(self, version: int, split: Split, lease_seconds: float) -> Chunk | None:
        order = (split, *(other for other in SPLITS if other != split))
        keys = [self._key("start"), self._key("p", "cur")]
        keys += [self._key(name, part) for name in order for part in ("versions", "cursor", "claims", "seconds")]
        found = cast(list[int] | None, self._scripted(self._claim, keys, [version, lease_seconds]))
        return None if found is None else Chunk(order[found[0]], found[1])

    def push(self, chunk: Chunk, version: int, scores: ChunkScores) -> bool:
        span = self.layout().span(chunk.split, chunk.number)
        arrays = (
            np.ascontiguousarray(getattr(scores, name), FIELDS[name].dtype) for name in ("norms", "losses", "errors")
        )
        contents = [array.tobytes() for array in arrays if array.shape == (span.stop - span.start,)]
        if len(contents) < 3:
            raise DatabaseError(f"The scores of {chunk} are not {span.stop - span.start} values each.")
        norm2 = b"" if scores.gradient_norm2 is None else np.array(scores.gradient_norm2, "<f8").tobytes()
        keys = [self._key("start"), *(self._key(chunk.split, name) for name in FIELDS)]
        return self._scripted(self._push, keys, [chunk.number, span.start, version, *contents, norm2]) == 1

    def _scripted(self, script: Any, keys: list[str], arguments: list[Any]) -> object:
        try:
            return cast(object, script(keys=keys, args=arguments))
        except redis.ResponseError as error:
            if "GONE" in str(error):
                raise DatabaseError(
                    "The run's records are gone from the database; it was emptied or restarted."
                ) from None
            raise

    def _arrays(self, wanted: list[tuple[Split, str]]) -> list[NDArray[Any]]:
        """These arrays, read at one instant; each checked for its length."""
        with _explained(), self._client.pipeline(transaction=True) as pipeline:
            for split, name in wanted:
                pipeline.get(self._key(split, name))
            contents = cast(list[bytes | None], pipeline.execute())
        arrays = []
        for (split, name), content in zip(wanted, contents, strict=True):
            dtype, length = np.dtype(FIELDS[name].dtype), self.layout().shape(split, name)
            if content is None or len(content) != length * dtype.itemsize:
                size = "nothing" if content is None else f"{len(content)} bytes"
                raise DatabaseError(f"The database holds {size} at {split}:{name}, not {length} values of {dtype}.")
            arrays.append(np.frombuffer(content, dtype))
        return arrays

    def weights(self, previous: bool) -> Weights:
        names = ["norms", "versions", "previous_versions", "seconds", *(["previous_norms"] if previous else [])]
        norms, versions, previous_versions, seconds, *rest = self._arrays([("train", name) for name in names])
        return Weights(norms, rest[0] if previous else None, versions, previous_versions, seconds)

    def records(self) -> dict[Split, Records]:
        arrays = iter(self._arrays([(split, name) for split in SPLITS for name in FIELDS]))
        return {split: Records(**{name: next(arrays) for name in FIELDS}) for split in SPLITS}

    def behind(self, version: int) -> int:
        return sum(int((versions < version).sum()) for versions in self._arrays([(s, "versions") for s in SPLITS]))

    def shutdown(self) -> None:
        """Ends the server. For one of our own whose launcher is gone."""
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self._url, socket_timeout=10) as client:
            client.shutdown(nosave=True)

    def close(self) -> None:
        self._client.close()


def _document(text: bytes) -> Document:
    document = json.loads(text)
    if not isinstance(document, dict):
        raise DatabaseError(f"The database holds {text[:40]!r} where a JSON object belongs.")
    return document
