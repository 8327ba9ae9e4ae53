"""What a configuration may name: each loads, and one with settings of its own brings a section of its name."""

import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from issgd_cli.config.config import Config
from issgd_cli.config.layers import assignments
from issgd_cli.config.toml import as_toml, read_toml
from issgd_cli.config.validation import resolve
from issgd_cli.config.values import Fraction, Section
from issgd_cli.errors import ConfigError
from issgd_cli.methods.sgd import SGD
from issgd_cli.registries import ALL, METHODS, Part, Registry

Configured = Callable[..., Config]


class Settings(Section):
    """Of a method that exists here alone."""

    strength: Fraction = 0.5


class Mine(SGD):
    """Drawn uniformly, with settings."""

    def __init__(self, config: Config, examples: int, device: torch.device) -> None:
        super().__init__(config, examples, device)
        self.own = config.own(Settings)


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more method, as a file and a line would add it."""
    module = types.ModuleType("issgd_cli.methods.mine")
    vars(module).update(Settings=Settings, Mine=Mine)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    part = Part("issgd_cli.methods.mine:Mine", has_settings=True, defaults={"worker": {"count": 0}})
    monkeypatch.setitem(cast(dict[str, Part], METHODS.parts), "mine", part)


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.key)
def test_all_that_is_listed_is_there(registry: Registry) -> None:
    for name, part in registry.parts.items():
        assert name in registry
        assert registry[name] is not None
        if part.has_settings:
            assert isinstance(part.settings()(), Section)
    assert "nonsense" not in registry


def of(*settings: str) -> Config:
    return resolve(assignments(["master.steps=5", *settings]), "a test")


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_is_said_to_draw_by_scores_if_and_only_if_scores_change_its_draws(name: str) -> None:
    method = METHODS[name](of(f"proposal.method={name}"), 3, torch.device("cpu"))
    weights = method.propose(np.array([1, 2, 3], np.float32), np.ones(3, np.bool_), 0.0).weights
    assert METHODS.parts[name].by_scores == (np.ptp(weights) > 0)


@pytest.mark.usefixtures("mine")
def test_a_method_brings_its_settings_and_defaults(tmp_path: Path) -> None:
    config = of("proposal.method=mine")
    assert config.own(Settings).strength == 0.5
    assert config.worker.count == 0
    method = METHODS["mine"](of("proposal.method=mine", "mine.strength=0.25"), 10, torch.device("cpu"))
    assert method.own.strength == 0.25
    path = tmp_path / "config.toml"
    path.write_text(as_toml(of("proposal.method=mine", "mine.strength=0.25")))
    again = resolve(read_toml(path), "a test")
    assert again.own(Settings).strength == 0.25
    assert again.hash() == of("proposal.method=mine", "mine.strength=0.25").hash()


@pytest.mark.usefixtures("mine")
def test_settings_of_ones_own_are_part_of_the_hash_unless_they_are_the_defaults() -> None:
    bare = of("proposal.method=mine").hash()
    assert of("proposal.method=mine", "mine.strength=0.5").hash() == bare
    assert of("proposal.method=mine", "mine.strength=0.6").hash() != bare


@pytest.mark.usefixtures("mine")
def test_a_section_that_is_given_is_checked_also_where_its_method_is_not_used() -> None:
    """As [[methods]] of one file share their sections."""
    assert of("mine.strength=0.25").own(Settings).strength == 0.25
    with pytest.raises(ConfigError, match=r"mine\.strength: must be at most 1 \(given: 7\)"):
        of("mine.strength=7")


@pytest.mark.usefixtures("mine")
def test_a_misspelt_key_of_a_section_of_ones_own_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown key mine\.strenght; did you mean mine\.strength\?"):
        of("proposal.method=mine", "mine.strenght=0.25")


def test_a_section_of_no_part_is_unknown() -> None:
    with pytest.raises(ConfigError, match="unknown key mine"):
        of("mine.strength=0.25")


@pytest.mark.usefixtures("mine")
def test_defaults_of_what_is_named_reach_every_section_and_give_way_to_what_is_set() -> None:
    assert of("optimizer.kind=adam").optimizer.learning_rate == 0.001
    assert of("optimizer.kind=adamw").optimizer.weight_decay == 0.01
    assert of("optimizer.kind=adam", "optimizer.learning_rate=0.5").optimizer.learning_rate == 0.5
    both = of("optimizer.kind=adam", "proposal.method=mine", "worker.count=4")
    assert (both.optimizer.learning_rate, both.worker.count) == (0.001, 4)
    assert (of().optimizer.learning_rate, of().worker.count, of("proposal.method=sgd").worker.count) == (0.01, 3, 1)


def test_sections_of_ones_own_have_names_of_their_own() -> None:
    names = [name for registry in ALL for name, part in registry.parts.items() if part.has_settings]
    assert len({*names, *Config.model_fields}) == len(names) + len(Config.model_fields)


def test_nothing_is_loaded_to_know_a_name() -> None:
    registry = Registry("a.b", cast(Mapping[str, Any], {"one": Part("nowhere:nothing")}))
    assert "one" in registry
    assert list(registry) == ["one"]
    with pytest.raises(ModuleNotFoundError):
        registry["one"]
