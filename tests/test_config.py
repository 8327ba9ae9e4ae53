"""Configurations: defaults, limits, messages, the hash that names a run, and the way through TOML and --set."""

import contextlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from issgd_cli.config import (
    Config,
    as_toml,
    assignments,
    known_keys,
    merged,
    parse_smoothing,
    read_toml,
    resolve,
    resolve_map,
)
from issgd_cli.errors import ConfigError


def of(*settings: str) -> Config:
    return resolve(assignments(settings), "test")


# Defaults


def test_the_defaults_are_the_papers_setting_a() -> None:
    config = of()
    assert config.data.name == "svhn"
    assert config.data.validation_fraction == 0.05
    assert config.model.hidden == (2048, 2048, 2048, 2048)
    assert (config.optimizer.learning_rate, config.optimizer.momentum, config.optimizer.nesterov) == (0.01, 0.95, True)
    assert (config.proposal.method, config.proposal.smoothing) == ("issgd", 10.0)
    assert (config.proposal.limit_mode, config.proposal.minimum_usable_fraction) == ("drop", 0.1)
    assert (config.master.minibatch_size, config.worker.chunk_size, config.worker.shares) == (128, 2048, (20, 1, 1))
    assert config.master.mode == "relaxed"


def test_issgd_has_three_workers_and_publishes_every_32_steps_sgd_one_and_512() -> None:
    issgd, sgd = of(), of("proposal.method=sgd")
    assert (issgd.worker.count, issgd.master.publish_every_steps) == (3, 32)
    assert (sgd.worker.count, sgd.master.publish_every_steps) == (1, 512)


def test_what_the_method_decides_can_be_set_all_the_same() -> None:
    config = of("proposal.method=sgd", "worker.count=5", "master.publish_every_steps=7")
    assert (config.worker.count, config.master.publish_every_steps) == (5, 7)


def test_a_run_without_an_end_gets_the_papers_four_hours() -> None:
    assert of().master.seconds == 4 * 3600
    assert of("master.steps=10").master.seconds is None
    assert of("master.seconds=5").master.seconds == 5


