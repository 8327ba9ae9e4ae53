"""A server's clock that was set back, and the run's that goes on."""

import pytest

from issgd_cli.clusters.mending import mend
from tests.clusters.conftest import OwnedMemory


@pytest.mark.parametrize(("moved", "mended"), [(0.0, 0.0), (-0.5, 0.0), (+3600.0, 0.0), (-3600.0, 3600.0)])
def test_what_the_servers_clock_was_set_back_by_the_runs_goes_forward(
    database: OwnedMemory, moved: float, mended: float
) -> None:
    before = database.seconds()
    database.moved = moved
    assert mend(database) == mended
    assert database.seconds() == before + mended
    assert mend(database) == 0.0
