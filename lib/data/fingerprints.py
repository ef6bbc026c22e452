"""Scans and FingerprintSets: RSSI, and RSSI measured at known positions, whatever the environment or the publisher."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from lib.data.frames import Frame

VALUES_AT_ONCE, LEAST_ROWS = 2**20, 1024  # in a block of rows: 8 MB as float64, more where rows are very long
# Files with the limit on the memory of a container, of either kind.
CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


# === Memory ===


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices that cover the rows of an array, block by block: what is computed from a block stays small beside it."""
    rows, *columns = shape
    step = max(LEAST_ROWS, VALUES_AT_ONCE // max(1, math.prod(columns)))
    for start in range(0, rows, step):
        yield slice(start, start + step)


def available_memory() -> int:
    """Bytes that one array may take: 90 % of what the machine, or the container's limit, leaves to this process."""
    held = psutil.Process().memory_info().rss
    left = psutil.virtual_memory().available
    for file in CONTAINER_LIMITS:
        limit = file.read_text().strip() if file.exists() else "max"
        if limit != "max":
            left = min(left, int(limit) - held)
    return int(0.9 * max(0, left))


def require_memory(rows: int, transmitters: int, copies: int = 1) -> None:
    """Raise MemoryError if so many arrays of (rows, transmitters) float32 do not fit in what is available.

    To be asked before any is made: the system promises more than it has, and kills who takes it.
    """
    needed = 4 * copies * rows * transmitters
    available = available_memory()
    if needed > available:
        raise MemoryError(
            f"{rows:,} rows × {transmitters:,} transmitters need {needed / 1e9:,.1f} GB, and {available / 1e9:,.1f} GB "
            "of memory are available. Take fewer rows or fewer transmitters"
        )


# === Scans ===


@dataclass(frozen=True, eq=False)
class Scans:
    """What receivers heard, without positions: what a model sees when it is asked.

    Attributes:
        rssi: (n, t) float32 in dBm; NaN = not heard.
        transmitters: (t,) different names of the access points or gateways.

    Indexing by rows (slice, mask or integer array) returns Scans.

    Raises:
        ValueError: if the shapes do not fit together, or a transmitter occurs twice.
    """

    rssi: np.ndarray
    transmitters: tuple[str, ...]

    def __post_init__(self):
        expected = (len(self.rssi), len(self.transmitters))
        if self.rssi.shape != expected:
            raise ValueError(f"`rssi` must have shape {expected}. Received: {self.rssi.shape}")
        repeated = pd.Index(self.transmitters, dtype=object).duplicated()
        if repeated.any():
            raise ValueError(f"`transmitters` must differ. Received twice: {self.transmitters[np.argmax(repeated)]}")

    def __len__(self) -> int:
        return len(self.rssi)

    def __getitem__(self, rows) -> "Scans":
        return dataclasses.replace(self, rssi=self.rssi[rows])

    @property
    def heard(self) -> np.ndarray:
        """(n, t) bool: which transmitters each scan hears."""
        return ~np.isnan(self.rssi)

    def of(self, transmitters: Sequence[str]) -> np.ndarray:
        """(n, k) dBm of these transmitters, in this order; one that the scans do not name is not heard.

        Raises:
            MemoryError: if that does not fit in what is available.
        """
        if tuple(transmitters) == self.transmitters:
            return self.rssi
        require_memory(len(self), len(transmitters))
        own_names = pd.Index(self.transmitters, dtype=object)
        columns = own_names.get_indexer(pd.Index(transmitters, dtype=object))
        named = columns >= 0
        rssi = np.full((len(self), len(transmitters)), np.nan, dtype=np.float32)
        rssi[:, named] = self.rssi[:, columns[named]]
        return rssi


def names_of(sets: Sequence["Scans | FingerprintSet"]) -> tuple[str, ...]:
    """All transmitters of several sets, those of the first set first; a name that several have is one transmitter."""
    names = {}
    for members in sets:
        names |= dict.fromkeys(members.transmitters)
    return tuple(names)


def in_common(sets: Sequence["Scans"]) -> Scans:
    """The scans of several environments, one after another, with the transmitters of all.

    Raises:
        MemoryError: if that does not fit in what is available.
    """
    names = names_of(sets)
    require_memory(sum(map(len, sets)), len(names))
    rssi = [scans.of(names) for scans in sets]
    return Scans(np.concatenate(rssi), names)


# === Fingerprints ===


@dataclass(frozen=True)
class Release:
    """Which file a set was read from.

    Attributes:
        file: its name.
        rows: how many it has.
        sha256: of the decompressed content; simulated sets have none.
        of_the_paper: whether the paper used these very rows, so that its figures can be checked on them.
    """

    file: str
    rows: int
    sha256: str | None
    of_the_paper: bool = False

    def __str__(self) -> str:
        return f"{self.file} ({self.rows:,} rows)"

    @property
    def simulated(self) -> bool:
        return self.sha256 is None


@dataclass(frozen=True, eq=False)
class FingerprintSet:
    """RSSI fingerprints of one environment.

    Attributes:
        rssi: (n, t) float32 in dBm; NaN = not heard.
        position: (n, 2) float64, metres east and north in `frame`.
        frame: converts positions to latitude/longitude or to the publisher's coordinates.
        transmitters: (t,) names of the access points or gateways.
        name: the environment, e.g. `ujiindoorloc`.
        release: which file the rows come from.
        floor, building: (n,) integers, where there are any.
        group: (n,) what a fair split keeps together: the device that measured.
        part: (n,) the publisher's own split, e.g. `train`, `validation`.
        time: (n,) datetime64, where the publisher gives it.
        not_heard: dBm that stand for "not heard" where a model needs a number: 1 dB below the weakest level that the
            receivers report. Without one it is taken from the rows, see `not_heard_dbm`.

    Indexing by rows (slice, mask or integer array) returns a FingerprintSet.

    Raises:
        ValueError: if the shapes do not fit together or a position is not finite.
    """

    rssi: np.ndarray
    position: np.ndarray
    frame: Frame
    transmitters: tuple[str, ...]
    name: str
    release: Release
    floor: np.ndarray | None = None
    building: np.ndarray | None = None
    group: np.ndarray | None = None
    part: np.ndarray | None = None
    time: np.ndarray | None = None
    not_heard: float | None = None

    def __post_init__(self):
        rows = len(self.rssi)
        columns = {"rssi": (len(self.transmitters),), "position": (2,)}
        for field, values in self._per_row().items():
            expected = (rows, *columns.get(field, ()))
            shape = np.shape(values)
            if shape != expected:
                raise ValueError(f"{self.name}: `{field}` must have shape {expected}. Received: {shape}")
        if not np.isfinite(self.position).all():
            raise ValueError(f"{self.name}: `position` must be finite. Received NaN or infinity")

    def __len__(self) -> int:
        return len(self.rssi)

    def __getitem__(self, rows) -> "FingerprintSet":
        chosen = {field: values[rows] for field, values in self._per_row().items()}
        subset = dataclasses.replace(self, **chosen)
        if "copy_hash" in self.__dict__:
            subset.__dict__["copy_hash"] = self.copy_hash[rows]
        return subset

    def _per_row(self) -> dict[str, np.ndarray]:
        """Attributes that have a value for each row, without those that the set lacks."""
        values = {field: getattr(self, field) for field in _PER_ROW}
        return {field: value for field, value in values.items() if value is not None}

    @property
    def scans(self) -> Scans:
        """The RSSI alone, without positions."""
        return Scans(self.rssi, self.transmitters)

    @property
    def heard(self) -> np.ndarray:
        """(n, t) bool: which transmitters each fingerprint hears."""
        return ~np.isnan(self.rssi)

    @property
    def not_heard_dbm(self) -> float:
        """The level that stands for "not heard"; where the loader knows none, 1 dB below the weakest of these rows.

        Raises:
            ValueError: if it is not known and no row hears anything.
        """
        if self.not_heard is not None:
            return self.not_heard
        if not self.heard.any():
            raise ValueError(f"{self.name}: expected rows that hear a transmitter. Received: {len(self)} that do not")
        return float(np.nanmin(self.rssi)) - 1

    @property
    def heard_values(self) -> np.ndarray:
        """All RSSI values in dBm that were heard, as one vector."""
        return self.rssi[self.heard]

    def _with_place(self, values: np.ndarray) -> pd.DataFrame:
        """Values of each row beside its floor and building, where it has any."""
        table = pd.DataFrame(values)
        for field in ("floor", "building"):
            if getattr(self, field) is not None:
                table[field] = getattr(self, field)
        return table

    @property
    def place_id(self) -> np.ndarray:
        """(n,) int: rows at the same position, floor and building share a number (a reference point)."""
        rows = self._with_place(self.position)
        return rows.groupby(list(rows.columns)).ngroup().to_numpy()

    @cached_property
    def copy_hash(self) -> np.ndarray:
        """(n,) uint64: rows with the same RSSI at the same place have the same number, in other sets, too."""
        hashed = np.empty(len(self), dtype=np.uint64)
        for rows in row_blocks(self.rssi.shape):
            block = self[rows]
            rssi = np.nan_to_num(block.rssi, nan=1.0)
            values = block._with_place(np.column_stack([rssi, block.position]))
            hashed[rows] = pd.util.hash_pandas_object(values, index=False)
        return hashed

    @property
    def copy_id(self) -> np.ndarray:
        """(n,) int: rows with the same RSSI at the same place share a number; protocols keep them together."""
        _, numbers = np.unique(self.copy_hash, return_inverse=True)
        return numbers


_PER_ROW = ("rssi", "position", "floor", "building", "group", "part", "time")


def joined(first: FingerprintSet, second: FingerprintSet) -> FingerprintSet:
    """The rows of one set and then those of another of the same environment, with the transmitters of the first.

    What only one of them has, such as floors, is left out.
    """
    if len(second) == 0:
        return first
    second = dataclasses.replace(second, rssi=second.scans.of(first.transmitters), transmitters=first.transmitters)
    rows = dict.fromkeys(_PER_ROW)
    for field in first._per_row().keys() & second._per_row().keys():
        rows[field] = np.concatenate([getattr(first, field), getattr(second, field)])
    return dataclasses.replace(first, **rows)
