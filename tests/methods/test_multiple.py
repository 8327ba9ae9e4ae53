"""Multiple importance sampling: no bias given the tables, over every draw of a tiny problem; what the tables learn."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli.actors.master import Master
from issgd_cli.config.config import Config
from issgd_cli.database import Split as SplitName
from issgd_cli.database.memory import MemoryDatabase
from issgd_cli.datasets.prepared import Prepared, Split
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.errors import ConfigError
from issgd_cli.losses.squared import squared
from issgd_cli.methods.method import Drawn, Seen
from issgd_cli.methods.multiple import Multiple
from issgd_cli.methods.online import Online
from issgd_cli.methods.optimal import Optimal
from issgd_cli.methods.proposal import FLOOR
from issgd_cli.methods.reshuffled import Reshuffled
from issgd_cli.problem import Problem
from issgd_cli.runs.folder import RunFolder
from tests.draws import fixed, seen_of
from tests.masters import Hired, refresh, relaxed, train

Configured = Callable[..., Config]
NewFolder = Callable[[str], RunFolder]

CPU = torch.device("cpu")
EXAMPLES = 4
IMPORTANCES = np.array([[0.3, 1.1, 1e-6, 0.7], [2.0, 0.1, 0.4, 1e-6]])
GRADIENTS = np.random.default_rng(0).normal(0.5, 1.0, (EXAMPLES, 3)) * np.array([[0.1], [1.0], [10.0], [1.0]])


def method(configured: Configured, *settings: str, size: int = 3, examples: int = EXAMPLES) -> Multiple:
    settings = "proposal.method=mis", "mis.proposals=2", f"master.minibatch_size={size}", *settings
    return Multiple(configured(*settings), examples, CPU)


def filled(one: Multiple, importances: Float64s = IMPORTANCES) -> Multiple:
    one.recall(one.learned() | {"importances": importances.copy(), "is_filled": np.array(True)})
    return one


def learn(one: Multiple, step: int, indices: list[int], outputs: Any) -> Float64s:
    """It learns of these examples' logits; their gradients by the outputs, absolute, shape (classes, B)."""
    seen = seen_of(outputs)
    one.learn(step, Drawn(torch.tensor(indices), torch.ones(len(indices))), seen, None)
    return np.asarray(seen.output_gradients().abs().T, np.float64)


@pytest.mark.parametrize(("counts", "by"), [("[]", [0, 0, 1]), ("[1, 2]", [0, 1, 1])])
def test_given_the_tables_the_expected_gradient_is_the_mean_of_all(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, counts: str, by: list[int]
) -> None:
    """Listed: two draws by one proposal and one by the other, each of which next to never draws somebody."""
    one = filled(method(configured, f"mis.counts={counts}"))
    chances = IMPORTANCES / IMPORTANCES.sum(1, keepdims=True)
    middles = chances.cumsum(1) - chances / 2
    total, chance_of_all = np.zeros(3), 0.0
    for minibatch in itertools.product(range(EXAMPLES), repeat=3):
        chosen = np.array(minibatch)
        places = fixed(middles[by, chosen])
        monkeypatch.setattr("issgd_cli.methods.multiple.generator", lambda *key, places=places: places)
        drawn = one.draw(5, 3)
        assert drawn.indices.tolist() == list(minibatch)
        (coefficients,) = one.weigh(drawn, seen_of(np.zeros((3, 2)))).double().numpy()
        chance = chances[by, chosen].prod()
        total, chance_of_all = total + chance * (coefficients @ GRADIENTS[chosen]), chance_of_all + chance
    assert chance_of_all == pytest.approx(1)
    np.testing.assert_allclose(total, GRADIENTS.mean(0), rtol=1e-6)


def test_of_one_proposal_the_draws_and_factors_are_those_of_online(configured: Configured) -> None:
    one = filled(method(configured, "mis.proposals=1", size=40), IMPORTANCES[:1])
    other = Online(configured("proposal.method=online", "master.minibatch_size=40"), EXAMPLES, CPU)
    other.recall({"importances": IMPORTANCES[0].copy(), "is_filled": np.array(True)})
    drawn, expected = one.draw(7, 40), other.draw(7, 40)
    assert torch.equal(drawn.indices, expected.indices)
    torch.testing.assert_close(drawn.factors, expected.factors)
    seen = seen_of(np.random.default_rng(0).normal(0, 1, (40, 2)))
    for each in (one, other):
        each.learn(7, drawn, seen, None)
    np.testing.assert_allclose(one.learned()["importances"][0], other.learned()["importances"])


