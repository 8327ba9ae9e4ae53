"""What a configuration may name: methods, networks, losses, optimisers. A new one is a file, and a line here.

Each is imported when it is asked for and not before, and nothing else is ever imported because a configuration names
it. (A network of the user's own is imported because the command line names it: networks/naming.py.) One that has
settings of its own lists them in its file, as a frozen Section called Settings: they are the configuration's section of
its name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

Defaults = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Part:
    """What a name stands for.

    Attributes:
        place: `module:name there`.
        has_settings: Whether the module has a Section called Settings.
        defaults: Section -> key -> value of the configurations that name it.
        by_scores: Of a method: whether it draws by what workers score; where it doesn't they only measure.
        by_proposal: Of a method: whether all of a minibatch is drawn from one proposal, as `proposal.draws` says.
        described: Of a method: whether the Tr in use of its audits is of its own minibatches, by weights or by its own
            formula; no look, programme or epoch is in that.
        for_peers: Of a method: whether it can draw for several at once, having learned nothing from what it drew.
        paper: Of a method: whose claims are about it (claims/papers.py); empty: nobody's, or a baseline of all.
    """

    place: str
    has_settings: bool = False
    defaults: Defaults = field(default_factory=dict)
    by_scores: bool = False
    by_proposal: bool = False
    described: bool = True
    for_peers: bool = False
    paper: str = ""

    def load(self) -> Any:
        """It."""
        module, _, name = self.place.partition(":")
        return getattr(import_module(module), name)

    def settings(self) -> Any:
        """The type of its settings."""
        return import_module(self.place.partition(":")[0]).Settings


class Registry(Mapping[str, Any]):
    """Names, and what they stand for, loaded when it is looked up."""

    def __init__(self, key: str, parts: Mapping[str, Part]) -> None:
        """A registry.

        Args:
            key: Where a configuration names one of them: `section.key`.
            parts: By name.
        """
        self.key, self.parts = key, parts

    def __getitem__(self, name: str) -> Any:
        return self.parts[name].load()

    def __contains__(self, name: object) -> bool:  # a Mapping's own would look it up, and load it
        return name in self.parts

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


# The original ran its baseline with one worker, which only measures, and a push every 512 steps; ISSGD with 3 and 32.
BASELINE: Defaults = {"master": {"publish_every_steps": 512}, "worker": {"count": 1}}

METHODS = Registry(
    "proposal.method",
    {
        "issgd": Part(
            "issgd_cli.methods.issgd:ISSGD", by_scores=True, by_proposal=True, for_peers=True, paper="alain-2015"
        ),
        "sgd": Part("issgd_cli.methods.sgd:SGD", defaults=BASELINE, for_peers=True),
        "reshuffled": Part("issgd_cli.methods.reshuffled:Reshuffled", defaults=BASELINE, described=False),
        "online": Part("issgd_cli.methods.online:Online", True, BASELINE, by_proposal=True, paper="salaun-2023"),
        "adaptive": Part(
            "issgd_cli.methods.adaptive:Adaptive",
            True,
            BASELINE,
            by_proposal=True,
            described=False,
            paper="salaun-2023",
        ),
        "pruning": Part("issgd_cli.methods.pruning:Pruning", True, BASELINE, by_proposal=True, paper="salaun-2023"),
        "mis": Part("issgd_cli.methods.multiple:Multiple", True, BASELINE, paper="salaun-2024"),
        "omis": Part("issgd_cli.methods.optimal:Optimal", True, BASELINE, paper="salaun-2024"),
        "second-moment": Part(
            "issgd_cli.methods.second_moment:SecondMoment",
            True,
            {**BASELINE, "proposal": {"draws": "systematic"}},
            by_proposal=True,
        ),
        "looking": Part("issgd_cli.methods.looking:Looking", True, BASELINE, described=False),
        "dlis": Part("issgd_cli.methods.dlis:DLIS", True, BASELINE, described=False),
        "low": Part("issgd_cli.methods.low:LOW", True, BASELINE, described=False),
        "infobatch": Part("issgd_cli.methods.infobatch:InfoBatch", True, BASELINE, described=False),
    },
)
NETWORKS = Registry(
    "model.network",
    {
        "mlp": Part("issgd_cli.networks.mlp:MLP"),
        "cnn": Part("issgd_cli.networks.cnn:CNN", has_settings=True),
        "resnet18": Part("issgd_cli.networks.resnet18:ResNet18", has_settings=True),
        "vit": Part("issgd_cli.networks.vit:ViT", has_settings=True),
        "text": Part("issgd_cli.networks.text:Text", has_settings=True),
        "polynomial": Part("issgd_cli.networks.polynomial:Polynomial", has_settings=True),
        "siren": Part("issgd_cli.networks.siren:Siren", has_settings=True),
        "pointnet": Part("issgd_cli.networks.pointnet:PointNet", has_settings=True),
    },
)
LOSSES = Registry(
    "model.loss",
    {
        "cross-entropy": Part("issgd_cli.losses.cross_entropy:cross_entropy"),
        "binary-cross-entropy": Part("issgd_cli.losses.binary_cross_entropy:binary_cross_entropy"),
        "squared": Part("issgd_cli.losses.squared:squared"),
    },
)

OPTIMIZERS = Registry(
    "optimizer.kind",
    {
        "sgd": Part("issgd_cli.optimizers.sgd:SGD"),
        "adam": Part("issgd_cli.optimizers.adam:Adam", defaults={"optimizer": {"learning_rate": 1e-3}}),
        "adamw": Part(
            "issgd_cli.optimizers.adam:AdamW", defaults={"optimizer": {"learning_rate": 1e-3, "weight_decay": 1e-2}}
        ),
    },
)

ALL = (METHODS, NETWORKS, LOSSES, OPTIMIZERS)
