"""The master's parameters, in pieces that are written before the pointer to them."""

import json
from typing import cast

import numpy as np
from numpy.typing import NDArray

from issgd_cli.database import documents
from issgd_cli.database.records import Published, refuse_nonfinite
from issgd_cli.database.redis.connection import Connection
from issgd_cli.errors import DatabaseError

PIECE = 4 * 2**20  # of a parameter vector: one value of 76 MB would keep other clients waiting
KEPT_VERSIONS = 3  # so that a reader can finish while the master goes on publishing


class RedisParameters(Connection):
    """See Parameters."""

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
