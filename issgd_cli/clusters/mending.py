"""The run's clock, which is its database server's: mended where somebody has set that one back."""

from typing import Protocol

from issgd_cli.actors.execution import ClockedDatabase
from issgd_cli.database.redis.lifetime import CLOCK_STEP_SECONDS


class OwnedDatabase(ClockedDatabase, Protocol):
    """The database as the run's owner has it."""

    def advance(self, seconds: float) -> None:
        """Moves the run's clock forward, for all its clients."""


def mend(database: OwnedDatabase) -> float:
    """Reads the clock, and where the server's was set back moves the run's forward by as much.

    Returns:
        By how many seconds; 0 where nothing was to be mended.

    Raises:
        GoneError: The run is no longer there.
    """
    moved = database.synchronise()
    if moved >= -CLOCK_STEP_SECONDS:
        return 0.0
    database.advance(-moved)
    return -moved
