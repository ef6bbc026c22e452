"""Numbers have the digits that one can read and trust."""

import numpy as np

from lib.report import numbers


def test_interval_is_that_of_the_mean():
    """1…5: mean 3, t(0.975, 4) = 2.776, standard error 0.7071."""
    assert numbers.interval([1, 2, 3, 4, 5]) == "3.00 ± 1.96"
    assert numbers.interval([6.654]) == numbers.interval(6.654) == "6.65"
    assert numbers.interval([np.nan, 1.0]) == ""


def test_tables_have_at_most_four_digits_and_sentences_three():
    assert numbers.interval([311.2, 312.4]) == "311.8 ± 7.6"
    assert numbers.measured([300.0, 310.0, 320.0]) == "310 ± 25"
    assert numbers.measured([231.4, 231.5, 231.6]) == "231.5 ± 0.2", "not ± 0"
    assert [numbers.number(value) for value in (1009.65, 99.994, 0.123)] == ["1,010", "99.99", "0.12"]
    assert [numbers.measured(value) for value in (12.34, 9.876, 0.123)] == ["12.3", "9.88", "0.12"]


def test_shares_are_percents():
    assert [numbers.percent(share) for share in (0.9553, 1.0, np.nan)] == ["95.5 %", "100.0 %", ""]


def test_small_and_large_numbers_have_three_digits_and_no_exponent():
    shown = [numbers.three_digits(value) for value in (1105.2, 643.4, 13.0, 0.0955, 0.5, 0)]
    assert shown == ["1,105", "643", "13.0", "0.0955", "0.500", "0"]
