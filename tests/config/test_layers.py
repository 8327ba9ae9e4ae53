"""What --set says, and later layers over earlier ones."""

from typing import Any

import pytest

from issgd_cli.config.layers import assignments, merged
from issgd_cli.config.validation import resolve_map
from issgd_cli.errors import ConfigError
from tests.config.given import of

# --set


@pytest.mark.parametrize("key", ["proposal.smoothing", "optimizer.learning_rate", "model.initial_weight_std"])
@pytest.mark.parametrize("written", [".5", "+.5", "5e-1", "+5.0E-1", "'0.5'", '"0.5"', "'.5'", "0.5_0", ".5e0"])
def test_a_number_is_the_same_however_it_is_written(key: str, written: str) -> None:
    assert of(f"{key}={written}").hash() == of(f"{key}=0.5").hash()


@pytest.mark.parametrize("written", ["1000", "1_000", "+1000", "1000.", "1e3", "1.e3", "'1000'", "'1_000'"])
def test_a_whole_number_is_too(written: str) -> None:
    for key in ("master.steps", "proposal.smoothing", "seed", "cluster.clock.slow.0", "cluster.clock.step_seconds"):
        assert of(f"{key}={written}") == of(f"{key}=1000")


def test_so_are_those_in_lists_and_tables_and_the_fraction_of_an_entropy() -> None:
    assert of("monitor.extra_smoothings=[.5, 5., -.0, '1']").monitor.extra_smoothings == (0.5, 5.0, 0.0, 1.0)
    assert of("cluster.clock.slow={0 = .5}").cluster.clock.slow == {0: 0.5}
    assert {of(f"proposal.smoothing=entropy:{x}").hash() for x in ("0.9", ".9", "0.90", "9e-1")} == {
        of("proposal.smoothing=entropy:0.9").hash()
    }
    asked = {"workers": ["3"], "publish_every_steps": [1], "smoothings": [".5", 1, "entropy:.5"], "steps": 1}
    assert resolve_map({**asked, "audit_every_steps": 1}, "test").smoothings == (0.5, 1.0, "entropy:0.5")
    with pytest.raises(ConfigError, match=r"\[map\]: smoothings.1: .*use a constant >= 0"):
        resolve_map({**asked, "audit_every_steps": 1, "smoothings": [1, []]}, "test")


@pytest.mark.parametrize("text", ["2024", "1_000", "0x10", "007", "1e3", "2024-01-01", "true", "1.5", ".5"])
def test_a_key_that_wants_text_gets_the_text(text: str) -> None:
    for key in ("data.name", "data.dir", *(() if text.startswith(".") else ("name",))):
        section, _, last = key.rpartition(".")
        config: Any = of(f"{key}={text}")
        assert getattr(getattr(config, section) if section else config, last) == text
        assert of(f"{key}='{text}'") == config
    assert of("data.name=1 # a").data.name == "1 # a"


@pytest.mark.parametrize(("written", "value"), [("True", True), ("False", False), ("true", True), ("FALSE", False)])
def test_a_boolean_may_be_written_as_in_python(written: str, value: bool) -> None:
    assert of(f"optimizer.nesterov={written}").optimizer.nesterov is value


def test_values_parse_as_toml_or_else_as_a_string() -> None:
    assert assignments(["a.b=1", "a.c=[1, 2]", "d=true", "e=1e-3", "f='x'", "g=variance-optimal", "h=a=b", "i="]) == {
        "a": {"b": 1, "c": [1, 2]},
        "d": True,
        "e": 0.001,
        "f": "x",
        "g": "variance-optimal",
        "h": "a=b",
        "i": "",
    }


def test_the_last_of_two_assignments_wins() -> None:
    assert assignments(["a.b=1", "a.b=2"]) == {"a": {"b": 2}}


@pytest.mark.parametrize("setting", ["a.b", "=1", " =1", ""])
def test_a_setting_without_key_or_value_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"write section\.key=value"):
        assignments([setting])


def test_a_value_cannot_be_a_section_too() -> None:
    with pytest.raises(ConfigError, match="can't be a section too"):
        assignments(["a=1", "a.b=2"])


# Layers


def test_later_layers_win_key_by_key() -> None:
    first, second, third = {"a": {"x": 1, "y": 1}, "b": 1}, {"a": {"y": 2}, "c": 2}, {"a": {"y": 3}}
    assert merged(first, second, third) == {"a": {"x": 1, "y": 3}, "b": 1, "c": 2}
    assert first == {"a": {"x": 1, "y": 1}, "b": 1}


def test_lists_and_values_replace_rather_than_join() -> None:
    assert merged({"a": [1, 2], "b": {"x": 1}}, {"a": [3], "b": 5}) == {"a": [3], "b": 5}
