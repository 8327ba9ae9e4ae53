"""Plain SGD: uniform, whatever the table says."""

from collections.abc import Callable

import numpy as np
import pytest

from issgd_cli.config.config import Config
from tests.masters import Hired, refresh, relaxed, report, score_chunk, score_everything

Configured = Callable[..., Config]


def test_sgd_draws_uniformly_whatever_the_table_says(hired: Hired, configured: Configured) -> None:
    master = hired(relaxed(configured, "proposal.method=sgd"))
    score_everything(master.database, 1)
    score_chunk(master.database, 0, 2, 1e6)
    refresh(master)
    assert len(set(master.method.proposal.weights.tolist())) == 1
    _, factors = master.method.proposal.draw(np.random.default_rng(0), 100)
    np.testing.assert_array_equal(factors, 1)
    values = report(master)
    assert values["proposal/entropy"] == pytest.approx(np.log(95))
    assert values["proposal/fallback"] == 0
