"""Exact per-example gradient norms without per-example gradients (section 3.3)."""

from issgd_cli.scores.gradient_norm import Scores, score
from issgd_cli.scores.refusals import refuse_unsupported
from issgd_cli.scores.rules import squared_norms, supported_layers
from issgd_cli.scores.weighted import weighted_backward

__all__ = ["Scores", "refuse_unsupported", "score", "squared_norms", "supported_layers", "weighted_backward"]
