"""The types of the configuration's values, each with its limits, and what every section is."""

import contextlib
import math
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from issgd_cli.errors import ConfigError

_NAME = "[A-Za-z_][A-Za-z0-9_]{0,99}"  # Python's, in ASCII


def _number(given: Any) -> Any:
    """A number however it is written: .5, 5., +1e-3, 1_000 or "0.5". What is none is left for its type to refuse."""
    if isinstance(given, bool):
        raise ValueError("must be a number, not true or false")
    if isinstance(given, str):
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(given)
    return given


def like(pattern: str, words: str) -> AfterValidator:
    """Of texts: who writes another one reads these words, not the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(words)
        return text

    return AfterValidator(check)


def one_of(names: Collection[str], or_place: bool = False) -> AfterValidator:
    """Of texts: one of these names, or a function of the user's own where `or_place` says so."""

    def check(text: str) -> str:
        if text not in names and not (or_place and is_place(text)):
            choices = [repr(name) for name in names]
            if or_place:
                choices.append("a function of your own as package.module:function")
            *others, last = choices
            raise ValueError(f"must be {', '.join(others)} or {last}" if others else f"must be {last}")
        return text

    return AfterValidator(check)


def is_place(text: str) -> bool:
    """Whether it is written as a function of the user's own is: `package.module:function`."""
    return len(text) <= 200 and re.fullmatch(rf"{_NAME}(\.{_NAME})*:{_NAME}", text) is not None


def _arguments(given: Any) -> dict[str, Any]:
    """Keyword arguments as JSON and TOML can both write them; lists become tuples."""
    if not isinstance(given, Mapping):
        raise ValueError("must be a table, for instance {width = 64}")
    for name, value in given.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        if not isinstance(name, str) or not re.fullmatch(rf"{_NAME}", name) or not all(map(_is_plain, values)):
            raise ValueError(
                f"holds {str(name)[:60]!r}: names must be Python's, and values texts of one line, finite numbers, true "
                "or false, or lists of these"
            )
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return value.isprintable() and len(value) <= 4096
    if isinstance(value, int):
        return abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _smoothing(given: Any) -> float | str:
    """As `parse_smoothing` knows it; the same one is always written the same."""
    kind, number = parse_smoothing(_number(given))
    if kind == "constant":
        return number
    return kind if kind != "entropy" else f"{kind}:{repr(number).removesuffix('.0')}"


SmoothingKind = Literal["constant", "entropy", "variance-optimal", "second-moment"]


def parse_smoothing(setting: float | str) -> tuple[SmoothingKind, float]:
    """Kind and number of a `proposal.smoothing`: the constant, the entropy's fraction of log N, or nan.

    Raises:
        ConfigError: None of these.
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
    if setting == "second-moment":
        return "second-moment", math.nan
    raise ConfigError(
        f"smoothing {setting!r} is unknown: use a constant >= 0 (10.0), 'variance-optimal', 'second-moment', or "
        "'entropy:0.9', a fraction of log N in (0, 1]"
    )


Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[Whole, Field(gt=0, lt=2**53)]
Width = Annotated[Whole, Field(gt=0, le=2**17)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=100)]
Layers = Annotated[Whole, Field(gt=0, le=1000)]
Text = Annotated[  # a path may hold much, but no line's end
    str, like(r"[^\x00-\x1f\x7f]{0,4096}", "must be one line of at most 4,096 letters, for instance data/svhn")
]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Share = Annotated[Number, Field(gt=0, le=1)]
Seconds = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Duration = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Decay = Annotated[Number, Field(ge=0, lt=1)]
Rate = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Ridge = Annotated[Number, Field(ge=1e-12, le=1e12)]
Index = Annotated[Whole, Field(ge=0)]
Arguments = Annotated[dict[str, Any], PlainValidator(_arguments)]
Smoothing = Annotated[float | str, PlainValidator(_smoothing)]


class Section(BaseModel):
    """Frozen and strict about its keys: a misspelt one is an error that names the nearest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
