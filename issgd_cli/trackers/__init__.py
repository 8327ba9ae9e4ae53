"""Trackers of experiments: programs that show a run's curves while it goes on. A new one is a file, and a line here.

Each is called as the package that it needs, and as the extra of issgd that brings this package; it is imported when
it is asked for and not before.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from issgd_cli.errors import TrackerError
from issgd_cli.registries import Part, Registry

if TYPE_CHECKING:
    from issgd_cli.trackers.tracker import Tracker

TRACKERS = Registry(
    "--track",
    {
        "tensorboard": Part("issgd_cli.trackers.tensorboard:TensorBoard"),
        "trackio": Part("issgd_cli.trackers.trackio:Trackio"),
        "wandb": Part("issgd_cli.trackers.wandb:WandB"),
    },
)


def ready(name: str) -> "type[Tracker]":
    """One of the trackers, of which nothing is missing any more.

    Args:
        name: One of TRACKERS.

    Raises:
        TrackerError: Its package is not installed, cannot be loaded, or knows no account.
    """
    if find_spec(name) is None:
        raise TrackerError(f"{name} is not installed: pip install 'issgd[{name}]'")
    try:
        tracker: type[Tracker] = TRACKERS[name]
        tracker.sign_in()
    except Exception as error:  # whatever a package of others raises
        raise TrackerError(f"{name} cannot be used: {error}") from error
    return tracker
