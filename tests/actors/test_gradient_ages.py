"""How old gradients were: counted, bounded, told, and gone on from."""

import math

import pytest

from issgd_cli.actors.gradient_ages import GradientAges, factor
from issgd_cli.config.peers import Peers

AGES = (0, 0, 1, 2, 3, 4, 7, 8, 100)


def counted() -> GradientAges:
    ages = GradientAges()
    for age in AGES:
        ages.add(age, 1.0)
    ages.add(5, 0.0)
    ages.add(6, 0.5)
    ages.refused = 3
    return ages


def test_each_power_of_two_has_a_count() -> None:
    values = {name.removeprefix("staleness/gradients/"): value for name, value in counted().values().items()}
    assert {name: value for name, value in values.items() if name.startswith("count/")} == {
        "count/0": 2,
        "count/1": 1,
        "count/2": 2,
        "count/4": 4,
        "count/8": 1,
        "count/64": 1,
    }
    assert values["mean_versions"] == pytest.approx((sum(AGES) + 11) / 11)
    assert values["max_versions"] == 100
    assert (values["dropped"], values["damped"], values["refused"]) == (1, 1, 3)


@pytest.mark.parametrize("ages", [counted(), GradientAges(), GradientAges(refused=2)])
def test_they_come_back_from_a_report_and_from_a_state(ages: GradientAges) -> None:
    assert GradientAges.of(ages.values()) == ages
    assert GradientAges.restored(ages.state()) == ages
    assert all(math.isfinite(value) for value in ages.values().values())


@pytest.mark.parametrize(("mode", "expected"), [("drop", [1, 1, 0, 0]), ("damp", [1, 1, 3 / 4, 3 / 30])])
def test_beyond_the_limit_a_gradient_is_dropped_or_damped(mode: str, expected: list[float]) -> None:
    settings = Peers.model_validate({"staleness_limit_versions": 3, "limit_mode": mode})
    assert [factor(settings, age) for age in (0, 3, 4, 30)] == expected
    assert factor(Peers(), 10**6) == 1
