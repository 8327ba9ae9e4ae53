"""Exact per-example gradient norms without per-example gradients (section 3.3).

A new layer type is one new file with its rule, and one line here.
"""

from issgd_cli.gradient_norms import linear  # noqa: F401 - registers its rule
from issgd_cli.gradient_norms.rules import squared_norms, supported_layers
from issgd_cli.gradient_norms.scoring import Scores, refuse_unsupported, score

__all__ = ["Scores", "refuse_unsupported", "score", "squared_norms", "supported_layers"]
