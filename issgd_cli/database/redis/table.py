"""The table: which chunk is scored next, what is stored of it, and the arrays that all of them make up."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from issgd_cli.database import documents
from issgd_cli.database.documents import LONGEST, checked
from issgd_cli.database.records import (
    FIELDS,
    LARGEST_VERSION,
    SPLITS,
    Chunk,
    ChunkScores,
    Records,
    Split,
    Weights,
    flaw,
    refuse_flawed,
)
from issgd_cli.database.redis import scripts
from issgd_cli.database.redis.connection import in_our_words
from issgd_cli.database.redis.lifetime import RedisLifetime
from issgd_cli.errors import DatabaseError

LONGEST_LEASE_SECONDS = 600  # a chunk is never withheld for longer, whatever a claim says


class RedisTable(RedisLifetime):
    """See Table."""

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

    def weights(self, fields: Sequence[str] = Weights._fields) -> Weights:
        layout = self.layout()
        empty = {name: np.zeros(layout.shape("train", name), FIELDS[name].dtype) for name in Weights._fields}
        return Weights(**{**empty, **self._arrays(fields, ["train"])["train"]})

    def records(self) -> dict[Split, Records]:
        return {split: Records(**arrays) for split, arrays in self._arrays(list(FIELDS), SPLITS).items()}

    def behind(self, version: int) -> int:
        return sum(int((found["versions"] < version).sum()) for found in self._arrays(["versions"], SPLITS).values())

    def _arrays(self, fields: Sequence[str], splits: Sequence[Split]) -> dict[Split, dict[str, NDArray[Any]]]:
        """These fields of these splits, read at one instant; each checked for its length and for what it may hold."""
        layout = self.layout()
        sizes = {
            (split, name): layout.shape(split, name) * np.dtype(FIELDS[name].dtype).itemsize
            for split in splits
            for name in fields
        }
        with in_our_words(), self._client.pipeline(transaction=True) as pipeline:
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
