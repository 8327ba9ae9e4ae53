"""OMIS: algorithm 2 by hand; over all draws of a tiny problem biased as it is written, unbiased with the correction."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli.config.config import Config
from issgd_cli.equations import salaun2024
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import ConfigError
from issgd_cli.methods.method import Drawn
from issgd_cli.methods.multiple import Multiple
from issgd_cli.methods.optimal import Optimal
from tests.draws import seen_of
from tests.methods.test_multiple import EXAMPLES, GRADIENTS, IMPORTANCES, filled

Configured = Callable[..., Config]

CPU = torch.device("cpu")
CHANCES = IMPORTANCES / IMPORTANCES.sum(1, keepdims=True)
N = np.array([2.0, 1.0])
MIXTURE = N @ CHANCES
SHARES = CHANCES / MIXTURE


def method(configured: Configured, *settings: str, size: int = 3) -> Optimal:
    settings = "proposal.method=omis", "omis.proposals=2", f"master.minibatch_size={size}", *settings
    one = Optimal(configured(*settings), EXAMPLES, CPU)
    one.remembered = torch.zeros((one.remembers, 3))
    filled(one)
    return one


def minibatches(by: Sequence[int] = (0, 0, 1)) -> Iterator[tuple[list[int], float]]:
    """All of two draws by the first proposal and one by the second, or by these, and their chances."""
    for minibatch in itertools.product(range(EXAMPLES), repeat=3):
        yield list(minibatch), float(CHANCES[list(by), list(minibatch)].prod())


def direction(one: Optimal, indices: list[int]) -> Float64s:
    """What a step descends by, shape (3,), of a network of two parameters."""
    drawn = Drawn(torch.tensor(indices), torch.ones(len(indices)))
    rows = one.weigh(drawn, seen_of(np.zeros((len(indices), 2)))).double().numpy()
    gradients = torch.from_numpy((rows @ GRADIENTS[indices]).astype(np.float32))
    parts = one.combine([gradients[:, :1], gradients[:, 1:].reshape(-1, 1, 2)])
    assert [part.shape for part in parts] == [(1,), (1, 2)]
    return np.concatenate([part.double().numpy().ravel() for part in parts])


def as_written(minibatches: list[list[int]], beta: float) -> Float64s:
    """Algorithm 2 line by line, from nothing: the mean gradient's estimate after these."""
    matrix, b = np.zeros((2, 2)), np.zeros((2, 3))
    for indices in minibatches:
        matrix *= beta
        b *= beta
        for i in indices:
            matrix += (1 - beta) * np.outer(SHARES[:, i], SHARES[:, i])
            b += (1 - beta) * np.outer(SHARES[:, i], GRADIENTS[i]) / MIXTURE[i]
    return np.asarray(np.linalg.solve(matrix, b).sum(0) / EXAMPLES)


@pytest.mark.parametrize("beta", [0, 0.3, 0.7])
def test_it_is_algorithm_2(configured: Configured, beta: float) -> None:
    one = method(configured, f"omis.beta={beta}", "omis.ridge=1e-10")
    taken = [[0, 1, 2], [3, 3, 1], [0, 2, 3], [1, 1, 0]]
    for number, indices in enumerate(taken):
        expected = as_written(taken[: number + 1], beta)
        np.testing.assert_allclose(direction(one, indices), expected, rtol=2e-3, atol=1e-4)


def bias(configured: Configured, *settings: str) -> float:
    """Of its first minibatch, relative to the mean gradient."""
    found = sum(chance * direction(method(configured, *settings), indices) for indices, chance in minibatches())
    return float(np.linalg.norm(found - GRADIENTS.mean(0)) / np.linalg.norm(GRADIENTS.mean(0)))


def test_with_a_matrix_of_the_same_draws_it_is_biased(configured: Configured) -> None:
    """The same at any beta, since at first there is nothing to remember; a ridge takes it away."""
    plain = bias(configured, "omis.beta=0", "omis.ridge=1e-3")
    assert plain > 0.05
    assert bias(configured, "omis.beta=0.7", "omis.ridge=1e-3") == pytest.approx(plain, rel=1e-3)
    assert bias(configured, "omis.beta=0", "omis.ridge=1") < plain
    assert bias(configured, "omis.beta=0", "omis.ridge=1e9") < 1e-5


