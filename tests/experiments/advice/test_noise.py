"""What a run with less noise tells of how much noise holds up, on losses made for it."""

from dataclasses import replace

import pytest

from issgd_cli.experiments.advice.noise import shares
from tests.trials import even, made


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.9, 1.0])
def test_the_share_is_found_again(noise: float) -> None:
    assert shares(made(even, noise=noise)) == pytest.approx([noise] * 3, abs=1e-9)


def test_it_is_within_0_and_1_whatever_the_losses() -> None:
    trial = made(even)
    assert shares(replace(trial, quieter=dict.fromkeys(trial.quieter, 2.0))) == [0.0] * 3
    assert shares(replace(trial, quieter={step: 2.0 - (step > 0) for step in trial.quieter})) == [1.0] * 3


def test_spikes_of_the_losses_are_passed_over() -> None:
    trial = made(even, noise=0.5)
    last = trial.moments[-1]
    spiked = {**trial.measures, last: trial.measures[last]._replace(loss=9.0)}
    assert shares(replace(trial, measures=spiked))[-1] == pytest.approx(0.5, abs=0.01)


def test_a_loss_that_has_hardly_fallen_tells_nothing() -> None:
    trial = made(even)
    flat = {step: one._replace(loss=2.0) for step, one in trial.measures.items()}
    assert shares(replace(trial, measures=flat)) == []
