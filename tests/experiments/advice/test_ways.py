"""How old the norms are that a method draws by, against the draws themselves; and what ISSGD is told to set."""

import numpy as np
import pytest

from issgd_cli.config.config import Config
from issgd_cli.config.validation import resolve
from issgd_cli.experiments.advice.moment import Moment
from issgd_cli.experiments.advice.trial import Costs
from issgd_cli.experiments.advice.ways import PUBLISHING, Ways
from issgd_cli.methods.proposal import Proposal
from tests.trials import EXAMPLES, SIZE, Drifting, forgetting, made, staying


def ways_of(norms: Drifting = staying, steps: int = 960, **settings: object) -> Ways:
    config: Config = resolve({"master": {"minibatch_size": SIZE}, **settings}, "a test")
    trial = made(norms, steps=steps)
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


def test_where_norms_stay_nothing_is_published_oftener_than_it_must_be() -> None:
    ways = ways_of(steps=9600)
    assert {way.settings["master"]["publish_every_steps"] for way in ways.others() if way.workers} == {256}


def test_workers_share_the_training_examples_of_a_sweep() -> None:
    one, two = (ways_of().served(workers) for workers in (1, 2))
    epoch = EXAMPLES / SIZE
    assert one.sweep_steps == pytest.approx(epoch * 0.6 * 22 / 20)
    assert two.sweep_steps == pytest.approx(epoch * 0.6 * 22 / 20 / 2)
    assert (one.beside, two.beside) == (1, 2)


def test_a_network_whose_minibatches_have_no_norms_is_not_drawn_by_them() -> None:
    trial = made(staying, costs=Costs(0.01, 0.6, None))
    config = resolve({"master": {"minibatch_size": SIZE}}, "a test")
    labels = [way.label for way in Ways(trial, [Moment(trial, step) for step in trial.moments], config).others()]
    assert "second-moment" not in labels
    assert "online" in labels
