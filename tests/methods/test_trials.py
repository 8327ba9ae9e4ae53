"""When something is tried, and what is made of it."""

import math

import numpy as np
import pytest

from issgd_cli.methods.trials import MARGIN, Trials

PLAIN, LOOK = 1.0, 0.6  # the work of an epoch


def told(trials: Trials, *losses: float, work: float = PLAIN, promises: bool = True) -> Trials:
    for loss in losses:
        trials.epoch_over(loss, work, promises)
    return trials


def test_what_falls_by_itself_is_left_alone_and_so_is_what_promises_nothing() -> None:
    assert not told(Trials(), 1.0, 0.7, 0.5, 0.35, 0.25).under_way  # each less than 0.75 of the one before
    assert not told(Trials(), 1.0, 1.0, 1.0, 1.0, 1.0, promises=False).under_way
    assert not told(Trials(), 1.0, 1.0, 1.0).under_way  # too few to compare with
    assert told(Trials(), 1.0, 0.8, 0.64, 0.512).under_way


def test_a_trial_lasts_for_a_plain_epochs_work_and_is_held_against_the_way_losses_went() -> None:
    before = 1.0, 0.8, 0.64, 0.512  # 0.8 an epoch
    falling = told(Trials(), *before)
    assert falling.fall == pytest.approx(0.8)
    told(falling, 0.9, work=LOOK)
    assert falling.under_way
    assert not falling.succeeded  # it isn't over
    # By the middle of its last epoch, 0.5 + 1.2 - 0.3 plain epochs after the middle of the last plain one.
    expected = 0.512 * 0.8**1.4
    assert not told(falling, MARGIN * expected * 1.001, work=LOOK).under_way
    again = told(told(Trials(), *before), 0.9, MARGIN * expected * 0.999, work=LOOK)
    assert again.succeeded
    assert told(again, 9.0, 9.0, 9.0).under_way  # for good


def test_after_a_spike_it_takes_less_than_the_lowest_to_succeed() -> None:
    spiked = 0.5, 0.4, 0.9, 1.1
    assert told(told(Trials(), *spiked), 0.36).failed == 1  # far below what came last, but not what had been
    assert told(told(Trials(), *spiked), 0.33).succeeded


@pytest.mark.parametrize(
    ("left", "noise", "most"), [(0.97, 0.05, 0.06), (0.97, 0.1, 0.19), (0.9, 0.05, 0.36), (0.9, 0.1, 0.58)]
)
def test_chance_is_taken_for_success_no_more_often_than_stated(left: float, noise: float, most: float) -> None:
    """Looks are worth their work and no more: so much is left of a loss for it, and one in twenty is a spike."""
    random, taken = np.random.default_rng(0), 0
    for _ in range(400):
        trials, done = Trials(), 0.0
        for _ in range(26):
            work = 0.7 if trials.under_way else PLAIN
            loss = left ** (done + work / 2) * float(np.exp(random.normal(0, noise)))
            trials.epoch_over(3 * loss if random.random() < 0.05 else loss, work, True)
            done += work
        taken += trials.succeeded
    assert taken <= most * 400


def test_each_failure_makes_the_next_wait_longer() -> None:
    trials, plain = told(Trials(), 1.0, 1.0, 1.0, 1.0), []
    for _ in range(5):
        told(trials, 1.0, work=PLAIN)  # in vain
        count = 0
        while not trials.under_way:
            told(trials, 1.0)
            count += 1
        plain.append(count)
    assert plain == [4, 4, 8, 16, 32]  # four at least, to compare with


def test_nothing_is_tried_where_nothing_is_left_or_the_loss_has_no_end() -> None:
    assert not told(Trials(), *[0.0] * 6).under_way
    assert not told(Trials(), *[-1.0] * 6).under_way


@pytest.mark.parametrize("losses", [(), (1.0,), (1.0,) * 4, (1.0,) * 5, (*(1.0,) * 4, 0.1), (0.0, 0.0)])
def test_they_go_on_from_their_numbers(losses: tuple[float, ...]) -> None:
    trials = told(Trials(), *losses)
    same = Trials.of(trials.numbers())
    np.testing.assert_array_equal(same.numbers(), trials.numbers())
    assert repr(same) == repr(trials)
    told(trials, 0.9, 0.9, 0.8, 0.8)
    told(same, 0.9, 0.9, 0.8, 0.8)
    assert repr(same) == repr(trials)


@pytest.mark.parametrize("place", range(10))
@pytest.mark.parametrize("value", [-1.0, math.inf])
def test_what_cannot_be_is_refused(place: int, value: float) -> None:
    numbers = told(Trials(), 1.0, 1.0, 1.0, 1.0).numbers()
    numbers[place] = value
    with pytest.raises(ValueError, match="no such trials"):
        Trials.of(numbers)


def test_a_trial_that_nothing_came_before_is_refused() -> None:
    with pytest.raises(ValueError, match="no such trials"):
        Trials.of(np.array([1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
