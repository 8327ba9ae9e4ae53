"""What is read from the database besides arrays of numbers: each text is parsed and checked here before anyone uses it.

A server may be shared, a worker may be wrong or not ours: whatever comes from there is data until it was looked at.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from issgd_cli.database.protocol import Document, Topic
from issgd_cli.database.records import LARGEST_VERSION, Event, Layout, Published
from issgd_cli.errors import DatabaseError

T = TypeVar("T")

LONGEST = 2**20  # bytes of a document; ours are a few kilobytes
LONGEST_NAME = 200
LARGEST = 2**53  # of whole numbers: what all readers of JSON agree on
LARGEST_BYTES = 2**40  # of a parameter vector

_WORD = re.compile(rf"[\w.:/+-]{{1,{LONGEST_NAME}}}", re.ASCII)


class UnfitError(ValueError):
    """What is wrong with a value."""


def checked(key: str, read: Callable[[T], Any], value: T) -> Any:
    """What `read` makes of a value of the database.

    Raises:
        DatabaseError: It is unfit; names the key.
    """
    try:
        return read(value)
    except UnfitError as error:
        raise DatabaseError(f"The database's {key} cannot be used: {error}. Who else writes there?") from None


# Readers of whole documents


def read_layout(text: bytes) -> Layout:
    """`layout`: how many examples each split has, and of how many a chunk is."""
    document = an_object(parsed(text))
    sizes = {name: whole(document.get(name)) for name in ("train", "valid", "test")}
    return Layout(**sizes, chunk_size=whole(document.get("chunk_size"), low=1))


class Start(NamedTuple):
    """When a run began.

    Attributes:
        life: Names this life of the run: another one begins whenever the run is set back to a checkpoint.
        seconds: The server's time when the run's clock stood at 0.
    """

    life: str
    seconds: float


def read_start(text: bytes) -> Start:
    """`start`: when the run began."""
    document = an_object(parsed(text))
    return Start(word(document.get("life")), number(document.get("seconds")))


def read_pointer(text: bytes) -> tuple[Published, int]:
    """`p:cur`: the newest parameters, and how many bytes they are."""
    value = parsed(text)
    if not isinstance(value, list) or len(value) != 3:
        raise UnfitError(f"{_shown(value)} is no list of version, step and bytes")
    version, step, size = value
    if whole(size, high=LARGEST_BYTES) % 4:
        raise UnfitError(f"{size} bytes are no vector of float32")
    return Published(whole(version, low=1, high=LARGEST_VERSION), whole(step)), size


def read_topic(topic: Topic) -> Callable[[bytes], Document]:
    """A reader of the topic's document."""

    def read(text: bytes) -> Document:
        document = an_object(parsed(text))
        _check(document, _TOPICS[topic])
        if topic == "work":
            for life, counts in document.items():
                _life(life)
                numbers(counts)
        return document

    return read


def read_status(text: bytes) -> Document:
    """One actor's status."""
    document = an_object(parsed(text))
    _check(document, _STATUS)
    _check(document, {name: check for name, check in _STATUS_EXTRAS.items() if document.get(name) is not None})
    return document


def read_contribution(text: bytes) -> Document:
    """What is told of a peer's gradient: its ticket, version, number, loss (None: not finite), type, and bytes."""
    value = parsed(text)
    if not isinstance(value, list) or len(value) != 6:
        raise UnfitError(f"{_shown(value)} tells of no gradient")
    ticket, version, number_of_its, loss, kind, size = value
    if kind not in ("float32", "bfloat16"):
        raise UnfitError(f"{_shown(kind)} is no type of gradients")
    return {
        "ticket": whole(ticket),
        "version": whole(version, high=LARGEST_VERSION),
        "number": whole(number_of_its),
        "loss": None if loss is None else number(loss),
        "kind": kind,
        "bytes": whole(size, high=LARGEST_BYTES),
    }


def read_events(text: bytes) -> list[Event]:
    """One batch of an actor's events."""
    value = parsed(text)
    if not isinstance(value, list):
        raise UnfitError(f"{_shown(value)} is no list of events")
    return [_event(each) for each in value]


