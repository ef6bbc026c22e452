"""Scans of named transmitters → a matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class NamedScans:
    """n scans of t transmitters.

    Attributes:
        rssi: (n, t) float32 dBm; NaN = not heard.
        unknown: (n,) how many other transmitters each scan hears.
        names: n names of the scans.
    """

    rssi: np.ndarray
    unknown: np.ndarray
    names: Sequence


def matrix(scans: Sequence[Mapping], transmitters: Sequence[str], not_heard: Sequence = ()) -> NamedScans:
    """A list of dicts of RSSI by transmitter as one matrix."""
    if not isinstance(scans, list):
        from lib.data import reading

        read = reading.matrix(scans, transmitters, not_heard)
        return NamedScans(read.rssi, read.unknown, read.index)
    column_of = {name: number for number, name in enumerate(transmitters)}
    rssi = np.full((len(scans), len(transmitters)), np.nan, dtype=np.float32)
    unknown = np.zeros(len(scans), dtype=np.int64)
    for row, scan in enumerate(scans):
        for name, level in scan.items():
            if level is None or np.isnan(level) or level in not_heard:
                continue
            if name in column_of:
                rssi[row, column_of[name]] = level
            else:
                unknown[row] += 1
    return NamedScans(rssi, unknown, range(len(scans)))
