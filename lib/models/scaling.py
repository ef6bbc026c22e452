"""What models do to RSSI and positions: Eq. 5, powed and exponential levels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lib.data.fingerprints import row_blocks


def _levels(rssi: np.ndarray, minimum: float, of_height: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """dBm → what `of_height` makes of the dB above `minimum`, 0 dB for "not heard" and for all that is weaker."""
    levels = np.empty(rssi.shape, dtype=np.float32)
    for rows in row_blocks(rssi.shape):
        block = rssi[rows]
        filled = np.where(np.isnan(block), minimum, np.maximum(block, minimum))
        levels[rows] = of_height(filled - minimum)
    return levels


def powed(rssi: np.ndarray, minimum: float, exponent: float = np.e) -> np.ndarray:
    """((rssi − min) / −min)^e with 0 for "not heard" (Torres-Sospedra et al. 2015): a scan for the Sørensen distance.

    Args:
        rssi: (n, t) dBm, NaN = not heard.
        minimum: the level that maps to 0, that of "not heard".
        exponent: β.
    """
    return _levels(rssi, minimum, lambda height: (height / -minimum) ** exponent)


def exponential(rssi: np.ndarray, minimum: float, alpha: float = 60.0) -> np.ndarray:
    """(e^((rssi − min)/α) − 1) / (e^(−min/α) − 1) with 0 for "not heard" (Torres-Sospedra et al. 2015).

    The − 1 is ours: without it "not heard" has a level, and two scans are alike in all that neither hears.

    Args:
        rssi, minimum: as in `powed`.
        alpha: α in dB; 60 is that of Anagnostopoulos & Kalousis 2019.
    """
    highest = np.expm1(-minimum / alpha)
    return _levels(rssi, minimum, lambda height: np.expm1(height / alpha) / highest)


@dataclass(frozen=True)
class MinMaxScaling:
    """Eq. 5: x̃ = a + (b − a)(x − x_min) / (x_max − x_min), for all values together or per column.

    Attributes:
        minimum, maximum: x_min and x_max, one for all columns or one a column.
        lower, upper: the bounds a < b.

    Raises:
        ValueError: if a bound or a maximum is not above its minimum.
    """

    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self):
        if not self.lower < self.upper:
            raise ValueError(f"`lower` must be less than `upper`. Received: {self.lower} and {self.upper}")
        if not np.all(np.less(self.minimum, self.maximum)):
            raise ValueError(f"`minimum` must be less than `maximum`. Received: {self.minimum} and {self.maximum}")

    @classmethod
    def of_rssi(cls, rssi: np.ndarray, not_heard: float, lower: float = 0.0, upper: float = 1.0) -> "MinMaxScaling":
        """For (n, t) dBm: x_min is the level of "not heard", x_max the strongest RSSI."""
        strongest = float(np.nanmax(rssi))
        return cls((not_heard,), (strongest,), lower, upper)

    @classmethod
    def of_position(cls, position: np.ndarray) -> "MinMaxScaling":
        """For (n, 2) metres: each axis to [0, 1]."""
        low = position.min(axis=0)
        high = position.max(axis=0)
        return cls(tuple(low.tolist()), tuple(high.tolist()))

    @property
    def _slope(self) -> np.ndarray:
        span = np.subtract(self.maximum, self.minimum)
        return (self.upper - self.lower) / span

    def transform(self, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Scaled values, float32; NaN (not heard) counts as the minimum. `out` takes them, `values` itself included."""
        values = np.asarray(values)
        if out is None:
            out = np.empty(values.shape, dtype=np.float32)
        for rows in row_blocks(values.shape):
            block = values[rows]
            filled = np.where(np.isnan(block), self.minimum, block)
            out[rows] = self.lower + (filled - self.minimum) * self._slope
        return out

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        """Values from scaled values, float64. What was not heard comes back as the minimum."""
        height = np.asarray(scaled, dtype=np.float64) - self.lower
        return height / self._slope + np.asarray(self.minimum)