def _event(value: object) -> Event:
    if not isinstance(value, list) or len(value) != len(Event._fields):
        raise UnfitError(f"{_shown(value)} is no event")
    actor, start, end, event, version = value
    return Event(word(actor), number(start), number(end), word(event), whole(version, high=LARGEST_VERSION))


# Readers of values


def parsed(text: bytes) -> Any:
    """JSON's value."""
    if len(text) > LONGEST:
        raise UnfitError(f"it has more than {LONGEST:,} bytes")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UnfitError(f"{_shown(text)} is not JSON") from None


def an_object(value: object) -> Document:
    """A JSON object."""
    if not isinstance(value, dict):
        raise UnfitError(f"{_shown(value)} where a JSON object belongs")
    return value


def whole(value: object, low: int = 0, high: int = LARGEST) -> int:
    """A whole number within limits."""
    if type(value) is not int or not low <= value <= high:
        raise UnfitError(f"{_shown(value)} is no whole number from {low} to {high}")
    return value


def number(value: object, finite: bool = True) -> float:
    """A number; not NaN, and infinite only where that is allowed."""
    if type(value) is int and abs(value) <= LARGEST:
        return float(value)
    if type(value) is not float or math.isnan(value) or (finite and math.isinf(value)):
        raise UnfitError(f"{_shown(value)} is no {'finite ' if finite else ''}number")
    return value


def numbers(value: object) -> dict[str, float]:
    """Names and their numbers, which may be infinite."""
    return {word(name): number(each, finite=False) for name, each in an_object(value).items()}


def word(value: object) -> str:
    """A name of letters, digits and . : / + _ -: safe in a line of a file and on a screen."""
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise UnfitError(f"{_shown(value)} is no name")
    return value


def line(value: object) -> str:
    """A line of printable characters."""
    if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
        raise UnfitError(f"{_shown(value)} is no line of text")
    return value


def _check(document: Document, checks: Mapping[str, Callable[[Any], object]]) -> None:
    for name, check in checks.items():
        try:
            check(document.get(name))
        except UnfitError as error:
            raise UnfitError(f"its {name}: {error}") from None


def _life(value: str) -> None:
    """Of an actor: its name and process; or `before`."""
    actor, colon, process = value.rpartition(":")
    for part in (actor, process) if colon else (process,):
        word(part)


def _counts(value: object) -> None:
    for name, count in an_object(value).items():
        word(name)
        whole(count)


def _latest(value: object) -> None:
    for name, each in an_object(value).items():
        if not (type(each) is float and math.isnan(each)):
            numbers({name: each})


def _lines(value: object) -> None:
    if not isinstance(value, list) or len(value) > 100:
        raise UnfitError(f"{_shown(value)} is no short list of lines")
    for each in value:
        line(each)


def _flag(value: object) -> None:
    if not isinstance(value, bool):
        raise UnfitError(f"{_shown(value)} is neither true nor false")


def _shown(value: object) -> str:
    """For an error's text: what was found, in a few printable characters."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists within lists
        text = type(value).__name__
    return text if len(text) <= 60 else text[:60] + "..."


_TOPICS: Mapping[Topic, Mapping[str, Callable[[Any], object]]] = {
    "description": {"config": an_object, "dataset": word, "model": word, "resumed": _flag},
    "proposal": {"step": whole, "seconds": number, "values": numbers},
    "acknowledged": {"version": whole},
    "work": {},
    "finished": {"step": whole, "version": whole},
    "stop": {},
}
_STATUS: Mapping[str, Callable[[Any], object]] = {
    "process": whole,
    "seconds": number,
    "bytes": whole,
    "examples": _counts,
    "doing": word,
}
_STATUS_EXTRAS: Mapping[str, Callable[[Any], object]] = {
    "step": whole,
    "version": whole,
    "loss": lambda value: number(value, finite=False),
    "latest": _latest,
    "audits_left": whole,
    "passes": number,
    "notices": _lines,
}
