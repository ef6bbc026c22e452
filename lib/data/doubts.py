"""What looks wrong in readings: values that are markers, columns that are no transmitters, names in several spellings,
positions that cannot be.

Each function gives sentences for the user; what is beyond doubt is refused.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lib.data.forms import Readings, is_possible
from lib.data.names import canonical, listed, matches

# Shares of all readings that have one value; with fewer readings than that, nothing is said.
DOMINANT_WARNED, DOMINANT_REFUSED, LEAST_READINGS = 0.25, 0.5, 100
# The share, and the least number, of readings of exactly 0 dBm that are refused. UJIIndoorLoc has 0.04 %.
ZERO_REFUSED, LEAST_ZEROS = 0.01, 20
SAMPLED = 100_000  # readings, to find the value that most have
# A column in which every one of so many rows has one value is no transmitter; one that varies by less is doubted.
LEAST_ROWS, LEAST_RANGE_DB = 20, 1.0
# A position is far that lies so many extents, and metres more, outside of the quantiles of all: few rows, or else they
# belong together.
BULK, FAR_EXTENTS, FAR_METRES, FAR_DEGREES = (0.02, 0.98), 3.0, 100.0, 1.0
MOST_FAR, MOST_FAR_SHARE = 3, 0.005
# Of few rows the quantiles leave out so many at each end at least, so that a wrong one does not stretch them.
LEAST_BEYOND = 1
MOST = (0.1, 0.9)  # quantiles of what is far from most, more rows or of fewer


def marker_values(dbm: np.ndarray, measured: Sequence) -> list[str]:
    """Which of (k,) levels look like markers of "not heard".

    Args:
        dbm: levels in dBm.
        measured: values that are measurements all the same.

    Raises:
        ValueError: if they are many.
    """
    sentences = []
    if not len(dbm):
        return sentences
    values, counts = np.unique(dbm[:: max(1, len(dbm) // SAMPLED)], return_counts=True)
    value = float(values[np.argmax(counts)])
    count = np.count_nonzero(dbm == value)
    share = count / len(dbm)
    are_enough = len(dbm) >= LEAST_READINGS or (share == 1 and len(dbm) >= LEAST_ROWS)
    if value != 0 and value not in measured and are_enough and share >= DOMINANT_WARNED:
        sentence = (
            f"{count:,} of {len(dbm):,} values are {value:g}, as if that stood for “not heard”: --not-heard {value:g} "
            "declares that"
        )
        if is_possible(value):
            sentence += f", --measured {value:g} that it is RSSI"
        if share >= DOMINANT_REFUSED:
            raise ValueError(sentence)
        sentences.append(sentence)
    zeros = np.count_nonzero(dbm == 0)
    if zeros and 0 not in measured:
        sentence = (
            f"{zeros:,} of {len(dbm):,} values are exactly 0 dBm, which receivers write when they cannot measure: "
            "--not-heard 0 declares that, --measured 0 that it is RSSI"
        )
        if zeros >= LEAST_ZEROS and zeros > ZERO_REFUSED * len(dbm):
            raise ValueError(sentence)
        sentences.append(sentence)
    return sentences


def other_columns(readings: Readings, chosen: Sequence[str], measured: Sequence) -> tuple[Readings, list[str]]:
    """Readings without columns that are no transmitters: every row has one value in them, or none below 0, or no RSSI.

    Args:
        readings: of all columns that may be transmitters.
        chosen: patterns of the names that are transmitters, as the user says; none of these is left out.
        measured: see `marker_values`.

    Raises:
        ValueError: see `marker_values`.
    """
    n_scans, n_transmitters = len(readings.scans), len(readings.transmitters)
    count = np.zeros(n_transmitters, dtype=np.int64)
    impossible = np.zeros(n_transmitters, dtype=np.int64)
    lowest, highest = np.full(n_transmitters, np.inf), np.full(n_transmitters, -np.inf)
    possible = readings.possible
    for block in readings.blocks():
        transmitter = readings.transmitter[block]
        count += np.bincount(transmitter, minlength=n_transmitters)
        impossible += np.bincount(transmitter[~possible[block]], minlength=n_transmitters)
        np.minimum.at(lowest, transmitter, readings.dbm[block])
        np.maximum.at(highest, transmitter, readings.dbm[block])
    is_chosen = np.array([matches(name, chosen) for name in readings.transmitters], dtype=bool)
    in_every_row = (count == n_scans) & (n_scans >= LEAST_ROWS) & ~is_chosen
    is_other = in_every_row & ((lowest == highest) | (lowest >= 0))
    dbm = readings.dbm
    if is_other.any() and not is_other.all():
        dbm = readings.dbm[~is_other[readings.transmitter]]
    sentences = marker_values(dbm, measured)

    is_other |= in_every_row & (2 * impossible > count)
    is_steady = in_every_row & ~is_other & (highest < lowest + LEAST_RANGE_DB)
    if is_steady.any():
        steady = [readings.transmitters[number] for number in np.flatnonzero(is_steady)]
        sentences.append(f"Every row hears these nearly alike, --ignore leaves them out: {listed(steady)}")
    if not is_other.any():
        return readings, sentences
    texts = {int(readings.transmitter[reading]): text for reading, text in readings.texts.items()}
    descriptions = []
    for number in np.flatnonzero(is_other).tolist():
        values = f"{lowest[number]:g}"
        if highest[number] > lowest[number]:
            values += f" to {highest[number]:g}"
        if number in texts:
            values = f"{texts[number]!r} or the like"
        descriptions.append(f"{readings.transmitters[number]} ({values} in every row)")
    sentences.append(f"Columns left out, as no transmitters: {listed(descriptions)}; --transmitters NAME keeps one")
    return readings.without(is_other), sentences


def one_spelling(readings: Readings) -> tuple[Readings, list[str]]:
    """Readings in which a MAC address that is spelt in several ways is one transmitter, unless a scan hears two."""
    by_address = {}
    for number, name in enumerate(readings.transmitters):
        by_address.setdefault(canonical(name), []).append(number)
    same = np.arange(len(readings.transmitters))
    for numbers in by_address.values():
        if len(numbers) > 1:
            of_these = np.isin(readings.transmitter, numbers)
            heard = np.column_stack([readings.scan[of_these], readings.transmitter[of_these]])
            heard = np.unique(heard, axis=0)
            if len(np.unique(heard[:, 0])) == len(heard):
                same[numbers] = numbers[0]
    is_further = same != np.arange(len(same))
    if not is_further.any():
        return readings, []
    joined = dataclasses.replace(readings, transmitter=same[readings.transmitter].astype(np.int32))
    spelt = listed(readings.transmitters[number] for number in np.flatnonzero(is_further)[:3])
    sentence = f"Other spellings of MAC addresses are taken for the same transmitters: {spelt}"
    return joined.without(is_further), [sentence]


def without_fix(position: np.ndarray, margin: float) -> np.ndarray:
    """(n,) bool: which of (n, 2) coordinates are (0, 0) although the others are farther from it than their extent.

    Args:
        position: coordinates, in metres or degrees.
        margin: how far (0, 0) is at least, in the same unit.
    """
    at_zero = (position == 0).all(axis=1)
    others = position[~at_zero]
    if not len(others) or not at_zero.any():
        return np.zeros(len(position), dtype=bool)
    low, high = np.quantile(others, BULK, axis=0)
    reach = max(margin, (high - low).max())
    is_near = (low - reach <= 0).all() and (high + reach >= 0).all()
    return at_zero & (not is_near)


def far(position: np.ndarray) -> np.ndarray:
    """(n,) bool: which of (n, 2) metres lie so far outside of where most are that they cannot belong; few, or none."""
    if len(position) < LEAST_ROWS:
        return np.zeros(len(position), dtype=bool)
    beyond = max(BULK[0], LEAST_BEYOND / (len(position) - 1))
    outside = _outside(position, (beyond, 1 - beyond))
    most = max(MOST_FAR, int(MOST_FAR_SHARE * len(position)))
    return outside & (np.count_nonzero(outside) <= most)


def far_from_most(position: np.ndarray) -> np.ndarray:
    """(n,) bool: which of (n, 2) metres lie far from nine tenths of all, and may be right all the same."""
    if not len(position):
        return np.zeros(0, dtype=bool)
    return _outside(position, MOST)


def _outside(position: np.ndarray, quantiles: tuple[float, float]) -> np.ndarray:
    """(n,) bool: which of (n, 2) metres lie several extents outside of the quantiles of all."""
    low, high = np.quantile(position, quantiles, axis=0)
    reach = FAR_EXTENTS * (high - low).max() + FAR_METRES
    return ((position < low - reach) | (position > high + reach)).any(axis=1)
