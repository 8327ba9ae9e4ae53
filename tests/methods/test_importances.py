"""A table that changes at every step: its draws are in proportion, and the sums are the same however it came about."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from issgd_cli.methods.importances import WIDTH, Importances

EDGES = (1, WIDTH - 1, WIDTH, WIDTH + 1, 3 * WIDTH, 1000)


def drawn(table: Importances, places: list[float]) -> list[int]:
    indices: list[int] = table.draw(torch.tensor(places, dtype=torch.float64))[0].tolist()
    return indices


@pytest.mark.parametrize("examples", EDGES)
def test_the_chance_of_an_example_is_its_share(examples: int) -> None:
    values = np.random.default_rng(0).exponential(1.0, examples)
    table, ends = Importances(torch.from_numpy(values)), values.cumsum() / values.sum()
    chances = values / values.sum()
    for within in (1e-6, 0.5, 1 - 1e-6):
        assert drawn(table, (ends - within * chances).tolist()) == list(range(examples))
    _, inverse = table.draw(torch.from_numpy(ends - chances / 2))
    np.testing.assert_allclose(inverse, 1 / chances, rtol=1e-12)


@given(st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 1.0, 1e9]), min_size=1, max_size=150), st.data())
@settings(max_examples=60, deadline=None)
def test_what_has_no_importance_is_never_drawn(values: list[float], data: st.DataObject) -> None:
    if not any(values):
        values[data.draw(st.integers(0, len(values) - 1))] = 1.0
    table = Importances(torch.tensor(values, dtype=torch.float64))
    places = [0.0, 1 - 2**-53, *data.draw(st.lists(st.floats(0, 1, exclude_max=True), max_size=20))]
    assert all(values[index] > 0 for index in drawn(table, places))


def test_changes_leave_the_sums_that_a_new_table_would_have() -> None:
    random = np.random.default_rng(0)
    table = Importances(torch.from_numpy(random.exponential(1.0, 1000)))
    places = torch.from_numpy(random.random(50))
    for _ in range(30):
        indices = torch.from_numpy(random.integers(0, 1000, 20))
        table.change(indices, torch.from_numpy(random.exponential(1.0, 20))[indices % 20])
        again = Importances(table.values.clone())
        for ours, anew in zip(table.draw(places), again.draw(places), strict=True):
            assert torch.equal(ours, anew)


def test_several_proposals_have_what_each_would_have_alone() -> None:
    random = np.random.default_rng(0)
    values = torch.from_numpy(random.exponential(1.0, (3, 200)))
    together, alone = Importances(values), [Importances(own) for own in values]
    places = torch.from_numpy(random.random(50))
    for _ in range(5):
        indices, found = torch.from_numpy(random.integers(0, 200, 20)), torch.from_numpy(random.exponential(1, (3, 20)))
        together.renew(indices, found[:, indices % 20], 0.25, 0.1)
        together.add(0.01)
        for number, one in enumerate(alone):
            one.renew(indices, found[number, indices % 20], 0.25, 0.1)
            one.add(0.01)
            for ours, theirs in zip(together.draw(places, number), one.draw(places), strict=True):
                assert torch.equal(ours, theirs)
            torch.testing.assert_close(together.chances(indices)[number], one.chances(indices))
            assert float(together.chances()[number].sum()) == pytest.approx(1)


def test_all_but_those_who_have_left_get_more() -> None:
    table = Importances(torch.tensor([0.0, 1.0, 2.0]))
    table.add(0.5)
    assert table.values.tolist() == [0.0, 1.5, 2.5]
    assert drawn(table, [0.0, 0.374, 0.376]) == [1, 1, 2]
