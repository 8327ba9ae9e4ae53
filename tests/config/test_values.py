"""Values of types of their own."""

import pytest

from issgd_cli.config.values import parse_smoothing
from issgd_cli.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "kind", "number"),
    [(10.0, "constant", 10), (0, "constant", 0), ("entropy:0.9", "entropy", 0.9), ("entropy:1", "entropy", 1)],
)
def test_a_smoothing_is_read(setting: float | str, kind: str, number: float) -> None:
    assert parse_smoothing(setting) == (kind, number)
    for name in ("variance-optimal", "second-moment"):
        assert parse_smoothing(name)[0] == name


@pytest.mark.parametrize("setting", [-1, float("inf"), "constant:1", "entropy:", "entropy:nan", "entropy:2", "10"])
def test_an_unknown_smoothing_is_refused(setting: float | str) -> None:
    with pytest.raises(ConfigError, match="use a constant >= 0"):
        parse_smoothing(setting)
