"""The section of peers, and what a run of them cannot have."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from issgd_cli.config.values import Positive, Section, Whole
from issgd_cli.registries import METHODS, Defaults

if TYPE_CHECKING:
    from issgd_cli.config.config import Config

# Each gradient makes parameters of its own; what is known of an example is known of it alone; and who draws what fills
# the table must not leave out what it has not drawn yet.
DEFAULTS: Defaults = {
    "master": {"publish_every_steps": 1},
    "worker": {"count": 0, "chunk_size": 1},
    "proposal": {"limit_mode": "fill"},
}


class Peers(Section):
    """Who draws and computes gradients where `cluster.roles` has peers, and what the server does with them."""

    count: Annotated[Whole, Field(ge=1, le=1024)] = 4
    # synchronous: a step takes one gradient of each peer, of the same parameters; nothing is ever stale
    mode: Literal["asynchronous", "synchronous"] = "asynchronous"
    refresh_every_steps: Positive = 1  # of its own: how often a peer reads the table along with the parameters
    gradients: Literal["float32", "bfloat16"] = "float32"  # as they travel
    staleness_limit_versions: Positive | None = None  # of gradients: what becomes of older ones,
    limit_mode: Literal["drop", "damp"] = "drop"  # left out, or multiplied by limit / age


def refuse_disagreement(config: "Config") -> None:
    """Of a run of peers: what else its configuration must not say; and of any other, that it has none.

    Raises:
        ValueError: It does.
    """
    peers = config.cluster.roles == "peers"
    if not peers:
        if config.peers != Peers():
            raise ValueError(
                "the section [peers] belongs to cluster.roles = 'peers', which is 'workers'; set both or neither"
            )
        return
    if config.cluster.kind not in ("local", "simulated"):
        raise ValueError(
            f"cluster.roles = 'peers' is for cluster.kind = 'local' and 'simulated', and it is '{config.cluster.kind}'"
        )
    if config.master.mode == "exact":
        raise ValueError(
            "exact mode waits for workers, and cluster.roles = 'peers' has none; leave out master.mode, and for steps "
            "without staleness set peers.mode = 'synchronous'"
        )
    method = METHODS.parts[config.proposal.method]
    if not method.for_peers:
        able = " or ".join(repr(name) for name, part in METHODS.parts.items() if part.for_peers)
        raise ValueError(f"cluster.roles = 'peers' draws by proposal.method = {able}, not '{config.proposal.method}'")
    needed = {
        "worker.count": (config.worker.count, 0, "peers fill the table themselves"),
        "worker.chunk_size": (config.worker.chunk_size, 1, "its records are of single examples"),
        "master.reuse_own_norms": (config.master.reuse_own_norms, False, "all norms are of peers' own minibatches"),
        "proposal.draws": (config.proposal.draws, "independent", "nobody shares a block"),
        "proposal.source": (config.proposal.source, "workers", "weights are those of the table"),
        "proposal.limit_mode": (config.proposal.limit_mode, "fill", "with 'drop' who is not drawn stays unknown"),
        "cluster.clock.preset 'measured'": (config.cluster.clock.preset == "measured", False, "it times a master"),
    }
    for key, (given, only, why) in needed.items():
        if given != only:
            raise ValueError(f"{key} is not for cluster.roles = 'peers', where {why}; leave it out")
    if config.peers.mode == "synchronous":
        if config.peers.staleness_limit_versions is not None:
            raise ValueError(
                "peers.staleness_limit_versions is of no use with peers.mode = 'synchronous', where no gradient is old"
            )
        if config.master.publish_every_steps != 1:
            raise ValueError("peers.mode = 'synchronous' publishes after every step; leave out publish_every_steps")
        if config.cluster.clock.dies:
            raise ValueError("peers.mode = 'synchronous' waits for every peer; leave out cluster.clock.dies")
    if len(config.cluster.clock.dies) == config.peers.count:
        raise ValueError("cluster.clock.dies lists all peers; leave one alive")
