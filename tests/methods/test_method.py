"""What every method does alike: it smooths as told, reports on what it draws from, and goes on from its state."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from issgd_cli.actors.saving import recalled
from issgd_cli.config.config import Config
from issgd_cli.equations.alain2015 import effective_sample_size, entropy
from issgd_cli.errors import DamagedError, WeightError
from issgd_cli.methods.looking import Looking
from issgd_cli.methods.method import Method
from issgd_cli.methods.proposal import FLOOR
from issgd_cli.methods.smoothing import entropy_constant, variance_optimal_constant
from issgd_cli.methods.trials import Trials
from issgd_cli.registries import METHODS
from tests.draws import EXAMPLES, seen_of, tiny_table
from tests.masters import Hired, in_use, poison, refresh, relaxed, report, score_chunk, score_everything

Configured = Callable[..., Config]


def test_the_report_tells_of_the_proposal_in_use(hired: Hired, configured: Configured, clock: list[float]) -> None:
    master = hired(relaxed(configured, "proposal.smoothing=0", "proposal.limit_mode=drop"))
    for number in range(5):  # chunks of 10 of 95 examples
        score_chunk(master.database, number, 1, [0.0] + [1.0 + number] * 9)
        clock[0] += 1
    master.publishing.version = 4  # version 3 was published last
    master.learner.step = 6
    refresh(master)
    values, omega = report(master), master.method.proposal.weights
    assert (master.database.get("proposal") or {})["step"] == 6
    assert values["proposal/entropy"] == pytest.approx(entropy(omega))
    assert values["proposal/effective_sample_size"] == pytest.approx(effective_sample_size(omega))
    assert values["proposal/kept_fraction"] == pytest.approx(50 / 95)
    assert values["proposal/floored"] == 5
    assert omega[0] == pytest.approx(FLOOR * 2.7)
    assert values["staleness/mean_seconds"] == pytest.approx(3.0)
    assert values["staleness/max_seconds"] == pytest.approx(5.0)
    assert values["staleness/mean_versions"] == pytest.approx(2.0)


@pytest.mark.parametrize("setting", ["entropy:0.99", "variance-optimal"])
def test_the_adaptive_smoothings_learn_from_the_table(hired: Hired, configured: Configured, setting: str) -> None:
    master = hired(relaxed(configured, f"proposal.smoothing={setting}"))
    for version in (1, 2):
        score_everything(master.database, version)
    refresh(master)
    table = master.database.weights()
    norms, previous = table.norms.astype(np.float64), table.previous_norms.astype(np.float64)
    by_entropy, by_variance = entropy_constant(norms, 0.99), variance_optimal_constant(previous, norms)
    expected = by_entropy if setting == "entropy:0.99" else by_variance
    assert expected > 0
    assert in_use(master).smoothing == expected
    np.testing.assert_allclose(master.method.proposal.weights, norms + expected)


def test_a_norm_that_is_no_number_ends_the_run(hired: Hired, configured: Configured) -> None:
    master = hired(relaxed(configured))
    score_everything(master.database, 1)
    poison(master.database)
    with pytest.raises(WeightError, match="NaN"):
        refresh(master)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (["proposal.method=issgd", "proposal.smoothing=1"], " or raise `proposal.smoothing`"),
        (["proposal.method=issgd", "proposal.smoothing=second-moment"], ""),
        (["proposal.method=issgd", "proposal.smoothing=variance-optimal"], ""),
        (["proposal.method=issgd", "proposal.smoothing=entropy:0.9"], ""),
        (["proposal.method=second-moment"], " or raise `second-moment.uniform`"),
        (["proposal.method=looking"], " or raise `looking.uniform`"),
        (["proposal.method=online"], ""),
        (["proposal.method=sgd"], ""),
        (["proposal.method=reshuffled"], ""),
    ],
)
def test_a_run_that_diverged_is_told_what_its_method_reads(
    hired: Hired, configured: Configured, settings: list[str], remedy: str
) -> None:
    master = hired(relaxed(configured, *settings))
    told = str(master.saving.diverged("The loss is not finite", master.method))
    assert f"). Lower `optimizer.learning_rate`{remedy}. There is no checkpoint yet." in told


# State

MOST_STATE = {
    "issgd": ["proposal.limit_mode=fill", "master.reuse_own_norms=true"],
    "pruning": ["pruning.reduction=0.3"],
    "dlis": ["dlis.threshold=1e-9"],
    "looking": ["looking.cost=1.2"],  # a trial of two steps: see `new`
    "omis": ["omis.beta=0"],  # what it remembers needs a network: see its own tests
}


NOTHING = np.zeros((0, 0), np.float32)
BY_PROPOSAL = [name for name, part in METHODS.parts.items() if part.by_proposal]
# Blocks of one step and of two: 6 examples, minibatches of 4.
DRAWS: list[tuple[str, list[str]]] = [(name, []) for name in METHODS] + [
    (name, ["proposal.draws=systematic", f"proposal.block={block}"]) for name in BY_PROPOSAL for block in (0.1, 1.0)
]
every_method = pytest.mark.parametrize(("name", "draws"), DRAWS)


def new(configured: Configured, name: str, *draws: str) -> Method:
    settings = "master.minibatch_size=4", "master.steps=11"
    config = relaxed(configured, f"proposal.method={name}", *settings, *MOST_STATE.get(name, []), *draws)
    method: Method = METHODS[name](config, EXAMPLES, torch.device("cpu"))
    if isinstance(method, Looking):  # else it would not look for four epochs
        method.trials = Trials(under_way=True, losses=np.full(4, 9.0), lowest=9.0)  # and will succeed
    return method


def saved(state: Mapping[str, Any]) -> dict[str, Any]:
    """As a checkpoint gives it back: arrays of their own, of numbers too."""
    return {name: saved(value) if isinstance(value, Mapping) else np.array(value) for name, value in state.items()}


def going_on(method: Method, steps: range) -> list[Any]:
    """Draws, learns, publishes and reads the table, and draws again; all that was drawn and reported."""
    found: list[Any] = []
    for step in steps:
        if step == steps[len(steps) // 2]:
            method.settle(6, 0.5 + step / 100)
            method.adopt(refreshed := method.refreshed(tiny_table()))
            found.append(refreshed.values)
        random, looked = np.random.default_rng(step), None
        if (candidates := method.presample(step, 4)) is not None:
            looked = seen_of(random.normal(0, 3, (len(candidates), 3)))
        drawn = method.draw(step, 4, looked)
        found += [drawn.indices.tolist(), drawn.factors.tolist()]
        size = len(drawn.indices)
        norms = torch.arange(1.0, size + 1) * (step + 1) if method.needs == "norms" else None
        method.learn(step, drawn, seen_of(random.normal(0, 3, (size, 3))), norms)
        found.append(method.weights_in_use().tolist())
    return found


@every_method
def test_a_method_goes_on_from_its_state_to_the_same_bits(configured: Configured, name: str, draws: list[str]) -> None:
    for steps in (1, 2, 3, 5):  # within epochs of six examples
        one, other = new(configured, name, *draws), new(configured, name, *draws)
        going_on(one, range(steps))
        state, learned = saved(one.state()), saved(one.learned())
        assert ("drawn" in state) == (name == "issgd")  # norms of the steps since the last publication
        assert (one.presample(steps, 4) is not None) == (name in ("looking", "dlis"))
        assert not isinstance(one, Looking) or one.trials.succeeded == (steps > 1)
        other.restore(state)
        recalled(other, learned, NOTHING, Path("checkpoint.npz"))
        assert going_on(one, range(steps, 11)) == going_on(other, range(steps, 11))


@every_method
def test_what_a_method_cannot_have_learned_is_refused(configured: Configured, name: str, draws: list[str]) -> None:
    one, path = new(configured, name, *draws), Path("checkpoint.npz")
    learned = saved(one.learned())
    with pytest.raises(DamagedError, match=r"checkpoint\.npz"):
        recalled(one, {**learned, "other": np.zeros(3)}, NOTHING, path)
    for spoilt in learned:
        with pytest.raises(DamagedError, match=r"checkpoint\.npz"):
            recalled(one, {**learned, spoilt: np.zeros((2, 5))}, NOTHING, path)
        if learned[spoilt].dtype.kind in "if":
            with pytest.raises(DamagedError, match=r"checkpoint\.npz"):
                recalled(one, {**learned, spoilt: learned[spoilt] * 0 - 1}, NOTHING, path)


@every_method
def test_a_minibatch_that_is_drawn_again_is_the_same(configured: Configured, name: str, draws: list[str]) -> None:
    """An interrupted run may have drawn the minibatch that it is begun anew with."""
    one = new(configured, name, *draws)
    for step in range(4):
        going_on(one, range(step, step + 1))
        looked = None
        if (candidates := one.presample(step + 1, 4)) is not None:
            looked = seen_of(np.random.default_rng(0).normal(0, 3, (len(candidates), 3)))
        first, second = (one.draw(step + 1, 4, looked) for _ in range(2))
        assert torch.equal(first.indices, second.indices)
        assert torch.equal(first.factors, second.factors)


def test_a_method_goes_on_with_what_it_was_about_to_draw_from(configured: Configured) -> None:
    one, other = new(configured, "issgd"), new(configured, "issgd")
    going_on(one, range(4))
    one.settle(6, 0.9)
    about_to = one.refreshed(tiny_table())
    assert not np.array_equal(about_to.proposal.weights, one.proposal.weights)
    other.restore(saved(one.state(about_to)))
    one.adopt(about_to)
    np.testing.assert_array_equal(other.proposal.weights, one.proposal.weights)
    assert going_on(one, range(4, 9)) == going_on(other, range(4, 9))
