"""The stable door: what a training loop of your own needs, in one process and without a database.

What `__all__` lists stays, by these names and with these meanings; all other modules may move. An ImportanceLoader,
or an ImportanceSampler under a DataLoader of your own, draws examples in proportion to the smoothed norms that
`weighted_backward` gives. The pieces are here, too: score, smooth, draw. README.md has a loop of either kind.
"""

from issgd_cli.errors import IssgdError
from issgd_cli.loader import ImportanceLoader
from issgd_cli.losses import Loss
from issgd_cli.losses.cross_entropy import cross_entropy
from issgd_cli.losses.per_example import per_example
from issgd_cli.methods.proposal import Proposal
from issgd_cli.methods.smoothing import entropy_constant, smoothed, variance_optimal_constant
from issgd_cli.networks.mlp import mlp
from issgd_cli.randomness import generator
from issgd_cli.runs.parameters import load_parameters
from issgd_cli.sampler import ImportanceSampler, Minibatch
from issgd_cli.scores import Scores, refuse_unsupported, score, supported_layers, weighted_backward

__all__ = [
    "ImportanceLoader",
    "ImportanceSampler",
    "IssgdError",
    "Loss",
    "Minibatch",
    "Proposal",
    "Scores",
    "cross_entropy",
    "entropy_constant",
    "generator",
    "load_parameters",
    "mlp",
    "per_example",
    "refuse_unsupported",
    "score",
    "smoothed",
    "supported_layers",
    "variance_optimal_constant",
    "weighted_backward",
]
