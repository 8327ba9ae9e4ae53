"""The way through TOML files."""

import tomllib
from pathlib import Path

import pytest

from issgd_cli.config.toml import as_toml, read_toml
from issgd_cli.config.validation import resolve
from issgd_cli.errors import ConfigError
from tests.config.given import of


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["proposal.smoothing=variance-optimal", "master.steps=5", "seed=12"],
        ["proposal.smoothing=entropy:0.9", "optimizer.learning_rate=1e-05", "model.initial_weight_std=1e-20"],
        ["data.name='quo\"te \\ back é ∑'", "data.dir='a b/c'", "cluster.devices=['cuda:0', 'cpu']"],
        ["cluster.kind=simulated", "cluster.clock.step_seconds=1e-3", "cluster.clock.slow={0 = 2, 2 = 1.5}"],
        ["master.mode=exact", "master.steps=1000000", "monitor.extra_smoothings=[]", "optimizer.nesterov=false"],
    ],
)
def test_a_configuration_survives_its_way_through_toml(settings: list[str], tmp_path: Path) -> None:
    config = of(*settings)
    path = tmp_path / "config.toml"
    path.write_text(as_toml(config), encoding="utf-8")
    again = resolve(read_toml(path), "test")
    assert again == config
    assert again.hash() == config.hash()


def test_toml_holds_every_value_that_is_not_none() -> None:
    config = of("master.steps=3")
    assert tomllib.loads(as_toml(config)) == config.model_dump(mode="json", exclude_none=True)


def test_a_missing_or_broken_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No file .*nowhere\.toml"):
        read_toml(tmp_path / "nowhere.toml")
    broken = tmp_path / "broken.toml"
    for content in (b"a = ", b"\xff\xfe\x00", b"[a]\n[a]\n"):
        broken.write_bytes(content)
        with pytest.raises(ConfigError, match=r"broken\.toml is not readable TOML"):
            read_toml(broken)
    with pytest.raises(ConfigError, match="is not readable TOML"):
        read_toml(tmp_path)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path, newline: str) -> None:
    path = tmp_path / "marked.toml"
    path.write_bytes(f"[data]{newline}name = 'é'{newline}".encode("utf-8-sig"))
    assert read_toml(path) == {"data": {"name": "é"}}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_a_file_of_another_encoding_is_told_what_to_be(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "other.toml"
    path.write_bytes("name = 'é'\n".encode(encoding))
    with pytest.raises(ConfigError, match=r"other.toml is not readable TOML: it is .*; save it as UTF-8\.$"):
        read_toml(path)
