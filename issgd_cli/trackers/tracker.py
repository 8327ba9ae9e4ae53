"""What every tracker is: one page for one run, on which points appear."""

from collections.abc import Mapping
from typing import Any, Protocol

from issgd_cli.runs.folder import RunFolder


class Tracker(Protocol):
    """A run's page, empty when it is made."""

    def __init__(self, folder: RunFolder) -> None:
        """A page for the run of this folder."""

    @staticmethod
    def sign_in() -> None:
        """Whatever may have to be asked at the terminal; called once, before the first page."""
        return  # nothing

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        """Adds one point to each quantity's curve; the steps of different quantities come in any order.

        Args:
            step: Of the master.
            seconds: Since the run's start, by its clock.
            values: Quantity -> value; may be infinite.
        """

    def close(self) -> None:
        """Shows what was logged, all of it; nothing follows."""


def described(folder: RunFolder) -> dict[str, Any]:
    """How the trackers that know projects and groups name a run: project, group, name, config.

    Where the database is, and its password, is nobody's business.
    """
    config = folder.read_config()
    run = folder.path.parent.name  # <setting>-<method>-<hash>: what its seeds have in common
    return {
        "project": f"issgd-{config.name}",
        "group": run,
        "name": f"{run}/{folder.path.name}",
        "config": config.model_dump(mode="json", exclude={"database"}),
    }