@pytest.mark.parametrize(("counts", "by"), [("[]", (0, 0, 1)), ("[1, 2]", (0, 1, 1))])
@pytest.mark.parametrize("beta", [0, 0.7])
@pytest.mark.parametrize("before", [[], [[0, 1, 2]], [[3, 3, 3], [1, 0, 0]]])
def test_corrected_it_is_unbiased_whatever_came_before(
    configured: Configured, beta: float, before: list[list[int]], counts: str, by: tuple[int, ...]
) -> None:
    total = np.zeros(3)
    for indices, chance in minibatches(by):
        one = method(configured, "omis.correction=unbiased", f"omis.beta={beta}", f"omis.counts={counts}")
        for earlier in before:
            direction(one, earlier)
        total += chance * direction(one, indices)
    np.testing.assert_allclose(total, GRADIENTS.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta", [0, 0.7])
def test_the_correction_is_the_control_variate_of_the_minibatches_before(configured: Configured, beta: float) -> None:
    one, taken = method(configured, "omis.correction=unbiased", f"omis.beta={beta}"), [[0, 1, 2], [3, 3, 1], [0, 2, 3]]
    matrix, b, weight = np.zeros((2, 2)), np.zeros((2, 3)), 0.0
    for indices in taken:
        a = salaun2024.solution(matrix / weight, b / weight, 0.01) if weight else np.zeros((2, 3))
        expected = salaun2024.control_variate(GRADIENTS[indices], CHANCES[:, indices], MIXTURE[indices], a) / EXAMPLES
        np.testing.assert_allclose(direction(one, indices), expected, rtol=1e-4, atol=1e-5)
        share = SHARES[:, indices]
        matrix, b = beta * matrix + (1 - beta) * share @ share.T, beta * b
        b, weight = b + (1 - beta) * share / MIXTURE[indices] @ GRADIENTS[indices], beta * weight + 1 - beta


def test_with_the_matrix_of_all_it_is_the_balance_heuristic(configured: Configured) -> None:
    """A long memory of A is near it; here it is A itself."""
    one = method(configured, "omis.beta=0.5", "omis.ridge=1e-9")
    exact = salaun2024.exact_matrix(CHANCES, N)
    np.testing.assert_allclose(exact @ N, [1, 1])
    for indices, _ in itertools.islice(minibatches(), 5, 9):
        share = SHARES[:, indices]
        # What the next minibatch's own is mixed into, in equal parts once there are many of them: it is A again.
        one.matrix, one.minibatches = 2 * exact - share @ share.T, 10**6
        b = SHARES @ GRADIENTS / EXAMPLES  # of all
        own = share / MIXTURE[indices] @ GRADIENTS[indices] / EXAMPLES
        # Kept times J n_j.
        one.remembered = torch.from_numpy((2 * N[:, None] * (2 * b - own)).astype(np.float32))
        np.testing.assert_allclose(direction(one, indices), GRADIENTS.mean(0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("given", "rows"), [("beta=0.7", 2), ("correction=unbiased", 2), ("beta=0", 1)])
def test_the_rows_mean_is_the_balance_heuristics_where_it_remembers(
    configured: Configured, given: str, rows: int
) -> None:
    """So that the loss that is told is that of `mis`."""
    one = method(configured, f"omis.{given}")
    assert one.remembers == (rows if rows > 1 else 0)
    assert one.needs == ("rows" if rows > 1 else "outputs")
    balance = filled(Multiple(configured("proposal.method=mis", "mis.proposals=2", "master.minibatch_size=3"), 4, CPU))
    drawn = one.draw(5, 3)
    same = balance.draw(5, 3)
    assert torch.equal(drawn.indices, same.indices)
    found, seen = one.weigh(drawn, seen_of(np.zeros((3, 2)))), seen_of(np.zeros((3, 2)))
    assert found.shape == (rows, 3)
    if rows > 1:
        torch.testing.assert_close(found.mean(0), balance.weigh(same, seen)[0])


def test_the_first_epoch_is_plain_and_leaves_a_and_b_alone(configured: Configured) -> None:
    config = configured("proposal.method=omis", "omis.proposals=2", "master.minibatch_size=3")
    one = Optimal(config, EXAMPLES, CPU)
    one.remembered = torch.zeros((2, 3))
    indices = [0, 2, 1]
    np.testing.assert_allclose(direction(one, indices), GRADIENTS[indices].mean(0), rtol=1e-6)
    assert one.minibatches == 0
    assert not one.remembered.any()


def test_it_goes_on_from_what_it_has_learned_and_remembers_to_the_same_bits(configured: Configured) -> None:
    one, other = method(configured), method(configured)
    for indices in ([0, 1, 2], [3, 3, 1]):
        direction(one, indices)
    other.recall({name: np.array(value) for name, value in one.learned().items()})
    other.remembered.copy_(one.remembered)
    for indices in ([0, 2, 3], [1, 1, 0]):
        np.testing.assert_array_equal(direction(one, indices), direction(other, indices))


def test_a_minibatch_that_is_all_alike_makes_no_trouble(configured: Configured) -> None:
    """A is of rank one, whatever the draws."""
    for given in ("beta=0", "beta=0.7", "correction=unbiased"):
        assert np.isfinite(direction(method(configured, f"omis.{given}"), [2, 2, 2])).all()


@pytest.mark.parametrize("given", ["beta=1", "beta=-0.1", "ridge=0", "alpha=2", "correction=some", "proposals=0"])
def test_settings_out_of_range_are_refused_by_their_name(configured: Configured, given: str) -> None:
    with pytest.raises(ConfigError, match=rf"omis\.{given.partition('=')[0]}"):
        configured("proposal.method=omis", f"omis.{given}")


def test_more_proposals_than_a_minibatch_has_draws_are_refused_by_their_own_name(configured: Configured) -> None:
    with pytest.raises(ConfigError, match=r"omis\.proposals = 4 is more than master\.minibatch_size = 3"):
        method(configured, "omis.proposals=4")


def told(value: Any) -> dict[str, Any]:
    return {"matrix": np.array(value, np.float64)}


@pytest.mark.parametrize("spoilt", [told([[1, 2], [3, 4]]), told([[-1, 0], [0, 1]]), {"minibatches": np.array(-1)}])
def test_what_is_no_matrix_of_minibatches_is_refused(configured: Configured, spoilt: dict[str, Any]) -> None:
    one = method(configured)
    with pytest.raises(ValueError, match="matrix"):
        one.recall({**one.learned(), **spoilt})
