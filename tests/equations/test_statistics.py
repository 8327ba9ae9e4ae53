"""What a sample tells of all, over every sample that there is."""

import itertools
import math

import numpy as np
import pytest

from issgd_cli.equations.statistics import squared_mean, standard_error

ALL = np.random.default_rng(3).lognormal(0, 1, 7)


@pytest.mark.parametrize("size", range(2, 8))
def test_the_standard_errors_square_is_the_variance_of_the_mean_over_all_samples(size: int) -> None:
    samples = [np.array(sample) for sample in itertools.combinations(ALL, size)]
    variance = np.var([sample.mean() for sample in samples])
    assert np.mean([standard_error(sample, 7) ** 2 for sample in samples]) == pytest.approx(variance, abs=1e-14)


@pytest.mark.parametrize("size", range(2, 8))
def test_the_squared_mean_is_unbiased_over_all_samples(size: int) -> None:
    found = [squared_mean(sample, 7) for sample in itertools.combinations(ALL, size)]
    assert np.mean(found) == pytest.approx(ALL.mean() ** 2, rel=1e-12)
    assert np.mean([np.mean(sample) ** 2 for sample in itertools.combinations(ALL, size)]) >= ALL.mean() ** 2 - 1e-12


def test_of_one_value_among_several_nothing_is_known() -> None:
    assert math.isnan(standard_error([1.0], 2))
    assert math.isnan(standard_error([], 2))
    assert standard_error([1.0], 1) == 0
    assert squared_mean([3.0], 1) == 9
