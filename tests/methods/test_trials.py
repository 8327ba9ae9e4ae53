"""When something is tried, and what is made of it."""

import math

import numpy as np
import pytest

from issgd_cli.methods.trials import Trials

PLAIN, LOOK = 1.0, 0.6  # the work of an epoch


def told(trials: Trials, *losses: float, work: float = PLAIN, promises: bool = True) -> Trials:
    for loss in losses:
        trials.epoch_over(loss, work, promises)
    return trials


def test_what_falls_by_itself_is_left_alone_and_so_is_what_promises_nothing() -> None:
    assert not told(Trials(), 1.0, 0.7, 0.5, 0.35).under_way  # each less than 0.75 of the one before
    assert not told(Trials(), 1.0, 1.0, 1.0, promises=False).under_way
    assert not told(Trials(), 1.0).under_way  # nothing to compare with
    assert told(Trials(), 1.0, 0.8).under_way


def test_a_trial_lasts_for_a_plain_epochs_work_and_is_held_against_the_way_losses_went() -> None:
    falling = told(Trials(), 1.0, 0.8)
    told(falling, 0.9, work=LOOK)
    assert falling.under_way
    assert not falling.succeeded  # it isn't over
    # By the middle of its last epoch, 0.5 + 1.2 - 0.3 plain epochs after the middle of the last plain one.
    expected = 0.8 * 0.8**1.4
    assert not told(falling, 0.9 * expected * 1.001, work=LOOK).under_way
    again = told(told(Trials(), 1.0, 0.8), 0.9, 0.9 * expected * 0.999, work=LOOK)
    assert again.succeeded
    assert told(again, 9.0, 9.0, 9.0).under_way  # for good


def test_a_loss_that_rises_is_expected_to_stay() -> None:
    rising = told(Trials(), 1.0, 1.5)
    assert told(rising, 0.91 * 1.5, work=1.0).failed == 1
    assert told(told(Trials(), 1.0, 1.5), 0.89 * 1.5, work=1.0).succeeded


def test_each_failure_doubles_the_plain_epochs_before_the_next() -> None:
    trials, plain = told(Trials(), 1.0, 1.0), []
    for _ in range(4):
        told(trials, 1.0, work=PLAIN)  # in vain
        count = 0
        while not trials.under_way:
            told(trials, 1.0)
            count += 1
        plain.append(count)
    assert plain == [2, 4, 8, 16]


def test_nothing_is_tried_where_nothing_is_left_or_the_loss_has_no_end() -> None:
    assert not told(Trials(), 0.0, 0.0, 0.0).under_way
    assert not told(Trials(), -1.0, -1.1, -1.1).under_way


@pytest.mark.parametrize("losses", [(), (1.0,), (1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0, 0.1)])
def test_they_go_on_from_their_numbers(losses: tuple[float, ...]) -> None:
    trials = told(Trials(), *losses)
    same = Trials.of(trials.numbers())
    np.testing.assert_array_equal(same.numbers(), trials.numbers())
    assert repr(same) == repr(trials)
    told(trials, 0.9, 0.9, 0.8, 0.8)
    told(same, 0.9, 0.9, 0.8, 0.8)
    assert repr(same) == repr(trials)


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("value", [-1.0, math.inf])
def test_what_cannot_be_is_refused(place: int, value: float) -> None:
    numbers = told(Trials(), 1.0, 1.0).numbers()
    numbers[place] = value
    with pytest.raises(ValueError, match="no such trials"):
        Trials.of(numbers)
