"""What a sample tells of all, over every sample that there is."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from issgd_cli.equations.statistics import product_of_means, rank_correlation, standard_error

ALL = np.random.default_rng(3).lognormal(0, 1, 7)
OTHERS = ALL**2 + np.random.default_rng(4).normal(0, 1, 7)


@pytest.mark.parametrize("size", range(2, 8))
def test_the_standard_errors_square_is_the_variance_of_the_mean_over_all_samples(size: int) -> None:
    samples = [np.array(sample) for sample in itertools.combinations(ALL, size)]
    variance = np.var([sample.mean() for sample in samples])
    assert np.mean([standard_error(sample, 7) ** 2 for sample in samples]) == pytest.approx(variance, abs=1e-14)


@pytest.mark.parametrize("size", range(2, 8))
@pytest.mark.parametrize("others", [ALL, OTHERS])
def test_the_product_of_means_is_unbiased_over_all_samples(size: int, others: np.ndarray) -> None:
    samples = [list(rows) for rows in itertools.combinations(range(7), size)]
    found = [product_of_means(ALL[rows], others[rows], 7) for rows in samples]
    plain = [ALL[rows].mean() * others[rows].mean() for rows in samples]
    assert np.mean(found) == pytest.approx(ALL.mean() * others.mean(), rel=1e-12)
    assert np.mean(plain) >= ALL.mean() * others.mean() - 1e-12  # they go together


@pytest.mark.parametrize("levels", [3, 50])
def test_the_rank_correlation_is_scipys_ties_and_all(levels: int) -> None:
    random = np.random.default_rng(levels)
    left, right = random.integers(0, levels, (2, 40))
    right[:20] = left[:20]
    expected = scipy.stats.spearmanr(left, right).statistic
    assert rank_correlation(left, right) == pytest.approx(expected, rel=1e-12)
    assert rank_correlation(left, np.exp(left / 7.0)) == pytest.approx(1)
    assert math.isnan(rank_correlation(left, np.ones(40)))


def test_of_one_value_among_several_nothing_is_known() -> None:
    assert math.isnan(standard_error([1.0], 2))
    assert math.isnan(standard_error([], 2))
    assert standard_error([1.0], 1) == 0
    assert product_of_means([3.0], [3.0], 1) == 9
    assert math.isnan(product_of_means([3.0], [3.0], 2))
