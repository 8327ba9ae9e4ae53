"""From plain values to a configuration; what is wrong with one, in a user's words."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from issgd_cli.config.config import Config, fields, schema
from issgd_cli.config.passwords import without_password
from issgd_cli.config.sections import StalenessMap
from issgd_cli.errors import ConfigError


def resolve(values: Mapping[str, Any], where: str) -> Config:
    """A validated configuration from nested plain values.

    Args:
        values: Sections of keys, as read from TOML.
        where: What to name in errors: a file, or "the command line".

    Raises:
        ConfigError: Unknown keys (the nearest known one is named) or values out of range.
    """
    kind = schema(values)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_problems(error, kind)}") from None


def resolve_map(values: Mapping[str, Any], where: str) -> StalenessMap:
    """A validated [map].

    Raises:
        ConfigError: Unknown keys or values out of range.
    """
    try:
        return StalenessMap.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: [map]: {_problems(error, Config)}") from None


# What pydantic says of a value, in a user's words.
_WORDS = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text, in quotes",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} values",
    "dict_type": "must be a table, for instance {{0 = 2.5}}",
    "model_type": "must be a section with keys of its own",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt:,}",
    "greater_than_equal": "must be at least {ge:,}",
    "less_than": "must be less than {lt:,}",
    "less_than_equal": "must be at most {le:,}",
}


def _problems(error: ValidationError, kind: type[Config]) -> str:
    """All that is wrong, in one line."""
    found = error.errors()
    inner = {problem["loc"][:-1] for problem in found}  # of a list with a wrong value nothing else is said
    known = fields(kind)
    told = [_explained(problem, known) for problem in found if problem["loc"] not in inner - {()}]
    return without_password("; ".join(told))


def _explained(problem: Any, known: Mapping[str, FieldInfo]) -> str:
    path = [str(part) for part in problem["loc"] if part != "[key]"]
    key = ".".join(path)
    if problem["type"] == "missing" and isinstance(problem["loc"][-1], int):
        return f"{'.'.join(path[:-1])}: has too few values"
    if problem["type"] != "extra_forbidden":
        words = _WORDS.get(problem["type"], "")
        message = words.format(**problem.get("ctx", {})) or str(problem["msg"]).removeprefix("Value error, ")
        if "[key]" in problem["loc"]:
            return f"{key}: the key {message}"
        if problem["type"] == "tuple_type" and (field := known.get(key)) and field.default:
            message += f", for instance {list(field.default)}"
        given = f" (given: {_given(problem['input'])})" if key and problem["type"] != "missing" else ""
        return f"{key}: {message}{given}" if key else message
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    by_last = [name for name in known if name.split(".")[-1] == path[-1]]
    hint = by_last or near
    return f"unknown key {key}" + (f"; did you mean {hint[0]}?" if hint else "")


def _given(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 100 else text[:100] + "..."