def test_the_mixture_is_what_a_minibatch_is_of_on_average(configured: Configured) -> None:
    one = method(configured)
    assert one.weights_in_use().tolist() == [1] * EXAMPLES
    chances = IMPORTANCES / IMPORTANCES.sum(1, keepdims=True)
    np.testing.assert_allclose(filled(one).weights_in_use(), 2 * chances[0] + chances[1])
    many = np.concatenate([one.draw(step, 3).indices for step in range(1500)])
    np.testing.assert_allclose(np.bincount(many, minlength=4) / 1500, one.weights_in_use(), atol=0.08)


# The tables


def test_the_first_epoch_is_reshuffled_and_fills_the_tables_whose_epochs_end_within_a_minibatch(
    configured: Configured,
) -> None:
    one = method(configured, "mis.alpha=0.3", "mis.epsilon=0.25", size=2, examples=5)
    plain, expected = Reshuffled(one.config, 5, CPU), np.zeros((2, 5))
    for step in range(3):  # the third minibatch ends the epoch, and reaches beyond it
        drawn, same = one.draw(step, 2), plain.draw(step, 2)
        assert drawn.indices.tolist() == same.indices.tolist()
        assert drawn.factors.tolist() == [1, 1]
        assert not one.is_filled
        outputs = [[step, 0.0, 0.1], [0.5, step, 1.0]]
        gradients = learn(one, step, drawn.indices.tolist(), outputs)
        # Of three outputs the first proposal is for two.
        expected[:, drawn.indices] = np.hypot(gradients[0], gradients[1]), gradients[2]
    np.testing.assert_allclose(one.learned()["importances"], expected + 0.25, rtol=1e-6)
    assert one.is_filled


def test_each_of_the_drawn_moves_in_all_tables(configured: Configured) -> None:
    one = filled(method(configured, "mis.alpha=0.3", "mis.outputs=first"))
    found = learn(one, 4, [1, 1, 3], [[2.0, 0.0, 9.0], [2.0, 0.0, 9.0], [0.0, 1.0, 0.0]])
    moved = IMPORTANCES.copy()
    moved[:, [1, 3]] = 0.3 * IMPORTANCES[:, [1, 3]] + 0.7 * found[:2, 1:]
    np.testing.assert_allclose(one.learned()["importances"], moved)


def test_an_importance_of_zero_can_still_be_drawn(configured: Configured) -> None:
    one = filled(method(configured, "mis.alpha=0", "mis.epsilon=0.5"))
    learn(one, 4, [2, 3], [[2000.0, 0.0], [1.0, 0.0]])
    assert one.learned()["importances"][:, 2].tolist() == [FLOOR * 0.5] * 2
    assert one.draw(5, 1000).factors.isfinite().all()


def test_a_loss_that_is_no_number_leaves_the_tables_alone(configured: Configured) -> None:
    one = filled(method(configured))
    learn(one, 4, [2, 3], [[np.nan, 0.0], [np.inf, 0.0]])
    np.testing.assert_array_equal(one.learned()["importances"], IMPORTANCES)


# What the proposals are for


@pytest.fixture
def points() -> Prepared:
    """Of a line with noise, 95 for training."""
    random = np.random.default_rng(0)

    def of(count: int) -> Split:
        x = random.uniform(-2, 2, (count, 1)).astype(np.float32)
        return Split(x, (1 - x + 0.3 * random.standard_normal((count, 1))).astype(np.float32))

    splits: dict[SplitName, Split] = {"train": of(95), "valid": of(5), "test": of(23)}
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    return Prepared("points", splits, zero, one, 1, "points", (1,), targets="numbers")


def of_one_output(last_inputs: Float64s | None) -> Seen:
    outputs, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [5.0]])
    given = None if last_inputs is None else torch.from_numpy(last_inputs)
    return Seen(squared(outputs, targets), outputs, targets, squared, given)


