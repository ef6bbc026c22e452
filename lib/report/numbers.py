"""Numbers as text: what tables, figures and sentences say of measured values."""

from collections.abc import Sequence

import numpy as np

from lib.metrics import confidence_half_width

TABLE, SENTENCE = 4, 3  # significant digits


def number(value: float, digits: int = TABLE) -> str:
    """A number with so many significant digits, whole digits kept, two decimals at most; nothing for NaN."""
    return plus_minus(value, np.nan, digits)


def plus_minus(mean: float, half_width: float, digits: int = TABLE) -> str:
    """`mean ± half width`, both with the decimals that suit the mean; without a half width the mean alone.

    A half width that would be shown as 0 has another decimal, and so has its mean.
    """
    if np.isnan(mean):
        return ""
    whole_digits = len(str(int(abs(mean))))
    decimals = min(2, max(0, digits - whole_digits))
    if half_width > 0 and round(half_width, decimals) == 0:
        decimals = min(2, decimals + 1)
    text = f"{mean:,.{decimals}f}"
    return text if np.isnan(half_width) else f"{text} ± {half_width:,.{decimals}f}"


def interval(values: Sequence[float] | float, digits: int = TABLE) -> str:
    """Mean and, of several values, the half width of their 95 % t interval; nothing where values are NaN."""
    values = np.atleast_1d(values)
    return plus_minus(float(np.mean(values)), confidence_half_width(values), digits)


def measured(values: Sequence[float] | float) -> str:
    """`interval` with the digits of a sentence."""
    return interval(values, SENTENCE)


def three_digits(value: float) -> str:
    """A number with three significant digits, or all before its point, and no exponent."""
    if value == 0:
        return "0"
    magnitude = int(np.floor(np.log10(abs(value))))
    return f"{value:,.{max(0, 2 - magnitude)}f}"


def percent(share: float) -> str:
    """A share in percent with one decimal; nothing for NaN."""
    return "" if np.isnan(share) else f"{100 * share:.1f} %"


def code(names: Sequence[str]) -> list[str]:
    """Names as Markdown shows code."""
    return [f"`{name}`" for name in names]
