"""The layers of a configuration: values assigned on the command line, and one layer over another."""

import contextlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from issgd_cli.config.config import fields
from issgd_cli.errors import ConfigError


def assignments(settings: Iterable[str]) -> dict[str, Any]:
    """Nested values from `section.key=value` strings; a value is TOML, else a plain string, as where text is wanted."""
    texts = {key for key, field in fields().items() if field.annotation is str}
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {setting}: write section.key=value, for instance optimizer.learning_rate=0.001.")
        value = _value(text)
        if key.strip() in texts and not isinstance(value, str):
            value = text.strip()
        *sections, last = key.strip().split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {setting}: {section} is set to a value elsewhere, it can't be a section too.")
        place[last] = value
    return values


# .5 and 5., with or without an exponent, which are no numbers to TOML, alone or in a list.
_NUMERAL = re.compile(r"(?<![\w.+-])[+-]?(?:\.\d[\d_]*|\d[\d_]*\.)(?:[eE][+-]?\d+)?(?![\w.])")


def _value(text: str) -> Any:
    for attempt in (text, _NUMERAL.sub(lambda numeral: repr(float(numeral[0])), text)):
        with contextlib.suppress(ValueError, RecursionError):
            return tomllib.loads(f"value = {attempt}")["value"]
    return text


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values, later layers over earlier ones, section by section."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else value
    return result