def test_of_one_output_of_what_is_known_the_proposals_are_by_its_weights(configured: Configured) -> None:
    """The polynomial's: |r| |x|^j."""
    powers = np.array([[1.0, -2.0, 4.0], [1.0, 0.5, 0.25]])
    residuals = np.array([2.0, 4.0])
    first = method(configured, "mis.outputs=first").found(of_one_output(powers)).numpy()
    np.testing.assert_allclose(first, [residuals, residuals * [2.0, 0.5]])
    shared = method(configured).found(of_one_output(powers)).numpy()
    np.testing.assert_allclose(shared, [residuals * np.sqrt([5.0, 1.25]), residuals * [4.0, 0.25]])
    one = method(configured, "mis.proposals=1").found(of_one_output(powers)).numpy()
    np.testing.assert_allclose(one, [residuals])  # of an output each, where there are enough


def test_more_proposals_than_outputs_are_refused(configured: Configured) -> None:
    with pytest.raises(ConfigError, match=r"mis\.proposals = 2 is more than the network's 1 outputs"):
        method(configured).found(of_one_output(None))
    with pytest.raises(ConfigError, match=r"mis\.proposals = 3 is more than the network's 2 outputs"):
        method(configured, "mis.proposals=3").found(of_one_output(np.ones((2, 2))))


def test_a_polynomials_proposals_are_by_its_powers_in_a_run(
    configured: Configured, points: Prepared, begun: Callable[[Config], MemoryDatabase], new_folder: NewFolder
) -> None:
    """By what its network tells, with mis and omis alike; the first step without it is refused."""
    for name in ("mis", "omis"):
        of_points = "model.network=polynomial", "model.loss=squared", "polynomial.order=3", f"proposal.method={name}"
        config = relaxed(configured, *of_points, f"{name}.proposals=4", f"{name}.outputs=first")
        master = Master.of(config, Problem(config, points), begun(config), new_folder(name), CPU)
        refresh(master)
        drawn = master.method.draw(0, 8)
        before = master.learner.parameters.clone()
        train(master)
        inputs, targets = master.examples[drawn.indices]
        powers = inputs.reshape(-1, 1) ** torch.arange(4)
        expected = 2 * (powers @ before[:, None] - targets.reshape(-1, 1)).abs() * powers.abs()
        found = master.method.learned()["importances"][:, drawn.indices]
        np.testing.assert_allclose(found, expected.T, rtol=1e-4, atol=1e-6)
        for _ in range(30):
            assert train(master).isfinite()
        five = relaxed(configured, *of_points, f"{name}.proposals=5")
        other = Master.of(five, Problem(five, points), begun(five), new_folder(f"{name}-5"), CPU)
        refresh(other)
        with pytest.raises(ConfigError, match=rf"{name}\.proposals = 5 is more than the network's 4 outputs"):
            train(other)


def test_a_run_with_more_proposals_than_classes_is_refused_at_its_first_step(
    hired: Hired, configured: Configured
) -> None:
    master = hired(relaxed(configured, "proposal.method=omis", "omis.proposals=4"))
    refresh(master)
    with pytest.raises(ConfigError, match=r"omis\.proposals = 4 is more than the network's 3 outputs.*= 3 or lower"):
        train(master)


def test_more_proposals_than_a_minibatch_has_draws_are_refused(configured: Configured) -> None:
    with pytest.raises(ConfigError, match=r"mis\.proposals = 4 is more than master\.minibatch_size = 3"):
        method(configured, "mis.proposals=4")


@pytest.mark.parametrize("given", ["alpha=-0.1", "alpha=1.1", "epsilon=0", "proposals=0", "outputs=last"])
def test_settings_out_of_range_are_refused_by_their_name(configured: Configured, given: str) -> None:
    with pytest.raises(ConfigError, match=rf"mis\.{given.partition('=')[0]}"):
        configured("proposal.method=mis", f"mis.{given}")


@pytest.mark.parametrize("counts", ["[1, 1]", "[3]", "[1, 1, 1]", "[2, 2]"])
@pytest.mark.parametrize("name", ["mis", "omis"])
def test_counts_that_do_not_make_the_minibatch_are_refused(configured: Configured, name: str, counts: str) -> None:
    kind = Multiple if name == "mis" else Optimal
    settings = f"proposal.method={name}", f"{name}.proposals=2", f"{name}.counts={counts}", "master.minibatch_size=3"
    with pytest.raises(
        ConfigError, match=rf"(?<!\w){name}\.counts = .* must be 2 numbers.* a minibatch of 3; they make"
    ):
        kind(configured(*settings), EXAMPLES, CPU)
