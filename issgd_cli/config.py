"""The configuration of a run: sections and keys, their defaults (paper-a's) and their limits.

Sources of the values: the paper, or, where it is silent, the authors' original code.
"""

import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from issgd_cli.errors import ConfigError

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Frozen and strict about its keys: a misspelt one is an error that names the nearest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """What is learned."""

    name: str = "svhn"  # svhn, svhn-train, cifar10, mnist, house-numbers, or the path of an .npz
    dir: str = "data"
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    split_seed: Annotated[int, Field(ge=0)] = 42
    train_size: Positive | None = None  # the first so many of the stored, shuffled training examples


class Model(Section):
    """The multi-layer perceptron."""

    hidden: Annotated[tuple[Positive, ...], Field(min_length=1)] = (2048, 2048, 2048, 2048)
    initial_weight_std: Annotated[float, Field(gt=0)] | None = None  # None: 0.01, more below width 2048 (models/mlp.py)


class Optimizer(Section):
    """SGD with momentum."""

    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    nesterov: bool = True


class ProposalSection(Section):
    """The distribution that the master draws from."""

    method: Literal["issgd", "sgd"] = "issgd"
    source: Literal["workers", "oracle", "shuffled"] = "workers"
    smoothing: float | str = 10.0  # a constant, "variance-optimal", or "entropy:0.9" (a fraction of log N)
    staleness_limit_seconds: Seconds | None = None
    staleness_limit_versions: Positive | None = None
    limit_mode: Literal["drop", "fill"] = "drop"
    minimum_usable_fraction: Fraction = 0.1

    @field_validator("smoothing")
    @classmethod
    def _smoothing_is_known(cls, setting: float | str) -> float | str:
        parse_smoothing(setting)
        return setting


class Master(Section):
    """The actor that trains. At least one of steps and seconds ends the run."""

    mode: Literal["relaxed", "exact"] = "relaxed"
    minibatch_size: Positive = 128
    steps: Positive | None = None
    seconds: Seconds | None = None
    publish_every_steps: Positive
    checkpoint_every_seconds: Seconds = 60.0
    reuse_own_norms: bool = False


class Worker(Section):
    """The actors that keep recomputing norms."""

    count: Annotated[int, Field(ge=0)]
    chunk_size: Positive = 2048
    pull_every_chunks: Positive = 10
    shares: tuple[Positive, Positive, Positive] = (20, 1, 1)  # train : valid : test
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_every_chunks: Positive = 20


class Monitor(Section):
    """The actor that writes the trace."""

    every_seconds: Seconds = 2.0
    every_steps: Positive = 1
    audit_every_steps: Positive | None = None
    extra_smoothings: tuple[Annotated[float, Field(ge=0)], ...] = (0.0, 1.0, 10.0)


class Cluster(Section):
    """Where the actors run."""

    kind: Literal["local", "simulated"] = "local"
    devices: tuple[str, ...] = ("auto",)  # dealt out in turn: master, then workers, then the monitor
    threads: Positive | None = None  # torch threads an actor; None: 1 in exact mode, else the cores shared out


class Database(Section):
    """The database's address; empty: a server of our own."""

    url: str = ""


