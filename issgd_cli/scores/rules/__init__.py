"""A rule for each layer type that has one. A new layer type is one new file with its rule, and one line here."""

from issgd_cli.scores.rules import (  # noqa: F401 - they register their rules
    attention,
    convolution,
    embedding,
    linear,
    norm,
    recurrent,
)
from issgd_cli.scores.rules.rule import PIECES, departure, objection, squared_norms, supported_layers

__all__ = ["PIECES", "departure", "objection", "squared_norms", "supported_layers"]
