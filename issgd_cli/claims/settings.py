"""What a text and a figure call a setting, and which two stand for the paper's (a) and (b)."""

from issgd_cli.claims.evidence import Runs, is_papers
from issgd_cli.config.config import Config
from issgd_cli.config.values import parse_smoothing
from issgd_cli.registries import METHODS


def smoothing_label(config: Config) -> str:
    """The smoothing as the paper writes it: +10, +1; or the name of an adaptive rule."""
    kind, number = parse_smoothing(config.proposal.smoothing)
    return f"+{number:g}" if kind == "constant" else str(config.proposal.smoothing)


def named(setting: str) -> str:
    """How a text calls a setting."""
    return f"({setting})" if setting else "All runs"


def missing_issgd(runs: Runs, what: str) -> str:
    """Why there is no run of the paper's ISSGD to judge: several methods may be it, or none has `what`."""
    may_be = dict.fromkeys(run.method for run in runs.runs if is_papers(run) and run.config.proposal.method == "issgd")
    if may_be and not runs.label("issgd"):
        return f"Several methods may be the paper's ISSGD ({', '.join(may_be)}): call the one to be judged issgd."
    return f"No finished run of the paper's ISSGD has {what}."


def setting_title(runs: Runs, setting: str) -> str:
    """A panel's title as the paper's: "(a) learning rate 0.01, add smoothing +10.0"."""
    if runs.choosing:
        return "each method at the setting that was chosen for it"
    config = runs.config(setting, runs.importance) or runs.config(setting)
    if config is None:
        return f"({setting})"
    kind, number = parse_smoothing(config.proposal.smoothing)
    added = f"add smoothing +{number}" if kind == "constant" else f"{config.proposal.smoothing} smoothing"
    optimizer = "" if config.optimizer.kind == "sgd" else f"{config.optimizer.kind}, "
    title = f"{optimizer}learning rate {config.optimizer.learning_rate:g}"
    if METHODS.parts[config.proposal.method].by_scores or config.proposal.method == "sgd":
        title += f", {added}"
    return f"({setting}) {title}" if setting else title


def paper_settings(runs: Runs) -> tuple[str, str] | None:
    """Which settings of one dataset stand for the paper's (a) and (b): by name, else by the rate, the larger first.

    None where settings are of different datasets, or differ in more than the learning rate and the smoothing.
    """
    if len(runs.datasets()) > 1:
        return None
    if {"a", "b"} <= set(runs.settings):
        return "a", "b"
    if len({(run.config.optimizer.kind, run.config.optimizer.schedule) for run in runs.runs}) > 1:
        return None
    rates = {setting: config.optimizer.learning_rate for setting in runs.settings if (config := runs.config(setting))}
    if len(rates) == 2 and len(set(rates.values())) == 2:
        high, low = sorted(rates, key=rates.__getitem__, reverse=True)
        return high, low
    return None
