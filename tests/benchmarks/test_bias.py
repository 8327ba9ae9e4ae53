"""The page of OMIS's bias: its short cut lists every draw, and what is kept is what is found."""

import itertools
from functools import partial

import numpy as np
import pytest

from tests.benchmarks import bias


@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("ridge", [1e-3, 0.1])
def test_draws_whatever_their_order_are_all_draws(draws: int, ridge: float) -> None:
    given = bias.problem(3, draws)
    by = np.repeat([0, 1], draws)
    mean, error, chance_of_all = np.zeros(2), 0.0, 0.0
    for drawn in itertools.product(range(bias.EXAMPLES), repeat=2 * draws):
        chance = float(given.chances[by, list(drawn)].prod())
        found = bias.optimal(given, list(drawn), ridge)
        mean, chance_of_all = mean + chance * found, chance_of_all + chance
        error += chance * float(np.square(found - given.mean).sum())
    assert chance_of_all == pytest.approx(1)
    listed = bias.listed(given, partial(bias.optimal, given, ridge=ridge))
    norm = np.linalg.norm(given.mean)
    assert listed.bias == pytest.approx(np.linalg.norm(mean - given.mean) / norm)
    assert listed.error == pytest.approx(error / norm**2)


def test_the_balance_heuristic_has_no_bias() -> None:
    for seed in range(3):
        given = bias.problem(seed, 2)
        assert bias.listed(given, partial(bias.balance, given)).bias < 1e-12


def test_a_chain_of_draws_tells_what_the_list_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bias, "MINIBATCHES", 1500)
    given = bias.problem(3, 2)
    exact = bias.listed(given, partial(bias.balance, given))
    found = bias.chained(given, 3, 0.01)
    assert found[bias.MIS].error == pytest.approx(exact.error, rel=0.25)
    averaged = (1 - bias.BETA) / (1 + bias.BETA)
    assert found[f"{bias.MIS} + momentum"].error == pytest.approx(averaged * exact.error, rel=0.35)


def test_what_is_kept_is_what_is_found() -> None:
    kept = (bias.RESULTS / "README.md").read_text()
    for row in bias.table([1]):
        assert f"| {' | '.join(row)} |" in kept
