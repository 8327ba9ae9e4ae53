"""Configurations read from TOML files, and written as such."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from issgd_cli.config.config import Config
from issgd_cli.config.passwords import without_password
from issgd_cli.errors import ConfigError
from issgd_cli.files import read_text

LONGEST_TOML = 2**20


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's plain values."""
    try:
        return tomllib.loads(read_text(path, LONGEST_TOML))
    except FileNotFoundError:
        raise ConfigError(f"No file {path}. The experiments that come with issgd are in experiments/.") from None
    except (ValueError, RecursionError, OSError) as error:  # an integer of thousands of digits, lists within lists
        reason = error.strerror if isinstance(error, OSError) else without_password(str(error))
        raise ConfigError(f"{path} is not readable TOML: {reason}.") from None


def as_toml(config: Config) -> str:
    """The resolved configuration as TOML, for people and for `--resume`.

    Keys that are None are left out, which reads back as None; of the database's URL the password is left out.
    """
    values = config.model_dump(mode="json", exclude_none=True)
    values["database"]["url"] = without_password(config.database.url)
    return "\n".join(toml_lines(values)) + "\n"


def toml_lines(section: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    """Of plain values, sections within sections."""
    lines = [f"{key} = {_toml_value(value)}" for key, value in section.items() if not isinstance(value, dict)]
    for name, inner in section.items():
        if isinstance(inner, dict):
            lines += ["", f"[{'.'.join((*path, name))}]", *toml_lines(inner, (*path, name))]
    return lines


def _toml_value(value: object) -> str:
    # JSON's numbers, strings, booleans and arrays of them are TOML as they stand.
    return json.dumps(value, ensure_ascii=False)
