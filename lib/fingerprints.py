"""FingerprintSet: RSSI measured at known positions, in one form whatever the environment or the publisher."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyproj

EARTH_RADIUS_M = 6_371_010.0  # the paper's R = 6371.01 km (Eq. 7)
VALUES_AT_ONCE, LEAST_ROWS = 2**20, 1024  # in a block of rows: 8 MB as float64, more where rows are very long
# Files with the limit on the memory of a container, of either kind.
CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


# === Memory ===


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices that cover the rows of an array, block by block: what is computed from a block stays small beside it."""
    rows, *columns = shape
    step = max(LEAST_ROWS, VALUES_AT_ONCE // max(1, math.prod(columns)))
    return (slice(start, start + step) for start in range(0, rows, step))


def available_memory() -> int:
    """Bytes that one array may take: 90 % of what the machine, or the container's limit, leaves to this process."""
    limits = [file.read_text().strip() for file in CONTAINER_LIMITS if file.exists()]
    held = psutil.Process().memory_info().rss
    left = [psutil.virtual_memory().available, *(int(limit) - held for limit in limits if limit != "max")]
    return int(0.9 * max(0, min(left)))


def require_memory(rows: int, transmitters: int, copies: int = 1) -> None:
    """Raise MemoryError if so many arrays of (rows, transmitters) float32 do not fit in what is available.

    To be asked before any is made: the system promises more than it has, and kills who takes it.
    """
    needed, available = 4 * copies * rows * transmitters, available_memory()
    if needed > available:
        raise MemoryError(
            f"{rows:,} rows × {transmitters:,} transmitters need {needed / 1e9:,.1f} GB, and {available / 1e9:,.1f} GB "
            "of memory are available. Take fewer rows or fewer transmitters"
        )


# === Positions ===


@lru_cache
def _to_degrees(crs: str) -> pyproj.Transformer:
    geographic = pyproj.CRS(crs).geodetic_crs
    return pyproj.Transformer.from_crs(crs, geographic, always_xy=True)


@dataclass(frozen=True)
class Frame:
    """A plane in metres east and north of an origin, and its way back to the earth.

    Attributes:
        crs: PROJ definition of the plane that the publisher's coordinates are in; None where nobody says where on
            earth it lies.
        origin: (east, north) of the local origin in that plane.
        ground_scale: ground metres in one unit of the plane (1 but for Web Mercator).
    """

    crs: str | None
    origin: tuple[float, float] = (0.0, 0.0)
    ground_scale: float = 1.0

    @classmethod
    def around(cls, latitude: float, longitude: float) -> "Frame":
        """A plane that touches the sphere of Eq. 7 at one point: true to 1 cm within a city."""
        return cls(f"+proj=aeqd +lat_0={latitude} +lon_0={longitude} +R={EARTH_RADIUS_M} +units=m +no_defs")

    def to_publisher(self, position: np.ndarray) -> np.ndarray:
        """(n, 2) local metres → (n, 2) coordinates of the publisher's plane."""
        return np.asarray(position, dtype=np.float64) + np.asarray(self.origin)

    def to_degrees(self, position: np.ndarray) -> np.ndarray:
        """(n, 2) local metres → (n, 2) latitude, longitude in degrees, NaN without a `crs`."""
        if self.crs is None:
            return np.full((len(position), 2), np.nan)
        east, north = self.to_publisher(position).T
        longitude, latitude = _to_degrees(self.crs).transform(east, north)
        return np.column_stack([latitude, longitude])

    def from_degrees(self, degrees: np.ndarray) -> np.ndarray:
        """(n, 2) latitude, longitude in degrees → (n, 2) local metres.

        Raises:
            ValueError: if there is no `crs`.
        """
        if self.crs is None:
            raise ValueError("a frame without `crs` has no place on earth, and so no metres for degrees")
        latitude, longitude = np.asarray(degrees, dtype=np.float64).T
        east, north = _to_degrees(self.crs).transform(longitude, latitude, direction="INVERSE")
        return np.column_stack([east, north]) - np.asarray(self.origin)


# === Fingerprints ===


@dataclass(frozen=True)
class Release:
    """Which file a set was read from. `sha256` is of the decompressed content; simulated sets have none."""

    file: str
    rows: int
    sha256: str | None

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

    def __post_init__(self):
        rows = len(self.rssi)
        expected = {
            "rssi": (rows, len(self.transmitters)),
            "position": (rows, 2),
            **{name: (rows,) for name in _PER_ROW_OPTIONAL if getattr(self, name) is not None},
        }
        for field, shape in expected.items():
            found = np.shape(getattr(self, field))
            if found != shape:
                raise ValueError(f"{self.name}: `{field}` must have shape {shape}. Received: {found}")
        if not np.isfinite(self.position).all():
            raise ValueError(f"{self.name}: `position` must be finite. Received NaN or infinity")

    def __len__(self) -> int:
        return len(self.rssi)

    def __getitem__(self, rows) -> "FingerprintSet":
        chosen = {field: getattr(self, field)[rows] for field in ("rssi", "position")}
        chosen |= {f: getattr(self, f)[rows] for f in _PER_ROW_OPTIONAL if getattr(self, f) is not None}
        return dataclasses.replace(self, **chosen)

    @property
    def heard(self) -> np.ndarray:
        """(n, t) bool: which transmitters each fingerprint hears."""
        return ~np.isnan(self.rssi)

    @property
    def heard_values(self) -> np.ndarray:
        """All RSSI values in dBm that were heard, as one vector."""
        return self.rssi[self.heard]

    def _with_place(self, values: np.ndarray) -> pd.DataFrame:
        """Values of each row beside its floor and building, where it has any."""
        place = {field: getattr(self, field) for field in ("floor", "building") if getattr(self, field) is not None}
        return pd.DataFrame(values).assign(**place)

    @property
    def place_id(self) -> np.ndarray:
        """(n,) int: rows at the same position, floor and building share a number (a reference point)."""
        rows = self._with_place(self.position)
        return rows.groupby(list(rows.columns)).ngroup().to_numpy()

    @cached_property
    def copy_id(self) -> np.ndarray:
        """(n,) int: rows with the same RSSI at the same place share a number; splits keep them together."""
        hashed = np.empty(len(self), dtype=np.uint64)  # in whose order the numbers are: the splits draw by them
        for rows in row_blocks(self.rssi.shape):
            block = self[rows]
            values = block._with_place(np.column_stack([np.nan_to_num(block.rssi, nan=1.0), block.position]))
            hashed[rows] = pd.util.hash_pandas_object(values, index=False)
        return np.unique(hashed, return_inverse=True)[1]


_PER_ROW_OPTIONAL = ("floor", "building", "group", "part", "time")


def joined(one: FingerprintSet, other: FingerprintSet) -> FingerprintSet:
    """The rows of one set and then those of another of the same release."""
    fields = [field for field in ("rssi", "position", *_PER_ROW_OPTIONAL) if getattr(one, field) is not None]
    rows = {field: np.concatenate([getattr(one, field), getattr(other, field)]) for field in fields}
    return dataclasses.replace(one, **rows)
