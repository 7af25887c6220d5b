import math

import numpy as np
import pytest
from scipy import stats

from analysis.intervals import fisher_p_value, holm, student_t_interval, welch_p_value


def test_interval_is_scipys() -> None:
    values = [1.0, 2.5, 2.0, 4.0]
    interval = student_t_interval([*values, float("nan")])
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.count == 4


def test_one_value_has_no_interval() -> None:
    interval = student_t_interval([1.0])
    assert interval.mean == 1.0
    assert math.isnan(interval.low)
    assert interval.contains_zero


def test_one_value_with_known_variance_has_the_normal_interval() -> None:
    interval = student_t_interval([1.0], extra_variance=4.0)
    assert (interval.low, interval.high) == pytest.approx((1 - 3.92, 1 + 3.92), abs=1e-3)


def test_extra_variance_widens_and_adds_degrees_of_freedom() -> None:
    values = [1.0, 2.0]
    spread = 0.25  # variance of their mean
    interval = student_t_interval(values, extra_variance=spread)
    assert interval.high - 1.5 == pytest.approx(stats.t.ppf(0.975, 4) * 0.5**0.5)


def test_interval_over_crossed_seeds_and_examples_covers_95_percent() -> None:
    rng = np.random.default_rng(0)
    seeds = rng.standard_normal((4000, 3))
    examples = rng.standard_normal((4000, 1))  # common to the seeds of a data set
    covered = [
        interval.low <= 0 <= interval.high
        for interval in (
            student_t_interval(row.tolist(), extra_variance=1.0) for row in seeds + examples
        )
    ]
    assert 0.94 <= np.mean(covered) <= 0.98


def test_welch_is_scipys() -> None:
    a, b = [1.0, 2.0, 4.0], [2.0, 9.0, 6.0, 5.0]
    assert welch_p_value(a, b) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_welch_needs_two_values_a_side() -> None:
    assert math.isnan(welch_p_value([1.0], [2.0, 3.0]))


def test_groups_without_spread_are_equal_or_not() -> None:
    assert (welch_p_value([1.0, 1.0], [1.0, 1.0]), welch_p_value([1.0, 1.0], [2.0, 2.0])) == (1, 0)


def test_holm_of_a_worked_example() -> None:
    # Holm (1979): sorted p times 4, 3, 2, 1, made monotone
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_out_what_was_not_tested() -> None:
    adjusted = holm([0.02, float("nan"), 0.5])
    assert adjusted[0] == 0.04
    assert math.isnan(adjusted[1])


def test_fisher_of_one_p_value_is_that() -> None:
    assert fisher_p_value([0.2, float("nan")]) == pytest.approx(0.2)


def test_fisher_of_two_follows_the_closed_form() -> None:
    product = 0.1 * 0.2
    assert fisher_p_value([0.1, 0.2]) == pytest.approx(product * (1 - math.log(product)))
