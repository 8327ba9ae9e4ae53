"""What is predicted of trials whose law of drift is known, and the equation that it rests on."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from issgd_cli.config.config import Config
from issgd_cli.config.validation import resolve
from issgd_cli.equations import alain2015
from issgd_cli.experiments.advice.costs import Cost
from issgd_cli.experiments.advice.forecast import PAYS, Advice, Forecast, advice
from issgd_cli.experiments.advice.moment import Moment
from issgd_cli.experiments.advice.noise import steps
from tests.trials import COSTS, EXAMPLES, SIZE, even, forgetting, made, staying

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


@pytest.mark.parametrize("noise", [1.0, 0.4, 1.2])
def test_steps_are_as_noise_holds_them_up_and_work_and_seconds_count_what_is_beside(noise: float) -> None:
    trial = made(staying, gradient_norm2=0.02, noise=noise)
    told = advice(trial, CONFIG)
    moment = Moment(trial, trial.moments[0])
    assert moment.variance_share == pytest.approx(1 - 0.02 / (0.02 + moment.trace(moment.uniform) / SIZE))
    for one in (told.uniform, told.ideal, *told.others):
        variances = [
            1 / draws.looked_at
            + alain2015.trace_of_covariance(trial.measures[step].norms ** 2, draws.weights, 0.02)
            / alain2015.uniform_trace(trial.measures[step].norms ** 2, 0.02)
            / draws.trained
            for step, draws in zip(trial.moments, one.way.draws, strict=True)
        ]
        taken = steps(noise, variances)
        assert one.trace == pytest.approx(np.mean(variances))
        assert one.steps == pytest.approx(np.mean(taken))
        if noise <= 1:
            assert one.steps == pytest.approx(1 - noise * (1 - np.mean(variances)))
        beside = np.array([draws.beside for draws in one.way.draws])
        assert (one.work, one.seconds) == pytest.approx(tuple(np.mean(taken[:, None] * (1 + beside), 0)))
    one = of(told, "second-moment")
    assert (one.work, one.seconds) == pytest.approx((1.01 * one.steps, 1.03 * one.steps))


def test_what_pays_by_operations_and_not_on_this_device_is_not_advised() -> None:
    """Norms that are 1% of a step's operations, and twice its time: whoever waits for them pays."""
    told = advice(made(staying, noise=0.9, costs=COSTS._replace(norms=Cost(0.01, 1.9))), CONFIG)
    assert of(told, "second-moment").work < 0.6
    assert of(told, "second-moment").seconds > 1
    assert told.choice is told.uniform
    assert "norms cost what they bring: second-moment" in told.because


def test_larger_minibatches_take_what_the_second_run_took_and_are_advised_where_they_cost_no_time() -> None:
    for noise in (0.6, 1.2):
        told = advice(made(even, noise=noise, costs=COSTS._replace(larger=Cost(1.0, 0.9))), CONFIG)
        larger = of(told, "reshuffled-100")
        assert larger.steps == pytest.approx(1 - noise / 2)
        assert larger.work == pytest.approx(2 - noise)
        assert larger.seconds == pytest.approx(1.9 * (1 - noise / 2))
    assert told.choice is larger
    assert "less noise saves more steps" in told.because
    assert "importance sampling would save less than 3% of the seconds" in told.because
    assert np.isnan(larger.survives)


def test_even_norms_advise_uniform_draws() -> None:
    told = advice(made(even), CONFIG)
    assert told.choice is told.uniform
    assert told.quickest is None
    assert "too even" in told.because
    for one in (told.uniform, told.ideal, *told.others):
        if one.way.label != "reshuffled-100":
            assert one.trace == pytest.approx(1.0, abs=1e-3)
            assert one.steps == pytest.approx(1.0, abs=1e-3)
        assert one.work == pytest.approx((1 + one.way.draws[0].beside.work) * one.steps)
        assert one.work_error == pytest.approx((one.work, one.work), rel=1e-3)
        assert one.seconds_error == pytest.approx((one.seconds, one.seconds), rel=1e-3)


