"""Configurations: defaults, what must agree in one, and the hash that names a run."""

from typing import Any, cast

import pytest

from issgd_cli.config.config import Config, fields
from issgd_cli.config.layers import assignments, merged
from issgd_cli.config.validation import resolve
from issgd_cli.errors import ConfigError
from issgd_cli.registries import LOSSES, NETWORKS, Part
from tests.config.given import of

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


def test_configurations_are_frozen() -> None:
    config = of()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_every_key_is_known() -> None:
    assert {"seed", "name", "master.steps", "data.train_size", "cluster.threads", "database.url"} <= set(fields())


# Agreements


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


# The hash


def changed(key: str) -> Any:
    """Another value for this key than the one that the base below has."""
    special: dict[str, Any] = {
        "data.name": "mnist",
        "data.dir": "elsewhere",
        "model.hidden": [5],
        "optimizer.nesterov": False,
        "proposal.method": "sgd",
        "model.network": "other",
        "model.arguments": {"width": 5},
        "optimizer.kind": "adam",
        "optimizer.schedule.warmup_steps": 7,
        "optimizer.betas": [0.5, 0.9],
        "optimizer.schedule.kind": "cosine",
        "optimizer.schedule.milestones": [7],
        "optimizer.schedule.factor": 0.5,
        "optimizer.schedule.final_fraction": 0.5,
        "model.loss": "other",
        "proposal.smoothing": "variance-optimal",
        "proposal.limit_mode": "drop",
        "proposal.draws": "systematic",
        "proposal.block": 0.5,
        "master.reuse_own_norms": True,
        "master.mode": "exact",
        "worker.shares": [10, 1, 1],
        "worker.precision": "bfloat16",
        "cluster.matmul_precision": "high",
        "monitor.extra_smoothings": [2.0],
        "cluster.devices": ["cpu"],
        "cluster.kind": "simulated",
        "cluster.roles": "peers",
        "peers.mode": "synchronous",
        "peers.gradients": "bfloat16",
        "peers.limit_mode": "damp",
        "cluster.clock.preset": "h200",
        "cluster.clock.slow": {"1": 2.0},
        "cluster.clock.dies": {"1": 2.0},
        "proposal.source": "shuffled",
        "database.url": "redis://localhost",
        "database.listen": "localhost:6380",
        "name": "other",
        "data.validation_fraction": 0.2,
        "data.augment": ["flip"],
        "data.label_noise": 0.5,
        "optimizer.momentum": 0.5,
        "proposal.minimum_usable_fraction": 0.5,
        "cluster.slurm.partition": "gpu",
        "cluster.slurm.account": "group",
        "cluster.slurm.time": "30",
        "cluster.slurm.gpus_per_task": 1,
        "cluster.slurm.sbatch": ["--mem-per-cpu=4G"],
        "cluster.ray.address": "auto",
    }
    return special.get(key, 77)


LEFT_OUT = {"seed", "name", "data.dir", "database.url", "database.listen", "cluster.devices", "cluster.restarts"} | {
    key for key in fields() if key.startswith(("cluster.slurm.", "cluster.ray."))
}


@pytest.mark.parametrize("key", sorted(fields()))
def test_the_hash_leaves_out_what_changes_no_result_and_nothing_else(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (NETWORKS, LOSSES):  # that have one so far
        monkeypatch.setitem(cast(dict[str, Part], registry.parts), "other", Part("nowhere:nothing"))
    base = assignments(
        ["master.steps=10", "master.publish_every_steps=5", "worker.count=2", "proposal.limit_mode=fill"]
    )
    schedules: dict[str, Any] = {"milestones": {"kind": "steps", "milestones": [5]}}
    schedules |= {
        "factor": schedules["milestones"],
        "over_steps": {"kind": "cosine"},
        "final_fraction": {"kind": "cosine"},
    }
    if key.startswith("optimizer.schedule."):  # a key of one kind is refused with another
        base = merged(base, {"optimizer": {"schedule": schedules.get(key.rpartition(".")[2], {})}})
    if key == "cluster.roles" or key.startswith("peers."):
        roles = "workers" if key == "cluster.roles" else "peers"
        base = merged(base, {"master": {"publish_every_steps": 1}, "cluster": {"roles": roles}})
        base = merged(base, {"worker": {"count": 0, "chunk_size": 1}})
    if key == "model.arguments":
        base = merged(base, {"model": {"network": "package.module:function"}})
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


def test_a_value_that_is_spelt_out_as_the_default_renames_no_run() -> None:
    """So that a key added later, with what was done before as its default, does not either."""
    bare = of("master.steps=10").hash()
    assert of("master.steps=10", "proposal.limit_mode=drop", "data.dir=elsewhere", "model.hidden=[5]").hash() != bare
    assert of("master.steps=10", "proposal.limit_mode=drop", "data.dir=elsewhere").hash() == bare


@pytest.mark.parametrize("kind", ["slurm", "ray"])
def test_a_run_on_a_cluster_listens_where_it_is_told_to_and_takes_no_other_server(kind: str) -> None:
    def given(key: str, value: str) -> Config:
        return resolve({"cluster": {"kind": kind}, "database": {key: value}}, "test")

    assert given("listen", "*:0").database.listen == "*:0"
    with pytest.raises(ConfigError, match=f"'{kind}' starts a database server of its own"):
        given("url", "redis://h")


@pytest.mark.parametrize("kind", ["simulated", "alone"])
def test_a_run_whose_database_is_in_memory_takes_no_address(kind: str) -> None:
    alone = {"master": {"mode": "relaxed", "steps": 5}, "worker": {"count": 0}, "proposal": {"method": "sgd"}}
    given = {**(alone if kind == "alone" else {}), "cluster": {"kind": kind}, "database": {"listen": "*:0"}}
    with pytest.raises(ConfigError, match=f"'{kind}' has its own database, in memory"):
        resolve(given, "test")
