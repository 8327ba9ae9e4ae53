"""Which of an experiment's runs are to be done: those that are asked for, at settings that others of them choose.

Where an experiment has `choosing_seeds`, its settings are rivals, learning rates mostly: each method has all of them at
these seeds, and at the other seeds alone the one that is lowest there in validation error or, as `choosing_by` says, in
training loss, or both (claims/choice.py). So every method is shown at its best, and no number that is shown has helped
to choose.
"""

from collections.abc import Sequence
from pathlib import Path

from issgd_cli.claims.choice import best
from issgd_cli.claims.loading import load_run
from issgd_cli.errors import ConfigError
from issgd_cli.experiments.experiment import Run

OVER = ("finished", "failed")


def parse_only(text: str) -> dict[str, str]:
    """`setting=a,dataset=mnist,method=issgd`, or some of these, as a mapping.

    Raises:
        ConfigError: Another key, or no equals sign.
    """
    only: dict[str, str] = {}
    for part in text.split(",") if text else []:
        key, equals, value = part.strip().partition("=")
        if not equals or key not in ("setting", "dataset", "method"):
            raise ConfigError(f"--only {text}: write setting=a, dataset=mnist, method=issgd, or several with commas.")
        only[key] = value
    return only


def settled(runs: Sequence[Run], results: Path, guessing: bool = False) -> list[Run]:
    """The runs without those at settings that are not chosen, in order; all of them where there is nothing to choose.

    Args:
        runs: Of an experiment.
        results: The folder above the experiment's.
        guessing: Whether methods that nothing is chosen for yet have the first of their settings, as many as may be
            chosen, to count and time them; else only those runs of theirs that choose.
    """
    if not any(run.chooses for run in runs):
        return list(runs)
    found: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        of = run.dataset, run.method
        if of not in found:
            group = [each for each in runs if (each.dataset, each.method) == of]
            settings = [*dict.fromkeys(each.setting for each in group)][: max(len(each.chooses) for each in group)]
            found[of] = _chosen(group, results) or (set(settings) if guessing else set())
    return [run for run in runs if run.chooses or run.setting in found[run.dataset, run.method]]


def _chosen(group: Sequence[Run], results: Path) -> set[str]:
    """The settings of one method on one dataset, of each measure the best; none before all is over that chooses."""
    choosing = [run for run in group if run.chooses]
    folders = [run.folder(results) for run in choosing]
    if not folders or any(folder.state() not in OVER for folder in folders):
        return set()
    loaded = [load_run(folder) for folder in folders]
    if not all(run.finished or run.diverged for run in loaded):
        return set()
    return {best(loaded, measure) for measure in choosing[0].chooses}
