"""Plain SGD: uniform, whatever the table says, and so unbiased."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from issgd_cli.config.config import Config
from issgd_cli.methods.sgd import SGD
from tests.draws import EXAMPLES, expected_estimate, tiny_gradients, tiny_table
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


def test_the_expected_gradient_is_the_mean_of_all(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed: all 36 minibatches of two."""
    method, gradients = SGD(configured("proposal.method=sgd"), EXAMPLES, torch.device("cpu")), tiny_gradients()
    for _ in ("before the first look at the table", "after it"):
        expected = expected_estimate(method, 2, gradients, monkeypatch)
        np.testing.assert_allclose(expected, gradients.mean(0), rtol=1e-6, atol=1e-6)
        method.adopt(method.refreshed(tiny_table()))
