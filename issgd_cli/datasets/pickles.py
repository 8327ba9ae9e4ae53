"""Pickles of arrays, walked without running anything they say: protocol 2, as Python 2 and numpy have written them.

Nothing in one is imported or called: a call in the pickle stays a record of itself, and an array is taken from the
bytes of such a record.
"""

import pickletools
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MADE_BY = ("numpy.core.multiarray", "_reconstruct"), ("numpy", "dtype")
_TYPES = {"u1": "u1", "i8": "<i8"}


def held(content: bytes) -> Any:
    """What the pickle holds; see `inert`.

    Raises:
        ValueError: It is no pickle, or one that does anything else.
    """
    try:
        return inert(content)
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, struct.error) as error:
        raise ValueError(str(error)) from error


def array(value: Any) -> NDArray[Any]:
    """The array whose making a pickle records: uint8 or int64, its numbers in C order.

    Raises:
        ValueError: It is none, or another.
    """
    try:
        made = (value.function, value.state[2].function)
        kind = value.state[2].arguments[0]
        _, shape, _, fortran, numbers = value.state
        if isinstance(numbers, Call) and numbers.function == ("_codecs", "encode"):  # Python 3's way to write bytes
            numbers, _ = numbers.arguments
        if made != _MADE_BY or kind not in _TYPES or fortran:
            raise ValueError("an array of another type")
        return np.frombuffer(numbers.encode("latin-1"), _TYPES[kind]).reshape(shape)
    except (TypeError, IndexError, AttributeError, UnicodeEncodeError) as error:
        raise ValueError("no array") from error


class _Mark(NamedTuple):
    """Where a tuple, list or dict begins on the stack."""


class Call:
    """What a pickle would have called, kept as data."""

    def __init__(self, function: Any, arguments: Any) -> None:
        self.function = function
        self.arguments = arguments
        self.state: Any = None


def inert(content: bytes) -> Any:
    """What a protocol-2 pickle holds, its imports as names and its calls as `Call`. Byte strings are latin-1 str.

    Raises:
        ValueError, IndexError, KeyError, TypeError: Anything but the operations that a batch needs.
    """
    stack: list[Any] = []
    memory: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        position = max(index for index, value in enumerate(stack) if isinstance(value, _Mark))
        values = stack[position + 1 :]
        del stack[position:]
        return values

    def popped(count: int) -> list[Any]:
        values = stack[-count:]
        del stack[-count:]
        return values

    argument: Any
    for opcode, argument, _ in pickletools.genops(content):
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "BINPUT" | "LONG_BINPUT":
                memory[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memory[argument])
            case "BININT" | "BININT1" | "BININT2" | "SHORT_BINSTRING" | "BINSTRING" | "BINUNICODE":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "MARK":
                stack.append(_Mark())
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(popped(int(opcode.name[-1]))))
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                values = since_mark()
                stack[-1].extend(values)
            case "SETITEM":
                key, value = popped(2)
                stack[-1][key] = value
            case "SETITEMS":
                values = since_mark()
                stack[-1].update(zip(values[::2], values[1::2], strict=True))
            case "GLOBAL":
                stack.append(tuple(argument.split(" ")))
            case "REDUCE":
                function, arguments = popped(2)
                stack.append(Call(function, arguments))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case name:
                raise ValueError(f"the operation {name}")
    raise ValueError("no end")
