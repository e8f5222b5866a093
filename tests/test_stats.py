"""Statistics: against a worked example, and against what an interval promises."""

import numpy as np
import pytest

from normbench.stats import Interval, difference_of_means


def test_welchs_interval_equals_the_one_worked_out_by_hand():
    # variances 1 and 4, three values each: standard error sqrt(1/3 + 4/3) = 1.29099;
    # degrees of freedom (5/3)^2 / ((1/3)^2 / 2 + (4/3)^2 / 2) = 2.94118; t of 97.5 % there 3.21815
    found = difference_of_means([1, 2, 3], [2, 4, 6])
    assert found.estimate == pytest.approx(-2)
    assert found.low == pytest.approx(-2 - 3.21815 * 1.290994, abs=2e-3)
    assert found.high == pytest.approx(-2 + 3.21815 * 1.290994, abs=2e-3)


def test_the_interval_covers_the_true_difference_as_often_as_it_says():
    drawn = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        found = difference_of_means(drawn.normal(1, 1, 5), drawn.normal(0, 3, 5), 0.9)
        covered += found.low < 1 < found.high
    # 900 expected, standard deviation 9.5
    assert 865 < covered < 940


def test_values_that_do_not_vary_differ_exactly():
    assert difference_of_means([3, 3], [1, 1, 1]) == Interval(2, 2, 2)


def test_one_run_says_nothing_of_a_difference():
    with pytest.raises(ValueError, match=r"samples of 1 and 3 values: expected at least 2 of each"):
        difference_of_means([1], [1, 2, 3])