def test_uneven_norms_that_stay_bring_nearly_the_ideal_gain() -> None:
    told = advice(made(staying), CONFIG)
    exact = alain2015.ideal_trace(staying(0) ** 2, 0) / alain2015.uniform_trace(staying(0) ** 2, 0)
    assert told.ideal.trace == pytest.approx(exact)
    for label in ("second-moment", "issgd-8"):
        one = of(told, label)
        late = one.trace_by_moment[-1]
        assert exact <= late < 1.15 * exact  # three in ten of the draws are uniform
        assert one.steps == pytest.approx(one.trace)  # all is noise
    assert told.choice is of(told, "second-moment")
    assert told.choice.seconds_error.high < 1 - PAYS
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
    assert told.ideal.steps == pytest.approx(1 - 0.02 * (1 - told.ideal.trace))
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
    dear = COSTS._replace(scoring=Cost(5.0, 5.0), norms=Cost(2.0, 2.0))
    assert "from an epoch ago" in advice(made(forgetting, costs=dear), CONFIG).because
    told = advice(made(staying, costs=dear), CONFIG)
    assert told.choice is told.uniform
    assert "norms cost what they bring: second-moment" in told.because
    assert told.quickest is not None  # with devices to spare it pays, in time alone
    assert told.quickest.steps < 0.65
    assert told.quickest.work > 1


def test_the_first_epoch_is_reshuffled_and_examples_not_scored_yet_have_the_mean_weight() -> None:
    told = advice(made(staying, steps=96), CONFIG)  # moments 8, 24, 40, ...; an epoch has 40 steps
    early = of(told, "second-moment").trace_by_moment
    assert early[:2] == (1.0, 1.0)
    assert early[2] < 0.5
    slow = of(advice(made(staying, costs=COSTS._replace(scoring=Cost(60.0, 60.0)), steps=96), CONFIG), "issgd-1")
    assert slow.way.sweep_steps == pytest.approx(40 * 60 * 22 / 20)
    assert slow.trace == pytest.approx(1.0, abs=0.05)  # hardly anything is scored within the trial


def test_what_comes_after_the_trial_is_as_at_its_last_moment() -> None:
    told = advice(made(staying, steps=96, planned=960), CONFIG)
    assert told.parts.sum() == pytest.approx(1.0)
    assert told.parts[-1] == pytest.approx(0.9 + 0.1 / 6)
    one = of(told, "second-moment")
    assert one.steps == pytest.approx(float(told.parts @ one.trace_by_moment))


def test_forecasts_are_within_their_intervals_which_noise_that_differs_widens() -> None:
    trial = made(staying, gradient_norm2=0.01, noise=0.5)
    told = advice(trial, CONFIG)
    last = trial.measures[trial.moments[-1]]
    lower = {**trial.measures, last.step: last._replace(loss=last.loss - 0.1)}
    other = advice(replace(trial, measures=lower), CONFIG)
    for one in (told.ideal, *told.others):
        if one.way.keeps and one.trace < 0.99:  # of larger minibatches all is known
            assert one.work_error.low < one.work < one.work_error.high
            assert one.seconds_error.low < one.seconds < one.seconds_error.high
    assert told.noise == pytest.approx([0.5] * 3)
    assert other.noise[-1] < 0.4
    widths = [found.ideal.work_error.high - found.ideal.work_error.low for found in (told, other)]
    assert widths[0] < widths[1]


def test_gradients_that_have_all_vanished_advise_uniform_draws() -> None:
    told = advice(made(lambda step: np.zeros(EXAMPLES)), CONFIG)
    assert told.choice is told.uniform
    assert [one.trace for one in (told.uniform, told.ideal)] == pytest.approx([1.0, 1.0])


def test_the_same_trial_and_seed_give_the_same_advice_and_another_seed_another() -> None:
    trial = made(staying)
    first, again = (advice(trial, CONFIG) for _ in range(2))
    other = advice(trial, CONFIG.model_copy(update={"seed": 1}))
    told = [[(one.work, one.work_error) for one in found.others] for found in (first, again, other)]
    assert told[0] == told[1] != told[2]
