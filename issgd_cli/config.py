"""The configuration of a run: sections and keys, their defaults (paper-a's) and their limits.

Sources of the values: the paper, or, where it is silent, the authors' original code.
"""

import contextlib
import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from issgd_cli.errors import ConfigError
from issgd_cli.files import read_text

PAPER_EXAMPLES = 570_000  # N, section 5.1; 574,168 in the original code


def _number(given: Any) -> Any:
    """A number however it is written: .5, 5., +1e-3, 1_000 or "0.5". What is none is left for its type to refuse."""
    if isinstance(given, bool):
        raise ValueError("must be a number, not true or false")
    if isinstance(given, str):
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(given)
    return given


def _like(pattern: str, words: str) -> AfterValidator:
    """Of texts: who writes another one reads these words, not the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(words)
        return text

    return AfterValidator(check)


def _smoothing(given: Any) -> float | str:
    """As `parse_smoothing` knows it; the same one is always written the same."""
    kind, number = parse_smoothing(_number(given))
    if kind == "constant":
        return number
    return kind if kind == "variance-optimal" else f"{kind}:{repr(number).removesuffix('.0')}"


Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[Whole, Field(gt=0, lt=2**53)]
Width = Annotated[Whole, Field(gt=0, le=2**17)]
Text = Annotated[  # a path may hold much, but no line's end
    str, _like(r"[^\x00-\x1f\x7f]{0,4096}", "must be one line of at most 4,096 letters, for instance data/svhn")
]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Seconds = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Duration = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Index = Annotated[Whole, Field(ge=0)]
Smoothing = Annotated[float | str, PlainValidator(_smoothing)]


LONGEST_TOML = 2**20


class Section(BaseModel):
    """Frozen and strict about its keys: a misspelt one is an error that names the nearest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """What is learned."""

    name: Text = "svhn"  # svhn, svhn-train, cifar10, mnist, house-numbers, or of an own .npz, stem-hash or path
    dir: Text = "data"
    validation_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    split_seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 42
    train_size: Positive | None = None  # the first so many of the stored, shuffled training examples


class Model(Section):
    """The multi-layer perceptron."""

    hidden: Annotated[tuple[Width, ...], Field(min_length=1, max_length=100)] = (2048, 2048, 2048, 2048)
    initial_weight_std: Annotated[Number, Field(gt=0)] | None = (
        None  # None: 0.01, more below width 2048 (models/mlp.py)
    )


class Optimizer(Section):
    """SGD with momentum."""

    learning_rate: Annotated[Number, Field(gt=0)] = 0.01
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.95
    nesterov: bool = True


class ProposalSection(Section):
    """The distribution that the master draws from."""

    method: Literal["issgd", "sgd"] = "issgd"
    # oracle: fresh weights before every step, at no virtual cost (section 4.1); shuffled: those of others (4.2)
    source: Literal["workers", "oracle", "shuffled"] = "workers"
    smoothing: Smoothing = 10.0  # a constant, "variance-optimal", or "entropy:0.9" (a fraction of log N)
    staleness_limit_seconds: Seconds | None = None
    staleness_limit_versions: Positive | None = None
    limit_mode: Literal["drop", "fill"] = "drop"
    minimum_usable_fraction: Fraction = 0.1


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

    count: Annotated[Whole, Field(ge=0, le=10_000)]
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
    extra_smoothings: tuple[Annotated[Number, Field(ge=0)], ...] = (0.0, 1.0, 10.0)


class Clock(Section):
    """How long everything takes on the virtual clock of the simulated cluster: a preset, and what replaces it.

    The preset's examples_per_second are scaled by N / 570,000 where the training split is smaller, so that a sweep
    takes as many steps as the paper's; give chunks of 2048 * N / 570,000 examples with it.
    """

    preset: Literal["k20", "h200", "measured"] = "k20"  # clusters/clock.py says where their values come from
    step_seconds: Seconds | None = None  # one minibatch
    examples_per_second: Rate | None = None  # a worker's scoring; never scaled
    # Publishing, refreshing, pulling and pushing take the latency, and their bytes at this rate.
    latency_seconds: Duration | None = None
    bytes_per_second: Rate | None = None
    # Constants that replace the model of one operation.
    publish_seconds: Duration | None = None
    refresh_seconds: Duration | None = None
    pull_seconds: Duration | None = None
    score_seconds: Duration | None = None  # one chunk
    push_seconds: Duration | None = None
    checkpoint_seconds: Duration | None = None
    slow: dict[Index, Rate] = {}  # worker -> how many times longer everything takes it
    dies: dict[Index, Duration] = {}  # worker -> the second at which it stops for ever


