"""LOW: its weights solve the programme that they are said to, whatever the gradients."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from issgd_cli.config.config import Config
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import ConfigError
from issgd_cli.methods.low import LOW, optimal_weights
from issgd_cli.methods.method import Drawn
from tests.draws import EXAMPLES, seen_of, tiny_gradients

Configured = Callable[..., Config]


@pytest.mark.parametrize("strength", [0.02, 0.1, 5.0])
def test_the_weights_minimise_the_papers_programme(strength: float) -> None:
    g2 = np.array([0.9, 0.1, 0.4, 0.0, 0.35])

    def objective(w: np.ndarray) -> float:
        return float(strength * w @ w - (g2 + strength) @ w)

    constraint = {"type": "eq", "fun": lambda w: w.sum() - 5}
    best = minimize(objective, np.ones(5), bounds=[(0, None)] * 5, constraints=constraint, options={"ftol": 1e-12})
    np.testing.assert_allclose(optimal_weights(torch.from_numpy(g2), strength), best.x, atol=1e-4)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.floats(1e-3, 1e3))
@settings(max_examples=100, deadline=None)
def test_weights_are_none_negative_sum_to_the_size_and_follow_the_gradients(values: list[float], size: float) -> None:
    weights = optimal_weights(torch.tensor(values, dtype=torch.float64), size).numpy()
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(len(values))
    assert (np.diff(weights[np.argsort(values)]) >= -1e-9).all()


def test_even_gradients_weigh_as_sgds_do_and_others_make_it_biased(configured: Configured) -> None:
    method = LOW(configured("proposal.method=low"), EXAMPLES, torch.device("cpu"))
    drawn = method.draw(0, 4)
    even = method.weigh(drawn, seen_of(np.zeros((4, 2))))
    torch.testing.assert_close(even, torch.full((1, 4), 0.25))
    (tilted,) = method.weigh(drawn, seen_of([[0.0, 0.0], [0.0, 0.5], [1.0, 0.0], [0.0, 0.0]]))
    assert float(tilted.sum()) == pytest.approx(1)
    assert tilted[1] > tilted[0] == tilted[3] > tilted[2]


def test_its_expected_gradient_leans_to_examples_of_large_gradients_but_where_all_are_as_large(
    configured: Configured,
) -> None:
    """All 36 minibatches of two, each as likely."""
    method, gradients = LOW(configured("proposal.method=low"), EXAMPLES, torch.device("cpu")), tiny_gradients()

    def expected(outputs: Float64s) -> Float64s:
        total = np.zeros(gradients.shape[1])
        for pair in itertools.product(range(EXAMPLES), repeat=2):
            chosen = list(pair)
            drawn = Drawn(torch.tensor(chosen), torch.ones(2))
            (coefficients,) = method.weigh(drawn, seen_of(outputs[chosen])).double().numpy()
            total += coefficients @ gradients[chosen] / EXAMPLES**2
        return total

    np.testing.assert_allclose(expected(np.zeros((EXAMPLES, 2))), gradients.mean(0), rtol=1e-6)
    outputs = np.zeros((EXAMPLES, 2))
    outputs[2, 1] = 5.0  # of class 0 all the same: of much the largest gradient
    # It takes all of a minibatch that it is in, for the others' gradients are smaller by more than twice lambda.
    in_it = 1 - (1 - 1 / EXAMPLES) ** 2
    without = np.delete(gradients, 2, 0).mean(0)
    np.testing.assert_allclose(expected(outputs), in_it * gradients[2] + (1 - in_it) * without, rtol=1e-5)


@pytest.mark.parametrize("given", ["strength=0", "strength=-1", "strength=inf"])
def test_a_strength_that_is_none_is_refused(configured: Configured, given: str) -> None:
    with pytest.raises(ConfigError, match=r"low\.strength"):
        configured("proposal.method=low", f"low.{given}")
