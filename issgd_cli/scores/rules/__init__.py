"""A rule for each layer type that has one. A new layer type is one new file with its rule, and one line here."""

from issgd_cli.scores.rules import convolution, embedding, linear, norm  # noqa: F401 - registers their rules
from issgd_cli.scores.rules.rule import departure, squared_norms, supported_layers

__all__ = ["departure", "squared_norms", "supported_layers"]
