"""A configuration as a command line gives it."""

from issgd_cli.config.config import Config
from issgd_cli.config.layers import assignments
from issgd_cli.config.validation import resolve


def of(*settings: str) -> Config:
    return resolve(assignments(settings), "test")
