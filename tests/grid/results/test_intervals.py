"""The 95 % interval of a mean, against values of printed tables."""

import math

import pytest

from grid.results.intervals import mean_interval, t_quantile

# 97.5 % points of Student's t by degrees of freedom, as printed in statistical tables.
PRINTED = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 10: 2.228, 15: 2.131, 30: 2.042, 60: 2.000, 120: 1.980}


@pytest.mark.parametrize("freedom", PRINTED)
def test_the_quantiles_are_those_of_the_tables(freedom):
    assert t_quantile(freedom) == pytest.approx(PRINTED[freedom], abs=6e-4)


def test_the_quantiles_fall_to_that_of_the_normal_distribution():
    found = [t_quantile(freedom) for freedom in range(1, 400)]
    assert found == sorted(found, reverse=True)
    assert t_quantile(10**6) == pytest.approx(1.959964, abs=1e-5)


def test_the_interval_of_three_values_is_wide():
    low, high = mean_interval((1.0, 2.0, 3.0)) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)


def test_equal_values_have_an_interval_without_width():
    assert mean_interval([0.5] * 4) == (0.5, 0.5)


@pytest.mark.parametrize("values", [(), (1.0,), (1.0, 2.0)])
def test_fewer_than_three_values_have_no_interval(values):
    assert mean_interval(values) is None


def test_no_degree_of_freedom_is_an_error():
    with pytest.raises(ValueError, match="0 degrees"):
        t_quantile(0)