# Limits


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("data.validation_fraction=0", "data.validation_fraction"),
        ("data.validation_fraction=1", "data.validation_fraction"),
        ("data.train_size=0", "data.train_size"),
        ("data.split_seed=-1", "data.split_seed"),
        ("model.hidden=[]", "model.hidden"),
        ("model.hidden=[4, 0]", "model.hidden.1"),
        ("model.initial_weight_std=0", "model.initial_weight_std"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate"),
        ("optimizer.momentum=1", "optimizer.momentum"),
        ("proposal.method=adam", "proposal.method"),
        ("proposal.smoothing=-1", "proposal.smoothing"),
        ("proposal.smoothing=nan", "proposal.smoothing"),
        ("proposal.smoothing=entropy", "proposal.smoothing"),
        ("proposal.staleness_limit_seconds=0", "proposal.staleness_limit_seconds"),
        ("proposal.staleness_limit_versions=0", "proposal.staleness_limit_versions"),
        ("proposal.limit_mode=keep", "proposal.limit_mode"),
        ("proposal.minimum_usable_fraction=1.5", "proposal.minimum_usable_fraction"),
        ("master.steps=0", "master.steps"),
        ("master.seconds=-1", "master.seconds"),
        ("master.minibatch_size=0", "master.minibatch_size"),
        ("master.publish_every_steps=0", "master.publish_every_steps"),
        ("worker.count=-1", "worker.count"),
        ("worker.shares=[20, 1]", "worker.shares"),
        ("worker.shares=[20, 1, 0]", "worker.shares.2"),
        ("monitor.every_seconds=0", "monitor.every_seconds"),
        ("monitor.extra_smoothings=[-1]", "monitor.extra_smoothings.0"),
        ("cluster.threads=0", "cluster.threads"),
        ("cluster.clock.preset=k40", "cluster.clock.preset"),
        ("cluster.clock.step_seconds=0", "cluster.clock.step_seconds"),
        ("cluster.clock.pull_seconds=-1", "cluster.clock.pull_seconds"),
        ("cluster.clock.slow.0=0", "cluster.clock.slow"),
        ("seed=-1", "seed"),
        ("master=3", "master"),
        ("proposal=issgd", "proposal"),
        ("worker=[1]", "worker"),
        ("data=svhn", "data"),
        ("optimizer.learning_rate=true", "optimizer.learning_rate"),
        ("master.steps=True", "master.steps"),
        ("optimizer.nesterov=2.5", "optimizer.nesterov"),
        ("cluster.clock.slow.first=2", "cluster.clock.slow.first"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(setting: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^test: {key.replace('.', '[.]')}(\.\w+)?: "):
        of(setting)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("name=../up", "begin with one of a-z, A-Z and 0-9, .* for instance paper-a"),
        ("name=", "begin with one of a-z"),
        ('name="a\\n"', "begin with one of a-z"),
        (f"name={'a' * 101}", "at most 100 in all"),
        ('data.name="a\\nb"', "one line of at most 4,096 letters, for instance data/svhn"),
        (f"data.dir={'a' * 4097}", "one line of at most 4,096 letters"),
        ('cluster.devices=["a\\tb"]', "one line of at most 4,096 letters"),
        ("database.listen=6379", "HOST:PORT, for instance 0.0.0.0:6379"),
        ('database.listen="localhost:6379\\n"', "HOST:PORT"),
        ("proposal.smoothing=[1]", "use a constant >= 0"),
        ("proposal.smoothing={a=1}", "use a constant >= 0"),
        ("proposal.smoothing=true", "a number, not true or false"),
        ("model.hidden=128", r"a list, for instance \[2048, 2048, 2048, 2048\] \(given: 128\)"),
        ("cluster.devices=cpu", r"a list, for instance \['auto'\]"),
        ("worker.shares=[20, 1, 1, 1]", "at most 3 values"),
        ("cluster.clock.slow=3", "a table, for instance {0 = 2.5}"),
        ("worker.precision=float16", "'float32' or 'bfloat16'"),
        ("optimizer.nesterov=perhaps", "true or false"),
        ("master.steps=1.5", "a whole number"),
        ("master.steps=many", "a whole number"),
        ("optimizer.learning_rate=[]", "a number"),
        ("worker=[1]", "a section"),
    ],
)
def test_what_a_value_must_be_is_said_in_words(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"(must be |must |: ).*{words}") as refused:
        of(setting)
    assert len(str(refused.value)) < 350


WRONG = ["x", "''", "true", "-1", "1.5", "nan", "[]", "{}", "['a']", "{a=1}", "2024-01-01", "9" * 400, "\n", "[[1]]",
         "{-1=1}", "{0='x'}", "1e400", "'" + "a" * 5000 + "'"]  # fmt: skip


@pytest.mark.parametrize("key", known_keys())
def test_no_refusal_speaks_of_patterns_or_pythons_types(key: str) -> None:
    told = ""
    for value in WRONG:
        with contextlib.suppress(ConfigError):
            of(f"{key}={value}")
            continue
        with pytest.raises(ConfigError) as refused:
            of(f"{key}={value}")
        told += str(refused.value)
    assert not re.search(r"Input|String|Tuple|tuple|dictionary|\[key\]|\.str|\.float|\^|\\w|validation, ", told)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["master.steps=5", "proposal.staleness_limit_seconds=4"], "staleness_limit_versions"),
        (["master.seconds=5"], "set master.steps"),
    ],
)
def test_exact_mode_refuses_what_depends_on_the_clock_or_would_never_end(settings: list[str], message: str) -> None:
    of("master.mode=exact", "master.steps=5")
    with pytest.raises(ConfigError, match=message):
        of("master.mode=exact", *settings)


SIMULATED = ("cluster.kind=simulated", "master.steps=5")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["proposal.source=oracle", "cluster.kind=local"], "needs cluster.kind = 'simulated'"),
        (["proposal.source=oracle", "master.mode=relaxed"], "fresh weights before every step"),
        (["proposal.source=oracle", "master.publish_every_steps=2"], "fresh weights before every step"),
        (["database.url=redis://localhost"], "leave out database.url"),
        (["cluster.clock.slow.3=2"], "names worker 3, but worker.count is 3"),
        (["cluster.clock.dies.7=2"], "names worker 7"),
        (["master.mode=exact", "worker.count=1", "cluster.clock.dies.0=2"], "lists all of them"),
    ],
)
def test_what_the_simulated_cluster_cannot_do_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        of(*SIMULATED, *settings)


def test_the_oracle_is_exact_and_publishes_before_every_step() -> None:
    config = of(*SIMULATED, "proposal.source=oracle")
    assert (config.master.mode, config.master.publish_every_steps) == ("exact", 1)


def test_workers_of_the_clock_are_known_by_their_numbers() -> None:
    clock = of(
        *SIMULATED, "cluster.clock.slow.0=3", "cluster.clock.slow.2=1.5", "cluster.clock.dies={1 = 60}"
    ).cluster.clock
    assert clock.slow == {0: 3.0, 2: 1.5}
    assert clock.dies == {1: 60.0}


