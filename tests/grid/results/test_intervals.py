"""The 95 % interval of a mean, against values of printed tables."""

import math
import statistics

import pytest

from grid.results.intervals import mean_interval

# 97.5 % points of Student's t by degrees of freedom, as printed in statistical tables.
PRINTED = {2: 4.303, 4: 2.776, 9: 2.262, 10: 2.228, 15: 2.131, 30: 2.042, 60: 2.000, 120: 1.980}


@pytest.mark.parametrize("freedom", PRINTED)
def test_half_an_interval_is_the_tables_quantile_times_the_standard_error(freedom):
    values = [math.sin(number) for number in range(freedom + 1)]
    low, high = mean_interval(values) or (0.0, 0.0)
    error = statistics.stdev(values) / math.sqrt(len(values))
    assert (low + high) / 2 == pytest.approx(statistics.fmean(values))
    assert (high - low) / 2 / error == pytest.approx(PRINTED[freedom], abs=6e-4)


def test_the_interval_of_three_values_is_wide():
    low, high = mean_interval((1.0, 2.0, 3.0)) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)


def test_equal_values_have_an_interval_without_width():
    assert mean_interval([0.5] * 4) == (0.5, 0.5)


@pytest.mark.parametrize("values", [(), (1.0,), (1.0, 2.0)])
def test_fewer_than_three_values_have_no_interval(values):
    assert mean_interval(values) is None
