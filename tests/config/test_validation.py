"""Limits, and the messages that name what is out of them."""

import contextlib
import re

import pytest

from issgd_cli.config.config import fields
from issgd_cli.errors import ConfigError
from tests.config.given import of

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


@pytest.mark.parametrize("key", list(fields()))
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
