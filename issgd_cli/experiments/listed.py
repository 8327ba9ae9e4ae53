"""What an experiment's TOML file lists: settings, datasets and methods by name, and by what is chosen among them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from issgd_cli.errors import ConfigError
from issgd_cli.runs.folder import Measure

Table = Mapping[str, Any]

NAMELESS: Mapping[str, Table] = {"": {}}  # where a file lists no settings or datasets


def tables(found: Any, path: Path, key: str) -> dict[str, dict[str, Any]]:
    """[[settings]], [[datasets]] or [[methods]] by name."""
    by_name: dict[str, dict[str, Any]] = {}
    if found is not None and not isinstance(found, list):
        raise ConfigError(f"{path}: {key} is a list of named tables; write [[{key}]], with two brackets.")
    for table in found or []:
        name = table.get("name") if isinstance(table, dict) else None
        if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum() or name in by_name:
            raise ConfigError(f"{path}: each of [[{key}]] needs a `name` of its own, of letters, digits, - and _.")
        by_name[name] = {k: v for k, v in table.items() if k != "name"}
    return by_name


def places(names: Any, datasets: Mapping[str, Table], path: Path) -> list[str]:
    """Of a method: datasets = ["mnist"]."""
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f'{path}: `datasets` of a method lists those that it is run on: datasets = ["mnist"].')
    return [named(name, datasets, "dataset") for name in names]


def measures(names: Any, path: Path) -> tuple[Measure, ...]:
    """choosing_by = ["validation", "training"]."""
    known: dict[Any, Measure] = {name: name for name in get_args(Measure)}
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name in known for name in names):
        raise ConfigError(f'{path}: choosing_by = {names!r}: write {list(known)}, or one of them, ["training"].')
    return tuple(dict.fromkeys(known[name] for name in names))


def named(wanted: str | None, among: Mapping[str, Table], what: str) -> str:
    """The name that is wanted, the first unless one is; refused where there is none such."""
    if wanted is None:
        return next(iter(among))
    if wanted not in among and among == NAMELESS:
        remedy = " The data are data.name's." if what == "dataset" else ""
        raise ConfigError(f"No {what} {wanted!r}: the experiment has no [[{what}s]].{remedy}")
    if wanted not in among:
        raise ConfigError(f"No {what} {wanted!r}. There is {', '.join(repr(name) for name in among)}.")
    return wanted