class Config(Section):
    """One run, every value resolved."""

    name: str = "train"
    seed: Annotated[int, Field(ge=0)] = 0
    data: Data = Data()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    proposal: ProposalSection = ProposalSection()
    master: Master
    worker: Worker
    monitor: Monitor = Monitor()
    cluster: Cluster = Cluster()
    database: Database = Database()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_method(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The original ran SGD with 1 worker and a push every 512 steps, ISSGD with 3 and 32; four hours each."""
        proposal = values.get("proposal")
        sgd = isinstance(proposal, Mapping) and proposal.get("method") == "sgd"
        defaults = {"master": {"publish_every_steps": 512 if sgd else 32}, "worker": {"count": 1 if sgd else 3}}
        resolved = dict(values)
        for name, default in defaults.items():
            if isinstance(given := values.get(name, {}), Mapping):  # anything else is refused by its name, later
                resolved[name] = {**default, **given}
        master = resolved["master"]
        if isinstance(master, Mapping) and master.get("steps") is None and master.get("seconds") is None:
            resolved["master"] = {**master, "seconds": 4 * 3600.0}
        return resolved

    @model_validator(mode="after")
    def _agreements(self) -> "Config":
        if self.master.mode == "exact":
            if self.proposal.staleness_limit_seconds is not None:
                raise ValueError(
                    "proposal.staleness_limit_seconds does not apply in exact mode, whose traces must not depend on "
                    "the clock; use proposal.staleness_limit_versions"
                )
            if self.master.steps is None:
                raise ValueError("exact mode ends by master.steps, not by the clock; set master.steps")
        # Refused until they are built, rather than ignored.
        if self.proposal.source != "workers":
            raise ValueError(f"proposal.source = {self.proposal.source!r} needs the simulated cluster, not built yet")
        if self.cluster.kind != "local":
            raise ValueError("cluster.kind = 'simulated' is not built yet; use 'local'")
        if self.master.reuse_own_norms:
            raise ValueError("master.reuse_own_norms is not built yet")
        if self.worker.precision != "float32":
            raise ValueError("worker.precision = 'bfloat16' is not built yet; use 'float32'")
        return self

    def hash(self) -> str:
        """Eight hex digits of what defines the run's results: seed, name, paths, database and devices left out."""
        values = self.model_dump(mode="json")
        for key in ("seed", "name", "database"):
            del values[key]
        del values["data"]["dir"], values["cluster"]["devices"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def parse_smoothing(setting: float | str) -> tuple[Literal["constant", "entropy", "variance-optimal"], float]:
    """Kind and number of a `proposal.smoothing`: the constant, the entropy's fraction of log N, or nan.

    Raises:
        ConfigError: None of the three.
    """
    kind, colon, fraction = setting.partition(":") if isinstance(setting, str) else ("constant", "", str(setting))
    try:
        number = float(fraction) if fraction else math.nan
    except ValueError:
        number = math.nan
    if kind == "constant" and not colon and math.isfinite(number) and number >= 0:
        return "constant", number
    if kind == "entropy" and 0 < number <= 1:
        return "entropy", number
    if setting == "variance-optimal":
        return "variance-optimal", math.nan
    raise ConfigError(
        f"smoothing {setting!r} is unknown: use a constant >= 0 (10.0), 'variance-optimal', or 'entropy:0.9', "
        "a fraction of log N in (0, 1]"
    )


def resolve(values: Mapping[str, Any], where: str) -> Config:
    """A validated configuration from nested plain values.

    Args:
        values: Sections of keys, as read from TOML.
        where: What to name in errors: a file, or "the command line".

    Raises:
        ConfigError: Unknown keys (the nearest known one is named) or values out of range.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_explained(problem) for problem in error.errors())) from None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's plain values."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"No file {path}. The experiments that come with issgd are in experiments/.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} is not readable TOML: {error}.") from None


def assignments(settings: Iterable[str]) -> dict[str, Any]:
    """Nested values from `section.key=value` strings; a value is TOML, else a plain string."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {setting}: write section.key=value, for instance optimizer.learning_rate=0.001.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *sections, last = key.strip().split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {setting}: {section} is set to a value elsewhere, it can't be a section too.")
        place[last] = value
    return values


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values, later layers over earlier ones, section by section."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else value
    return result


def without_password(text: str) -> str:
    """The same, user and password of any URL in it replaced by ***."""
    return re.sub(r"://[^@/\s]*@", "://***@", text)


def as_toml(config: Config) -> str:
    """The resolved configuration as TOML, for people and for `--resume`.

    Keys that are None are left out, which reads back as None; of the database's URL the password is left out.
    """
    values = config.model_dump(mode="json", exclude_none=True)
    values["database"]["url"] = without_password(config.database.url)
    lines = [f"{key} = {_toml_value(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for name, section in values.items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]"] + [f"{key} = {_toml_value(value)}" for key, value in section.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: object) -> str:
    # JSON's numbers, strings, booleans and arrays of them are TOML as they stand.
    return json.dumps(value, ensure_ascii=False)


def _explained(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] != "extra_forbidden":
        message = str(problem["msg"]).removeprefix("Value error, ")
        given = f" (given: {problem['input']!r})" if key and problem["type"] != "missing" else ""
        return f"{key}: {message}{given}" if key else message
    known = known_keys()
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    by_last = [name for name in known if name.split(".")[-1] == path[-1]]
    hint = by_last or near
    return f"unknown key {key}" + (f"; did you mean {hint[0]}?" if hint else "")


def known_keys() -> list[str]:
    """Every key of the configuration, `section.key` or a top one."""
    keys: list[str] = []
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            keys += [f"{name}.{key}" for key in section.model_fields]
        else:
            keys.append(name)
    return keys