class Cluster(Section):
    """Where the actors run."""

    kind: Literal["local", "simulated"] = "local"
    # Dealt out in turn: master, then workers, then the monitor. All are at the first on the simulated cluster.
    devices: Annotated[tuple[Text, ...], Field(min_length=1)] = ("auto",)
    # Of torch, an actor. None: 1 in exact mode and on the simulated cluster, else the cores shared out.
    threads: Annotated[Whole, Field(gt=0, le=1024)] | None = None
    # Of float32 products, torch's words: "high" is TF32 where the hardware has it, "medium" bfloat16.
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    # How often in a row one is started again: a worker or the monitor that has lived for less than a minute; the master
    # or the server without a new checkpoint in between.
    restarts: Annotated[Whole, Field(ge=0)] = 5
    clock: Clock = Clock()  # of the simulated cluster


class Database(Section):
    """The database's address; empty: a server of our own."""

    url: Annotated[str, Field(repr=False)] = ""  # may hold a password
    # HOST:PORT where a server of our own listens for workers on other machines; empty: on no address.
    listen: Annotated[
        str,
        _like(
            r"([\w.*-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}|",
            "must be HOST:PORT, for instance 0.0.0.0:6379 or [::1]:6379, or empty",
        ),
    ] = ""


class Config(Section):
    """One run, every value resolved."""

    # Names a folder, and never one that leads out of the results.
    name: Annotated[
        str,
        _like(
            r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}",
            "must begin with one of a-z, A-Z and 0-9, and go on with these, dots, hyphens, underscores and spaces, "
            "at most 100 in all, for instance paper-a",
        ),
    ] = "train"
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0
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
        given = proposal if isinstance(proposal, Mapping) else {}
        sgd = given.get("method") == "sgd"
        defaults: dict[str, dict[str, Any]] = {
            "master": {"publish_every_steps": 512 if sgd else 32},
            "worker": {"count": 1 if sgd else 3},
        }
        if given.get("source") == "oracle":
            defaults["master"] = {"mode": "exact", "publish_every_steps": 1}
        resolved = dict(values)
        for name, default in defaults.items():
            if isinstance(section := values.get(name, {}), Mapping):  # anything else is refused by its name, later
                resolved[name] = {**default, **section}
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
        if self.master.reuse_own_norms and self.proposal.limit_mode == "drop":
            raise ValueError(
                "master.reuse_own_norms needs proposal.limit_mode = 'fill': with 'drop' the examples that the master "
                "itself has just drawn would count as fresh, and those are the ones with large norms"
            )
        if self.master.reuse_own_norms and self.master.mode == "exact":
            raise ValueError(
                "master.reuse_own_norms is of no use in exact mode, where all norms are newer at each barrier"
            )
        simulated = self.cluster.kind == "simulated"
        if self.proposal.source == "oracle":
            if not simulated:
                raise ValueError(
                    "proposal.source = 'oracle' needs cluster.kind = 'simulated', where scoring costs no time"
                )
            if self.master.mode != "exact" or self.master.publish_every_steps != 1:
                raise ValueError(
                    "proposal.source = 'oracle' means fresh weights before every step: set master.mode = 'exact' and "
                    "master.publish_every_steps = 1, or leave both out"
                )
        if simulated and (self.database.url or self.database.listen):
            raise ValueError(
                "the simulated cluster has its own database, in memory; leave out database.url and .listen"
            )
        if self.database.url and self.database.listen:
            raise ValueError("database.listen is for a server of our own; leave it out, or database.url")
        self._check_workers_of_the_clock()
        return self

    def _check_workers_of_the_clock(self) -> None:
        clock, count = self.cluster.clock, self.worker.count
        if unknown := [worker for worker in (*clock.slow, *clock.dies) if worker >= count]:
            raise ValueError(f"cluster.clock names worker {unknown[0]}, but worker.count is {count}, from 0 on")
        if self.master.mode == "exact" and count > 0 and len(clock.dies) == count:
            raise ValueError("in exact mode the master waits for workers, and cluster.clock.dies lists all of them")

    def hash(self) -> str:
        """Eight hex digits of what defines the run's results: no seed, name, path, database, device, restarts.

        Values that are their keys' defaults are left out too, so that a key added later renames no earlier run.
        """
        values = self.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={"seed": True, "name": True, "database": True, "data": {"dir"}, "cluster": {"devices", "restarts"}},
        )
        given = {name: section for name, section in values.items() if section != {}}
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:8]


