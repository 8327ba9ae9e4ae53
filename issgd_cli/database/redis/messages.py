"""Documents, statuses and events: JSON, checked before anyone uses it."""

import json
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from issgd_cli.database import documents
from issgd_cli.database.documents import LONGEST, LONGEST_NAME, UnfitError
from issgd_cli.database.protocol import Document, Topic
from issgd_cli.database.records import Event
from issgd_cli.database.redis import scripts
from issgd_cli.database.redis.connection import FAREWELL_SECONDS, Connection

MOST_ENTRIES = 1000  # of statuses, or of batches of events, that are read at once
MOST_COMPLAINTS = 20

T = TypeVar("T")


class RedisMessages(Connection):
    """See Messages."""

    def __init__(self, url: str, run: str, patient: bool = True) -> None:
        super().__init__(url, run, patient)
        self._complaints: dict[str, str] = {}

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

    def forget_events(self, batches: Sequence[str]) -> None:
        if batches:
            self._client.hdel(self._key("events"), *batches)

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
