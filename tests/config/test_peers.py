"""The section of peers: what goes with it, what does not, and that nobody else's runs are renamed by it."""

from collections.abc import Callable

import pytest

from issgd_cli.config.config import Config
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve
from issgd_cli.errors import ConfigError

PEERS = ("cluster.roles=peers",)


def resolved(*settings: str) -> Config:
    return resolve(assignments([*settings]), "a test")


@pytest.mark.parametrize("method", ["issgd", "sgd"])
def test_peers_are_named_by_one_key(method: str) -> None:
    config = resolved(*PEERS, f"proposal.method={method}")
    assert (config.worker.count, config.worker.chunk_size, config.master.publish_every_steps) == (0, 1, 1)
    assert config.proposal.limit_mode == "fill"
    assert config.peers.count == 4


def test_a_run_without_peers_is_called_what_it_was() -> None:
    assert resolved().hash() == resolved("cluster.roles=workers", "peers.count=4").hash()
    assert resolved().hash() != resolved(*PEERS).hash()
    assert "peers" not in resolved().model_dump(exclude_defaults=True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["peers.count=3"], "belongs to cluster.roles = 'peers'"),
        ([*PEERS, "cluster.kind=slurm"], "is for cluster.kind = 'local' and 'simulated'"),
        ([*PEERS, "cluster.kind=alone"], "cluster.kind"),
        ([*PEERS, "master.mode=exact", "master.steps=5"], "peers.mode = 'synchronous'"),
        ([*PEERS, "proposal.method=online"], "'issgd' or 'sgd', not 'online'"),
        ([*PEERS, "worker.count=2"], "worker.count is not for"),
        ([*PEERS, "worker.chunk_size=10"], "worker.chunk_size is not for"),
        ([*PEERS, "proposal.limit_mode=drop"], "proposal.limit_mode is not for"),
        ([*PEERS, "proposal.draws=systematic"], "proposal.draws is not for"),
        ([*PEERS, "proposal.source=shuffled"], "proposal.source is not for"),
        ([*PEERS, "master.reuse_own_norms=true"], "master.reuse_own_norms is not for"),
        ([*PEERS, "cluster.kind=simulated", "cluster.clock.preset=measured"], "'measured' is not for"),
        ([*PEERS, "peers.mode=synchronous", "peers.staleness_limit_versions=4"], "no gradient is old"),
        ([*PEERS, "peers.mode=synchronous", "master.publish_every_steps=2"], "publishes after every step"),
        ([*PEERS, "peers.mode=synchronous", "cluster.clock.dies={0 = 1}"], "waits for every peer"),
        ([*PEERS, "peers.count=1", "cluster.clock.dies={0 = 1}"], "lists all peers"),
        ([*PEERS, "cluster.clock.slow={4 = 2}"], "names peer 4, but peers.count is 4"),
        ([*PEERS, "peers.count=0"], "at least 1"),
        ([*PEERS, "peers.gradients=float16"], "'float32' or 'bfloat16'"),
    ],
)
def test_what_peers_cannot_have_is_said(settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        resolved(*settings)
    assert words in str(raised.value)


def test_the_tiny_configuration_can_be_one_of_peers(configured: Callable[..., Config]) -> None:
    assert (
        configured("master.mode=relaxed", *PEERS, "worker.count=0", "worker.chunk_size=1").peers.mode == "asynchronous"
    )
