"""Frames: planes in metres, and their way back to the earth.

Needs NumPy alone. Where pyproj is installed, it converts metres of any plane that PROJ knows to degrees and back.
Without it, closed forms convert metres of the two planes of this project to degrees.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lib import metrics
from lib.metrics import EARTH_RADIUS_M

WEB_MERCATOR = "EPSG:3857"
WEB_MERCATOR_RADIUS_M = 6_378_137.0


@dataclass(frozen=True)
class Frame:
    """A plane in metres east and north of an origin, and its way back to the earth.

    Attributes:
        crs: PROJ definition of the plane that the publisher's coordinates are in; None where nobody says where on
            earth it lies.
        origin: (east, north) of the local origin in that plane.
        ground_scale: ground metres in one unit of the plane (1 but for Web Mercator).
        great_circle: whether distances between positions are measured on the sphere, as the paper does outdoors
            (Eq. 7), or in the plane, as it does indoors (Eq. 6).
    """

    crs: str | None
    origin: tuple[float, float] = (0.0, 0.0)
    ground_scale: float = 1.0
    great_circle: bool = False

    @classmethod
    def around(cls, latitude: float, longitude: float) -> "Frame":
        """A plane that touches the sphere of Eq. 7 at one point: true to 1 cm within a city."""
        crs = f"+proj=aeqd +lat_0={latitude} +lon_0={longitude} +R={EARTH_RADIUS_M} +units=m +no_defs"
        return cls(crs, great_circle=True)

    def to_publisher(self, position: np.ndarray) -> np.ndarray:
        """(n, 2) local metres → (n, 2) coordinates of the publisher's plane."""
        return np.asarray(position, dtype=np.float64) + np.asarray(self.origin)

    def to_degrees(self, position: np.ndarray) -> np.ndarray:
        """(n, 2) local metres → (n, 2) latitude, longitude in degrees, NaN without a `crs`.

        Raises:
            ImportError: if pyproj is not installed and the plane is none of those that have a closed form here.
        """
        if self.crs is None:
            return np.full((len(position), 2), np.nan)
        east, north = self.to_publisher(position).T
        transformer = _transformer(self.crs)
        if transformer is None:
            latitude, longitude = _by_closed_form(self.crs, east, north)
        else:
            longitude, latitude = transformer.transform(east, north)
        return np.column_stack([latitude, longitude])

    def from_degrees(self, degrees: np.ndarray) -> np.ndarray:
        """(n, 2) latitude, longitude in degrees → (n, 2) local metres.

        Raises:
            ValueError: if there is no `crs`.
            ImportError: if pyproj is not installed.
        """
        if self.crs is None:
            raise ValueError("a frame without `crs` has no place on earth, and so no metres for degrees")
        transformer = _transformer(self.crs)
        if transformer is None:
            raise _lacking_pyproj(self.crs)
        latitude, longitude = np.asarray(degrees, dtype=np.float64).T
        east, north = transformer.transform(longitude, latitude, direction="INVERSE")
        return np.column_stack([east, north]) - np.asarray(self.origin)

    def errors(self, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """(n, 2), (n, 2) local metres → (n,) localization errors in metres, by Eq. 7 or Eq. 6 of the paper."""
        if self.great_circle:
            return metrics.haversine_errors(self.to_degrees(true), self.to_degrees(predicted))
        return metrics.euclidean_errors(true, predicted)


# === Metres → degrees ===


@lru_cache
def _transformer(crs: str):
    """pyproj's transformer from a plane to longitude and latitude; None where pyproj is not installed."""
    try:
        import pyproj  # not above: a machine that only locates does without it
    except ImportError:
        return None
    geographic = pyproj.CRS(crs).geodetic_crs
    return pyproj.Transformer.from_crs(crs, geographic, always_xy=True)


def _by_closed_form(crs: str, east: np.ndarray, north: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,), (n,) metres of a plane → (n,) latitudes and (n,) longitudes in degrees."""
    if crs == WEB_MERCATOR:
        latitude, longitude = _of_web_mercator(east, north)
    else:
        latitude, longitude = _of_azimuthal_equidistant(_azimuthal_equidistant(crs), east, north)
    within_half_a_turn = np.remainder(np.degrees(longitude) + 180, 360) - 180
    return np.degrees(latitude), within_half_a_turn


def _of_web_mercator(east: np.ndarray, north: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,), (n,) metres → (n,) latitudes and (n,) longitudes in radians."""
    latitude = np.arctan(np.sinh(north / WEB_MERCATOR_RADIUS_M))
    longitude = east / WEB_MERCATOR_RADIUS_M
    return latitude, longitude


def _azimuthal_equidistant(crs: str) -> dict[str, float]:
    """`lat_0`, `lon_0` in degrees and `R` in metres of a plane that touches a sphere at that point.

    Raises:
        ImportError: if it is another plane.
    """
    definition = {}
    for part in crs.split():
        name, _, value = part.removeprefix("+").partition("=")
        definition[name] = value
    expected = {"proj", "lat_0", "lon_0", "R", "units", "no_defs"}
    if set(definition) != expected or definition["proj"] != "aeqd" or definition["units"] != "m":
        raise _lacking_pyproj(crs)
    return {name: float(definition[name]) for name in ("lat_0", "lon_0", "R")}


def _of_azimuthal_equidistant(
    plane: dict[str, float], east: np.ndarray, north: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n,), (n,) metres → (n,) latitudes and (n,) longitudes in radians."""
    latitude_0 = np.radians(plane["lat_0"])
    longitude_0 = np.radians(plane["lon_0"])
    angle = np.hypot(east, north) / plane["R"]  # at the centre of the sphere, from the point where the plane touches
    shrinkage = np.sinc(angle / np.pi) / plane["R"]  # sin(angle) / distance, and 1 / R at that point
    right = east * shrinkage
    up = north * shrinkage
    forward = np.cos(angle)
    to_axis = forward * np.cos(latitude_0) - up * np.sin(latitude_0)
    along_axis = forward * np.sin(latitude_0) + up * np.cos(latitude_0)
    latitude = np.arctan2(along_axis, np.hypot(right, to_axis))
    longitude = longitude_0 + np.arctan2(right, to_axis)
    return latitude, longitude


def _lacking_pyproj(crs: str) -> ImportError:
    return ImportError(
        f"expected pyproj, by which metres of the plane {crs} and degrees become each other; it is not installed: "
        "pip install pyproj",
        name="pyproj",
    )