class StalenessMap(Section):
    """An experiment's [map]: over which clusters and smoothings the proposal's variance is mapped."""

    workers: Annotated[tuple[Annotated[Whole, Field(ge=0)], ...], Field(min_length=1)]
    publish_every_steps: Annotated[tuple[Positive, ...], Field(min_length=1)]
    smoothings: Annotated[tuple[Smoothing, ...], Field(min_length=1)]
    steps: Positive  # of the trajectory
    audit_every_steps: Positive
    audit_from_step: Annotated[Whole, Field(ge=0)] = (
        0  # earlier ones, before all is scored once, say little of staleness
    )

    @model_validator(mode="after")
    def _agreements(self) -> "StalenessMap":
        if self.audit_from_step > self.steps:
            raise ValueError("audit_from_step lies behind the last of the steps")
        shortest = min(self.publish_every_steps)
        if any(steps % shortest for steps in (*self.publish_every_steps, self.audit_every_steps)):
            raise ValueError("publish_every_steps and audit_every_steps must be multiples of the shortest interval")
        return self


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
        raise ConfigError(f"{where}: {_problems(error)}") from None


def resolve_map(values: Mapping[str, Any], where: str) -> StalenessMap:
    """A validated [map].

    Raises:
        ConfigError: Unknown keys or values out of range.
    """
    try:
        return StalenessMap.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: [map]: {_problems(error)}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's plain values."""
    try:
        return tomllib.loads(read_text(path, LONGEST_TOML))
    except FileNotFoundError:
        raise ConfigError(f"No file {path}. The experiments that come with issgd are in experiments/.") from None
    except (ValueError, RecursionError, OSError) as error:  # an integer of thousands of digits, lists within lists
        reason = error.strerror if isinstance(error, OSError) else without_password(str(error))
        raise ConfigError(f"{path} is not readable TOML: {reason}.") from None


def assignments(settings: Iterable[str]) -> dict[str, Any]:
    """Nested values from `section.key=value` strings; a value is TOML, else a plain string, as where text is wanted."""
    texts = {key for key, field in _fields().items() if field.annotation is str}
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


def without_password(text: str) -> str:
    """The same, user and password of any URL in it replaced by ***; a password may itself hold / and @."""
    text = re.sub(r"://\S*@", "://***@", text)
    return re.sub(r"([?&](?:ssl_)?(?:password|username)=)[^&\s'\"]*", r"\1***", text)


def as_toml(config: Config) -> str:
    """The resolved configuration as TOML, for people and for `--resume`.

    Keys that are None are left out, which reads back as None; of the database's URL the password is left out.
    """
    values = config.model_dump(mode="json", exclude_none=True)
    values["database"]["url"] = without_password(config.database.url)
    return "\n".join(_toml_lines(values)) + "\n"


def _toml_lines(section: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    lines = [f"{key} = {_toml_value(value)}" for key, value in section.items() if not isinstance(value, dict)]
    for name, inner in section.items():
        if isinstance(inner, dict):
            lines += ["", f"[{'.'.join((*path, name))}]", *_toml_lines(inner, (*path, name))]
    return lines


def _toml_value(value: object) -> str:
    # JSON's numbers, strings, booleans and arrays of them are TOML as they stand.
    return json.dumps(value, ensure_ascii=False)


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


def _problems(error: ValidationError) -> str:
    """All that is wrong, in one line."""
    found = error.errors()
    inner = {problem["loc"][:-1] for problem in found}  # of a list with a wrong value nothing else is said
    return without_password("; ".join(_explained(problem) for problem in found if problem["loc"] not in inner - {()}))


def _explained(problem: Any) -> str:
    path = [str(part) for part in problem["loc"] if part != "[key]"]
    key = ".".join(path)
    if problem["type"] != "extra_forbidden":
        words = _WORDS.get(problem["type"], "")
        message = words.format(**problem.get("ctx", {})) or str(problem["msg"]).removeprefix("Value error, ")
        if "[key]" in problem["loc"]:
            return f"{key}: the key {message}"
        if problem["type"] == "tuple_type" and (field := _fields().get(key)):
            message += f", for instance {list(field.default)}"
        given = f" (given: {_given(problem['input'])})" if key and problem["type"] != "missing" else ""
        return f"{key}: {message}{given}" if key else message
    known = known_keys()
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    by_last = [name for name in known if name.split(".")[-1] == path[-1]]
    hint = by_last or near
    return f"unknown key {key}" + (f"; did you mean {hint[0]}?" if hint else "")


def _given(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 100 else text[:100] + "..."


def known_keys() -> list[str]:
    """Every key of the configuration: `section.key`, or a top one."""
    return list(_fields())


def _fields(section: type[Section] = Config, path: str = "") -> dict[str, FieldInfo]:
    fields: dict[str, FieldInfo] = {}
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            fields |= _fields(inner, f"{path}{name}.")
        else:
            fields[f"{path}{name}"] = field
    return fields
