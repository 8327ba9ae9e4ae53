"""How old the norms are that a method draws by, against the draws themselves; and what ISSGD is told to set."""

import numpy as np
import pytest
import torch

from issgd_cli.config.config import Config
from issgd_cli.config.validation import resolve
from issgd_cli.equations.alain2015 import Float64s
from issgd_cli.experiments.advice.moment import Moment
from issgd_cli.experiments.advice.ways import PUBLISHING, Draws, Ways
from issgd_cli.methods.blocks import steps_of_block
from issgd_cli.methods.looking import Looking
from issgd_cli.methods.proposal import Proposal
from tests.trials import COSTS, EXAMPLES, SIZE, Drifting, even, forgetting, made, staying


def ways_of(
    norms: Drifting = staying, steps: int = 960, outputs: Drifting = even, noise: float = 1.3, **settings: object
) -> Ways:
    config: Config = resolve({"master": {"minibatch_size": SIZE}, **settings}, "a test")
    trial = made(norms, steps=steps, outputs=outputs, noise=noise)
    return Ways(trial, [Moment(trial, step) for step in trial.moments], config)


@pytest.mark.parametrize("block", [1.0, 0.25])
def test_ages_are_those_of_examples_that_are_drawn_by_blocks(block: float) -> None:
    ways, random = ways_of(proposal={"block": block}), np.random.default_rng(0)
    weights = np.repeat([0.2, 0.6, 1.4, 4.0], EXAMPLES // 4)
    weights /= weights.mean()
    proposal, last, ages = Proposal.of(weights), np.full(EXAMPLES, np.nan), []
    warm = round(40 / block)  # by then all have been drawn
    for number in range(warm + 30):
        start = number * ways.block
        if number >= warm:
            ages.append(start + random.integers(0, ways.block, EXAMPLES) - last)
        drawn, _ = proposal.draw_systematically(random, ways.block * SIZE)
        last[drawn] = [start + place // SIZE for place in range(len(drawn))]
    found = np.mean(ages, axis=0).reshape(4, -1)
    assert np.isnan(found).mean() < 0.01
    predicted = np.mean([ways._since_drawn(weights, random) for _ in range(30)], axis=0).reshape(4, -1)
    np.testing.assert_allclose(np.nanmean(found, 1), predicted.mean(1), rtol=0.08)


def test_what_is_said_of_issgd_can_be_pasted_and_is_a_configuration() -> None:
    for way in ways_of(forgetting).others():
        config = resolve({section: dict(keys) for section, keys in way.settings.items()}, "advice")
        assert config.proposal.method == way.settings["proposal"]["method"]
        if way.workers:
            assert config.worker.count == way.workers
            assert config.master.publish_every_steps in PUBLISHING
            assert config.proposal.smoothing == "second-moment"
            assert config.worker.pull_every_chunks == 1


def test_issgd_is_told_a_block_that_it_is_predicted_with() -> None:
    for norms, blocks in ((staying, {40}), (forgetting, {16, 40})):
        for workers in (1, 16):
            way = ways_of(norms, steps=9600).served(workers)
            config = resolve({section: dict(keys) for section, keys in way.settings.items()}, "advice")
            config = config.model_copy(update={"master": config.master.model_copy(update={"minibatch_size": SIZE})})
            assert steps_of_block(config, EXAMPLES) in blocks


def test_looks_are_of_the_methods_own_sizes_where_they_pay_after_four_epochs() -> None:
    norms = staying(0) ** 2

    def outputs(step: int) -> Float64s:
        return norms

    ways = ways_of(outputs, outputs=outputs)  # moments 80, 240, ...; an epoch has 40 steps
    first, *others = ways.looking().draws
    np.testing.assert_array_equal(first.weights, 1.0)
    assert first.beside == (0, 0)
    method = Looking(resolve({"proposal": {"method": "looking"}}, "a test"), EXAMPLES, torch.device("cpu"))
    method.moments = torch.tensor([1.0, norms.mean(), (norms**2).mean()], dtype=torch.float64)
    looked_at, trained = method.sizes(SIZE)
    for draws in others:
        assert (draws.looked_at, draws.trained) == (looked_at / SIZE, trained / SIZE)
        assert draws.beside.work == pytest.approx((looked_at + 3 * trained) / (3 * SIZE) - 1)
        assert draws.beside.seconds == pytest.approx(trained / SIZE + 0.4 * looked_at / SIZE - 1)
        np.testing.assert_allclose(draws.weights, 0.9 * norms / norms.mean() + 0.1)
    for plain in (
        ways_of(outputs, outputs=outputs, noise=0.1),
        ways_of(),
    ):  # noise holds up too little; outputs are even
        assert all(draws.beside == (0, 0) for draws in plain.looking().draws)


def test_a_minibatch_has_the_variance_of_its_two_draws() -> None:
    draws = Draws(np.ones(2), trained=0.25, looked_at=4.0)
    assert draws.variance(np.array(0.1)) == pytest.approx(1 / 4 + 0.1 / 0.25)
    assert Draws(np.ones(2)).variance(np.array(0.7)) == 0.7


def test_larger_minibatches_have_what_the_second_run_had() -> None:
    way = ways_of().larger()
    assert way.label == "reshuffled-100"
    assert [draws.variance(np.array(1.0)) for draws in way.draws] == pytest.approx([0.5] * 6)
    assert [draws.beside for draws in way.draws] == [(1.0, 1.0)] * 6


def test_where_norms_stay_nothing_is_published_oftener_than_it_must_be() -> None:
    ways = ways_of(steps=9600)
    assert {way.settings["master"]["publish_every_steps"] for way in ways.others() if way.workers} == {256}


def test_workers_share_the_training_examples_of_a_sweep() -> None:
    one, two = (ways_of().served(workers) for workers in (1, 2))
    epoch = EXAMPLES / SIZE
    assert one.sweep_steps == pytest.approx(epoch * 0.6 * 22 / 20)
    assert two.sweep_steps == pytest.approx(epoch * 0.6 * 22 / 20 / 2)
    assert [way.draws[0].beside for way in (one, two)] == [
        pytest.approx((workers * 0.7 / 0.6, workers)) for workers in (1, 2)
    ]


def test_a_network_whose_minibatches_have_no_norms_is_not_drawn_by_them() -> None:
    trial = made(staying, costs=COSTS._replace(norms=None))
    config = resolve({"master": {"minibatch_size": SIZE}}, "a test")
    labels = [way.label for way in Ways(trial, [Moment(trial, step) for step in trial.moments], config).others()]
    assert "second-moment" not in labels
    assert "online" in labels