def test_own_norms_together_with_drop_are_refused_since_recency_would_select_large_norms() -> None:
    of("master.reuse_own_norms=true", "proposal.limit_mode=fill")
    with pytest.raises(ConfigError, match=r"limit_mode = 'fill'"):
        of("master.reuse_own_norms=true")


def test_a_value_that_is_spelt_out_as_the_default_renames_no_run() -> None:
    """So that a key added later, with what was done before as its default, does not either."""
    bare = of("master.steps=10").hash()
    assert of("master.steps=10", "proposal.limit_mode=drop", "data.dir=elsewhere", "model.hidden=[5]").hash() != bare
    assert of("master.steps=10", "proposal.limit_mode=drop", "data.dir=elsewhere").hash() == bare


def test_configurations_are_frozen() -> None:
    config = of()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


# Unknown keys


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("optimizer.learning_rat=0.1", "optimizer.learning_rate"),
        ("optimiser.learning_rate=0.1", "optimizer"),
        ("learning_rate=0.1", "optimizer.learning_rate"),
        ("steps=10", "master.steps"),
        ("worker.steps=10", "master.steps"),
        ("proposal.smothing=1", "proposal.smoothing"),
        ("sed=1", "seed"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_known_one_named(setting: str, nearest: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"unknown key {setting.split('=')[0].split('.')[0]}.*did you mean {nearest}"
    ):
        of(setting)


def test_a_key_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(ConfigError, match=r"unknown key zzzzqqqq$"):
        of("zzzzqqqq=1")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.momentum.*worker\.count"):
        of("optimizer.momentum=2", "worker.count=-1")


# The hash


def changed(key: str) -> Any:
    """Another value for this key than the one that the base below has."""
    special: dict[str, Any] = {
        "data.name": "mnist",
        "data.dir": "elsewhere",
        "model.hidden": [5],
        "optimizer.nesterov": False,
        "proposal.method": "sgd",
        "proposal.smoothing": "variance-optimal",
        "proposal.limit_mode": "drop",
        "master.reuse_own_norms": True,
        "master.mode": "exact",
        "worker.shares": [10, 1, 1],
        "worker.precision": "bfloat16",
        "cluster.matmul_precision": "high",
        "monitor.extra_smoothings": [2.0],
        "cluster.devices": ["cpu"],
        "cluster.kind": "simulated",
        "cluster.clock.preset": "h200",
        "cluster.clock.slow": {"1": 2.0},
        "cluster.clock.dies": {"1": 2.0},
        "proposal.source": "shuffled",
        "database.url": "redis://localhost",
        "database.listen": "localhost:6380",
        "name": "other",
        "data.validation_fraction": 0.2,
        "optimizer.momentum": 0.5,
        "proposal.minimum_usable_fraction": 0.5,
    }
    return special.get(key, 77)


LEFT_OUT = {"seed", "name", "data.dir", "database.url", "database.listen", "cluster.devices", "cluster.restarts"}


@pytest.mark.parametrize("key", sorted(known_keys()))
def test_the_hash_leaves_out_what_changes_no_result_and_nothing_else(key: str) -> None:
    base = assignments(
        ["master.steps=10", "master.publish_every_steps=5", "worker.count=2", "proposal.limit_mode=fill"]
    )
    *sections, last = key.split(".")
    other: dict[str, Any] = {last: changed(key)}
    for section in reversed(sections):
        other = {section: other}
    one, two = resolve(base, "test"), resolve(merged(base, other), "test")
    assert one != two
    assert (one.hash() == two.hash()) == (key in LEFT_OUT)


def test_the_hash_is_eight_hex_digits_of_the_resolved_values_however_they_were_written() -> None:
    assert of("proposal.smoothing=10").hash() == of().hash() == of("proposal.smoothing=10.0").hash()
    assert len(of().hash()) == 8
    int(of().hash(), 16)


def test_every_key_is_known() -> None:
    assert {"seed", "name", "master.steps", "data.train_size", "cluster.threads", "database.url"} <= set(known_keys())


# TOML


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


# Smoothing


@pytest.mark.parametrize(
    ("setting", "kind", "number"),
    [(10.0, "constant", 10), (0, "constant", 0), ("entropy:0.9", "entropy", 0.9), ("entropy:1", "entropy", 1)],
)
def test_a_smoothing_is_read(setting: float | str, kind: str, number: float) -> None:
    assert parse_smoothing(setting) == (kind, number)
    assert parse_smoothing("variance-optimal")[0] == "variance-optimal"


@pytest.mark.parametrize("setting", [-1, float("inf"), "constant:1", "entropy:", "entropy:nan", "entropy:2", "10"])
def test_an_unknown_smoothing_is_refused(setting: float | str) -> None:
    with pytest.raises(ConfigError, match="use a constant >= 0"):
        parse_smoothing(setting)
