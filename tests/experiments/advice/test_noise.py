"""What a run with less noise tells of how much noise holds up, on losses made for it."""

from dataclasses import replace

import pytest

from issgd_cli.experiments.advice.noise import MOST, shares, steps
from tests.trials import even, made


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.9, 1.0, 1.3])
def test_the_share_is_found_again(noise: float) -> None:
    assert shares(made(even, noise=noise)) == pytest.approx([noise] * 3, abs=1e-9)


def test_it_is_within_its_limits_whatever_the_losses() -> None:
    trial = made(even)
    assert shares(replace(trial, quieter=dict.fromkeys(trial.quieter, 2.0))) == [0.0] * 3
    assert shares(replace(trial, quieter={step: 2.0 - (step > 0) for step in trial.quieter})) == [MOST] * 3


def test_spikes_of_the_losses_are_passed_over() -> None:
    trial = made(even, noise=0.5)
    last = trial.moments[-1]
    spiked = {**trial.measures, last: trial.measures[last]._replace(loss=9.0)}
    assert shares(replace(trial, measures=spiked))[-1] == pytest.approx(0.5, abs=1e-9)


def test_a_loss_counts_from_when_it_was_first_reached() -> None:
    """A plain run that has been as low at step 464 as at its last moment: the quieter one is held against that."""
    trial = made(even, noise=0.5)
    last, early = trial.moments[-1], trial.moments[-2] - 256
    assert early in trial.measures
    stays = {
        step: one._replace(loss=trial.measures[early].loss) if step > early else one
        for step, one in trial.measures.items()
    }
    assert shares(replace(trial, measures=stays)) == pytest.approx([0.5] * 3, abs=1e-9)
    assert last > early


def test_a_loss_that_has_hardly_fallen_tells_nothing() -> None:
    trial = made(even)
    flat = {step: one._replace(loss=2.0) for step, one in trial.measures.items()}
    assert shares(replace(trial, measures=flat)) == []


def test_steps_are_in_proportion_up_to_1_and_go_with_a_power_beyond_that_fits_both_runs() -> None:
    assert steps(0.4, 0.5) == pytest.approx(0.8)
    assert steps([0.999999, 1.0, 1.000001], 0.3) == pytest.approx([0.3] * 3, abs=1e-5)
    assert steps(1.27, [1.0, 0.5]) == pytest.approx([1.0, 1 - 1.27 / 2])  # as plain, and as the quieter run
    assert steps(MOST, [0.0, -0.1, 0.3]) == pytest.approx([0.0, 0.0, 0.3**2])
