"""What is predicted of trials whose law of drift is known, and the equation that it rests on."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from issgd_cli.config.config import Config
from issgd_cli.config.validation import resolve
from issgd_cli.equations import alain2015
from issgd_cli.experiments.advice.forecast import PAYS, Advice, Forecast, advice
from issgd_cli.experiments.advice.moment import Moment
from issgd_cli.experiments.advice.trial import Costs
from tests.trials import EXAMPLES, SIZE, even, forgetting, made, staying

CONFIG: Config = resolve({"master": {"minibatch_size": SIZE}}, "a test")


def of(told: Advice, label: str) -> Forecast:
    """The forecast of a method, by its label."""
    return next(one for one in (told.uniform, told.ideal, *told.others) if one.way.label == label)


def test_a_minibatch_has_the_expected_square_that_the_prediction_is_made_of() -> None:
    """By enumeration of all minibatches of two draws from three examples: ||g||^2 + Tr_q / B."""
    gradients = np.array([[1.0, 2.0], [-0.5, 1.0], [3.0, 0.0]])
    q, true = np.array([0.5, 0.2, 0.3]), gradients.mean(0)
    expected = 0.0
    for drawn in itertools.product(range(3), repeat=2):
        mean = np.mean([gradients[i] / (3 * q[i]) for i in drawn], axis=0)
        expected += np.prod(q[list(drawn)]) * mean @ mean
    squares = (gradients**2).sum(1)
    assert expected == pytest.approx(true @ true + alain2015.trace_of_covariance(squares, q, true @ true) / 2)


@pytest.mark.parametrize("noise", [1.0, 0.4])
def test_steps_are_in_proportion_to_the_noise_as_far_as_that_holds_them_up(noise: float) -> None:
    trial = made(staying, gradient_norm2=0.02, noise=noise)
    told = advice(trial, CONFIG)
    moment = Moment(trial, trial.moments[0])
    assert moment.noise_share == pytest.approx(1 - 0.02 / (0.02 + moment.trace(moment.uniform) / SIZE))
    for one in (told.uniform, told.ideal, *told.others):
        traces = [
            alain2015.trace_of_covariance(trial.measures[step].norms ** 2, weights, 0.02)
            / alain2015.uniform_trace(trial.measures[step].norms ** 2, 0.02)
            for step, weights in zip(trial.moments, one.way.weights, strict=True)
        ]
        assert one.trace == pytest.approx(np.mean(traces))
        assert one.time == pytest.approx(1 - noise * (1 - np.mean(traces)))


def test_even_norms_advise_uniform_draws() -> None:
    told = advice(made(even), CONFIG)
    assert told.choice is told.uniform
    assert told.quickest is None
    assert "too even" in told.because
    for one in (told.uniform, told.ideal, *told.others):
        assert one.trace == pytest.approx(1.0, abs=1e-3)
        assert one.time == pytest.approx(1.0, abs=1e-3)
        assert one.work == pytest.approx((1 + one.way.beside) * one.time)
        assert one.interval == pytest.approx((one.work, one.work), rel=1e-3)


def test_uneven_norms_that_stay_bring_nearly_the_ideal_gain() -> None:
    told = advice(made(staying), CONFIG)
    exact = alain2015.ideal_trace(staying(0) ** 2, 0) / alain2015.uniform_trace(staying(0) ** 2, 0)
    assert told.ideal.trace == pytest.approx(exact)
    for label in ("second-moment", "issgd-8"):
        one = of(told, label)
        late = one.trace_by_moment[-1]
        assert exact <= late < 1.15 * exact  # three in ten of the draws are uniform
        assert one.time == pytest.approx(one.trace)  # all is noise
        assert one.work == pytest.approx(one.time * (1 + one.way.beside))
    assert told.choice is of(told, "second-moment")
    assert told.choice.interval.high < 1 - PAYS
    assert told.quickest is None  # workers would save no time that is not saved without


def test_by_their_outputs_examples_are_drawn_by_output_norms_alone() -> None:
    told = advice(made(staying, outputs=lambda step: staying(step) / 2), CONFIG)
    late = of(told, "online").trace_by_moment[-1]  # half the norms, plus little: the same draws
    assert late == pytest.approx(told.ideal.trace, rel=0.02)


def test_norms_that_forget_at_once_advise_uniform_draws() -> None:
    told = advice(made(forgetting, outputs=forgetting), CONFIG)
    assert told.ideal.trace < 0.45
    assert told.choice is told.uniform
    assert "go stale too fast" in told.because
    assert of(told, "second-moment").trace == pytest.approx(1.0, abs=0.02)  # smoothed to uniform draws
    assert of(told, "online").trace > 2  # unsmoothed, they do harm


def test_where_noise_does_not_limit_there_is_nothing_to_gain() -> None:
    told = advice(made(staying, noise=0.02), CONFIG)
    assert told.ideal.trace < 0.45
    assert told.ideal.time == pytest.approx(1 - 0.02 * (1 - told.ideal.trace))
    assert told.choice is told.uniform
    assert "noise holds nothing up" in told.because


def test_a_loss_that_does_not_fall_tells_nothing() -> None:
    trial = made(staying)
    flat = {step: one._replace(loss=2 - step / 1e5) for step, one in trial.measures.items()}
    told = advice(replace(trial, measures=flat, quieter={step: one.loss for step, one in flat.items()}), CONFIG)
    assert told.choice is told.uniform
    assert told.noise == []
    assert "tells nothing" in told.because


def test_norms_that_cost_too_much_do_not_pay() -> None:
    dear = Costs(0.01, 5.0, 2.0)
    assert "from an epoch ago" in advice(made(forgetting, costs=dear), CONFIG).because
    told = advice(made(staying, costs=dear), CONFIG)
    assert told.choice is told.uniform
    assert "norms cost what they bring: second-moment" in told.because
    assert told.quickest is not None  # with devices to spare it pays, in time alone
    assert told.quickest.time < 0.6
    assert told.quickest.work > 1


def test_the_first_epoch_is_reshuffled_and_examples_not_scored_yet_have_the_mean_weight() -> None:
    told = advice(made(staying, steps=96), CONFIG)  # moments 8, 24, 40, ...; an epoch has 40 steps
    early = of(told, "second-moment").trace_by_moment
    assert early[:2] == (1.0, 1.0)
    assert early[2] < 0.5
    slow = of(advice(made(staying, costs=Costs(0.01, 60.0, 0.03), steps=96), CONFIG), "issgd-1")
    assert slow.way.sweep_steps == pytest.approx(40 * 60 * 22 / 20)
    assert slow.trace == pytest.approx(1.0, abs=0.05)  # hardly anything is scored within the trial


def test_what_comes_after_the_trial_is_as_at_its_last_moment() -> None:
    told = advice(made(staying, steps=96, planned=960), CONFIG)
    assert told.parts.sum() == pytest.approx(1.0)
    assert told.parts[-1] == pytest.approx(0.9 + 0.1 / 6)
    one = of(told, "second-moment")
    assert one.time == pytest.approx(float(told.parts @ one.trace_by_moment))


def test_forecasts_are_within_their_intervals_which_noise_that_differs_widens() -> None:
    trial = made(staying, gradient_norm2=0.01, noise=0.5)
    told = advice(trial, CONFIG)
    last = trial.measures[trial.moments[-1]]
    lower = {**trial.measures, last.step: last._replace(loss=last.loss - 0.1)}
    other = advice(replace(trial, measures=lower), CONFIG)
    for one in (told.ideal, *told.others):
        if one.trace < 0.99:
            assert one.interval.low < one.work < one.interval.high
    assert told.noise == pytest.approx([0.5] * 3)
    assert other.noise[-1] < 0.4
    widths = [found.ideal.interval.high - found.ideal.interval.low for found in (told, other)]
    assert widths[0] < widths[1]


def test_gradients_that_have_all_vanished_advise_uniform_draws() -> None:
    told = advice(made(lambda step: np.zeros(EXAMPLES)), CONFIG)
    assert told.choice is told.uniform
    assert [one.trace for one in (told.uniform, told.ideal)] == pytest.approx([1.0, 1.0])


def test_the_same_trial_and_seed_give_the_same_advice_and_another_seed_another() -> None:
    trial = made(staying)
    first, again = (advice(trial, CONFIG) for _ in range(2))
    other = advice(trial, CONFIG.model_copy(update={"seed": 1}))
    told = [[(one.work, one.interval) for one in found.others] for found in (first, again, other)]
    assert told[0] == told[1] != told[2]
