"""Gradients on their way from peers to the parameter server, in pieces that are written before what tells of them."""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from issgd_cli.database import documents
from issgd_cli.database.contributions import TYPES, Contribution, ExampleScores, refuse_flawed_examples
from issgd_cli.database.documents import LARGEST_BYTES, LONGEST, LONGEST_NAME, UnfitError, checked
from issgd_cli.database.records import FIELDS
from issgd_cli.database.redis import scripts
from issgd_cli.database.redis.connection import FAREWELL_SECONDS
from issgd_cli.database.redis.messages import MOST_ENTRIES
from issgd_cli.database.redis.parameters import PIECE
from issgd_cli.database.redis.table import RedisTable
from issgd_cli.errors import DatabaseError, RecordError

ANY = ""  # a ticket that fits whatever is told
MOST_TRIED = 4096  # numbers of peers, by one that looks for its own


class RedisContributions(RedisTable):
    """See Contributions, and of Table what is pushed of single examples."""

    def contribute(self, contribution: Contribution) -> bool:
        peer, gradient = contribution.peer, contribution.gradient
        kind = next(name for name, dtype in TYPES.items() if gradient.dtype == dtype)
        content = np.ascontiguousarray(gradient).view(np.uint8)
        if not self.is_taken(peer):
            return self.contributed(peer) == contribution.number  # its pieces are being read
        if self.contributed(peer) >= contribution.number:
            return True
        for piece, first in enumerate(range(0, len(content), PIECE)):
            # Of a peer that dies before it tells of them nobody else would remove them.
            whole = content[first : first + PIECE].tobytes()
            self._client.set(self._piece(peer, piece), whole, ex=FAREWELL_SECONDS)
        loss = contribution.loss if np.isfinite(contribution.loss) else None
        told = json.dumps([contribution.version, contribution.number, loss, kind, len(content)])
        keys = [self._key("contributions"), self._key("contributions", "counts"), self._key("contributions", "tickets")]
        arguments = [*self._now(contribution.version), peer, contribution.number, told]
        stored = self._scripted(scripts.CONTRIBUTE, keys, arguments)
        if stored == -1:
            raise RecordError(f"A gradient of peer {peer} is of version {contribution.version}, which never was.")
        return stored == 1

    def enlist(self, wanted: int, token: str) -> int:
        key = self._key("contributions", "peers")
        for number in map(str, range(wanted, wanted + MOST_TRIED)):
            if self._client.hsetnx(key, number, token) or self._client.hget(key, number) == token.encode():
                return int(number)
        raise DatabaseError(f"No number from {wanted} on is left for a peer. Who else writes {key}?")

    def contributed(self, peer: int) -> int:
        count = self._client.hget(self._key("contributions", "counts"), str(peer))
        return int(checked("contributions:counts", _read_count, count)) if count else 0

    def is_taken(self, peer: int) -> bool:
        return self._client.hget(self._key("contributions"), str(peer)) is None

    def contribution(self, size: int) -> Contribution | None:
        limits = [MOST_ENTRIES, LONGEST_NAME, LONGEST]
        found = cast(list[bytes], self._scripted(scripts.ENTRIES, [self._key("contributions")], limits))
        told: list[tuple[int, Mapping[str, Any]]] = []
        for name, text in zip(found[::2], found[1::2], strict=True):
            try:
                told.append((_read_count(name), documents.read_contribution(text)))
            except UnfitError:  # of nobody of ours; it must not stand in the others' way
                self._remove(name.decode("utf-8", "surrogateescape"), ANY)
        if not told:
            return None
        peer, first = min(told, key=lambda one: one[1]["ticket"])
        dtype = TYPES[first["kind"]]
        content = self._pieces(peer, min(first["bytes"], (size + 1) * dtype.itemsize))
        gradient = np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
        loss = float("nan") if first["loss"] is None else first["loss"]
        return Contribution(peer, first["number"], first["version"], loss, gradient, first["ticket"])

    def _pieces(self, peer: int, size: int) -> bytearray:
        """So many bytes of a gradient, or those that are there; of an array that may be written, as torch wants it."""
        content = bytearray()
        while len(content) < size:
            wanted = min(PIECE, size - len(content))
            piece = cast(bytes, self._client.getrange(self._piece(peer, len(content) // PIECE), 0, wanted - 1))
            content += piece
            if len(piece) != wanted:
                break
        return content

    def take(self, contribution: Contribution) -> None:
        self._remove(str(contribution.peer), str(contribution.ticket))

    def _remove(self, name: str, ticket: str) -> None:
        """What is told under a name, if it has this ticket, and its pieces."""
        keys = [self._key("contributions"), self._piece(name, "")]
        arguments = [name.encode("utf-8", "surrogateescape"), ticket, LARGEST_BYTES // PIECE]
        self._scripted(scripts.TAKE, [key.encode("utf-8", "surrogateescape") for key in keys], arguments)

    def _piece(self, peer: int | str, piece: int | str) -> str:
        """A key of this life's: a peer that has slept through the end of another writes over nobody's."""
        if self._life is None:
            self.synchronise()
        return self._key("g", str(self._life), peer, piece)

    def push_examples(self, version: int, scores: ExampleScores) -> int:
        refuse_flawed_examples(self.layout(), scores)
        contents = [
            np.ascontiguousarray(values, kind).tobytes()
            for values, kind in zip(scores, ("<i4", *(FIELDS[name].dtype for name in scores._fields[1:])), strict=True)
        ]
        keys = [self._key("train", name) for name in FIELDS]
        return cast(int, self._scripted(scripts.PUSH_EXAMPLES, keys, [*self._now(version), *contents]))


def _read_count(text: bytes | str) -> int:
    if not re.fullmatch("[0-9]{1,15}", text if isinstance(text, str) else text.decode("ascii", "replace")):
        raise UnfitError("it is no number")
    return int(text)
