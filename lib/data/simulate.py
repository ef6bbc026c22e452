"""A seeded radio simulator: two environments that look like the measured ones, for when no measured file can be had.

The model is the usual one of the field; at a distance d from a transmitter, in dBm::

    P = power + gain − 10 · exponent · log10(d / 1 m) − walls − floors + shadowing + device offset + fading

and P is reported, in whole dBm, where it rises above the receiver's sensitivity and the interference of the moment.
The parameters were set so that the marginals agree with the published files; the tests hold the figures.
Each seed is one world (transmitters, shadowing, devices, parking places). More rows are more visits to the same world.
"""

from dataclasses import dataclass

import numpy as np

from lib.data.fingerprints import FingerprintSet, Release, require_memory, row_blocks
from lib.data.frames import Frame

FEATURES = 512  # the covariance of the shadowing is then within a few per cent of its target

CAMPUS_FRAME = Frame("EPSG:3857", origin=(-7691.3384, 4864745.745), ground_scale=0.7661)  # cos 39.993°
BUILDING_SIZE_M = np.array([78.0, 42.0])  # east, north, ground metres
BUILDING_STEP_M = np.array([110.0, -54.0])  # from one building to the next
FLOORS = (4, 4, 5)
FLOOR_HEIGHT_M = 4.0
PHONE_HEIGHT_M = 1.2
CEILING_M = 3.0  # access points hang from the ceiling
GRID_M, ANYWHERE_M = 2.0, 0.01  # who validates stands off the grid
SCANS_PER_POINT, SCANS_PER_VISIT = 20, 10
TRAIN_PHONES = (14, 13, 7, 6, 23, 19, 8, 17, 22, 3, 1, 11, 10, 24, 18, 16)  # the most used first
VALIDATION_PHONES = (13, 20, 0, 9, 12, 4, 21, 2, 15, 14, 5)
COPIED_SHARE = 0.03  # of the train rows: they repeat the row before
SILENT_SHARE = 0.004  # of the train rows: they hear nothing
OFF_AIR_SHARE = 0.1  # access points that are switched off during one campaign
CITY_FRAME = Frame.around(51.2, 4.4)
STREETS_CENTRE_M = np.array([900.0, 1600.0])
STREETS_SPREAD_M = np.array([1000.0, 1500.0])
GATEWAY_SPREAD_M = 4500.0
REMOTE_SHARE, REMOTE_SPREAD_M = 0.42, 60_000.0  # gateways of other towns, in the same table
VEHICLES = 100
VEHICLE_HEIGHT_M, MAST_HEIGHT_M = 2.0, 30.0
GPS_SIGMA_M = 2.0
PARKING_PLACES, PARKED_SHARE, PLACE_EXPONENT = 3000, 0.86, 0.85
MOST_REPORTED = 10  # a message lists its ten strongest gateways
LEAST_KEPT = 0.005  # share of the messages; to keep fewer would take minutes
MESSAGES_AT_ONCE = 4096  # are drawn, and of these those kept that enough gateways hear


@dataclass(frozen=True)
class Radio:
    """Parameters of the propagation model; the defaults are those of Wi-Fi within buildings."""

    power_dbm: float = -48.0  # mean received power 1 m from a transmitter
    gain_sigma_db: float = 15.0  # spread of power, antenna and mounting between transmitters
    exponent: float = 3.0  # path loss exponent; 2 in free space
    wall_db_per_m: float = 0.35  # inner walls, for each metre that is travelled indoors
    indoor_limit_m: float = 60.0  # metres indoors at most: a longer path has left the building
    outer_wall_db: float = 10.0  # each of the two outer walls between two buildings
    floor_db: float = 17.0  # each slab between two storeys of one building
    shadowing_sigma_db: float = 5.0  # spread of the shadowing
    shadowing_distance_m: float = 12.0  # distance at which its correlation has fallen to 1/e
    device_sigma_db: float = 3.0  # spread of the offset between devices
    fading_sigma_db: float = 2.7  # spread between readings at one place
    sensitivity_dbm: float = -104.0  # weakest power that is ever reported
    interference_db: float = 11.0  # Rayleigh scale of how far interference lifts that limit for one reading
    saturation_dbm: float = 0.0  # strongest power that is ever reported


WIFI = Radio()
LORA = Radio(
    power_dbm=-19.0,
    gain_sigma_db=4.0,
    exponent=3.5,
    wall_db_per_m=0.0,
    shadowing_sigma_db=9.0,
    shadowing_distance_m=120.0,
    device_sigma_db=8.0,  # with the antenna's place in the vehicle and the spreading factor, which no column tells
    sensitivity_dbm=-127.0,
    interference_db=7.0,
    saturation_dbm=-50.0,
)


@dataclass(frozen=True)
class Sites:
    """Where k transmitters or receivers are."""

    position: np.ndarray  # (k, 3) ground metres east, north, up
    floor: np.ndarray  # (k,) int
    building: np.ndarray  # (k,) int

    def __getitem__(self, rows) -> "Sites":
        return Sites(self.position[rows], self.floor[rows], self.building[rows])


@dataclass(frozen=True)
class World:
    """What stays the same from one reading to the next: t transmitters, and shadowing as random Fourier features."""

    radio: Radio
    transmitters: Sites
    gain_db: np.ndarray  # (t,) departure of each transmitter from the mean power
    frequency: np.ndarray  # (3, FEATURES) rad/m
    phase: np.ndarray  # (FEATURES,) rad
    weight: np.ndarray  # (FEATURES, t) dB


def make_world(radio: Radio, transmitters: Sites, rng: np.random.Generator) -> World:
    """Draws the gains, and shadowing with the covariance sigma² · exp(−distance / scale) for each transmitter."""
    # The spectrum of an exponential covariance is a Student t with one degree of freedom, in any number of dimensions.
    count = len(transmitters.position)
    direction = rng.standard_normal((3, FEATURES))
    spectrum = direction / np.abs(rng.standard_normal(FEATURES))
    phase = rng.uniform(0, 2 * np.pi, FEATURES)
    sigma_db = radio.shadowing_sigma_db * np.sqrt(2 / FEATURES)
    weight = rng.normal(0.0, sigma_db, (FEATURES, count))
    gain_db = rng.normal(0.0, radio.gain_sigma_db, count)
    return World(radio, transmitters, gain_db, spectrum / radio.shadowing_distance_m, phase, weight)


def mean_power(world: World, receivers: Sites) -> np.ndarray:
    """(n, t) dBm that distance, walls and floors leave of the transmitted power at n receivers."""
    radio = world.radio
    transmitters = world.transmitters
    difference = receivers.position[:, None] - transmitters.position
    squared = np.einsum("ntd,ntd->nt", difference, difference)
    distance = np.maximum(np.sqrt(squared), 1.0)
    path_loss = 10 * radio.exponent * np.log10(distance)
    walls = radio.wall_db_per_m * np.minimum(distance, radio.indoor_limit_m)
    # Between buildings the signal goes through windows and air, not through the slabs.
    same_building = receivers.building[:, None] == transmitters.building
    slabs = np.abs(receivers.floor[:, None] - transmitters.floor)
    barrier = np.where(same_building, radio.floor_db * slabs, 2 * radio.outer_wall_db)
    return radio.power_dbm + world.gain_db - path_loss - walls - barrier


def shadowing(world: World, position: np.ndarray) -> np.ndarray:
    """(n, 3) ground metres → (n, t) dB: Gaussian, correlated in space, independent between transmitters."""
    features = np.cos(position @ world.frequency + world.phase)
    return features @ world.weight


def measure(
    world: World,
    receivers: Sites,
    device_offset_db: np.ndarray,
    rng: np.random.Generator,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """One reading at each of n sites by devices with (n,) offsets: (n, t) float32 whole dBm; NaN = not heard.

    `out` takes the readings, if given.
    """
    radio = world.radio
    n = len(receivers.position)
    t = len(world.gain_db)
    rssi = np.empty((n, t), dtype=np.float32) if out is None else out
    for rows in row_blocks((n, FEATURES + 3 * t)):
        block = receivers[rows]
        power = mean_power(world, block) + shadowing(world, block.position)
        noise = rng.standard_normal((len(power), 3, t), dtype=np.float32)
        fading = radio.fading_sigma_db * noise[:, 0]
        power = np.rint(power + device_offset_db[rows, None] + fading)
        interference = radio.interference_db * np.hypot(noise[:, 1], noise[:, 2])
        heard = power >= radio.sensitivity_dbm + interference
        rssi[rows] = np.where(heard, np.minimum(power, radio.saturation_dbm), np.nan)
    return rssi


def campus(
    n_train: int = 4000, n_validation: int = 400, n_access_points: int = 520, n_buildings: int = 3, seed: int = 0
) -> FingerprintSet:
    """Wi-Fi fingerprints of a campus in the manner of UJIIndoorLoc; positions in Mercator metres.

    The train part scans each of about n_train / 20 reference points with two phones; the validation part comes three
    months later, with mostly other phones, anywhere in the buildings, and with other access points switched off.

    Raises:
        ValueError: if a count is not a positive whole number, or the seed not a whole number of at least 0.
        MemoryError: if that many rows of so many access points do not fit in what is available.
    """
    _require_whole(1, n_train=n_train, n_validation=n_validation)
    _require_whole(1, n_access_points=n_access_points, n_buildings=n_buildings)
    _require_whole(0, seed=seed)
    require_memory(n_train + n_validation, n_access_points)
    world_rng, rooms_rng, offsets_rng, air_rng, *rows_rng = np.random.default_rng(seed).spawn(11)
    points_rng, phone_rng, train_noise, flaws_rng, places_rng, later_phone_rng, validation_noise = rows_rng
    access_points = _rooms(n_access_points, n_buildings, CEILING_M, ANYWHERE_M, rooms_rng)
    world = make_world(WIFI, access_points, world_rng)
    n_phones = 1 + max(TRAIN_PHONES + VALIDATION_PHONES)
    phone_offset_db = offsets_rng.normal(0.0, WIFI.device_sigma_db, n_phones)
    off_air = air_rng.random((2, n_access_points)) < OFF_AIR_SHARE
    rssi = np.empty((n_train + n_validation, n_access_points), dtype=np.float32)

    row = np.arange(n_train)
    visit = row // SCANS_PER_VISIT
    point = row // SCANS_PER_POINT
    points = _rooms(point[-1] + 1, n_buildings, PHONE_HEIGHT_M, GRID_M, points_rng)
    train_sites = points[point]
    train_phone = _by_rank(TRAIN_PHONES, 1.0, visit[-1] + 1, phone_rng)[visit]
    train_rssi = rssi[:n_train]
    measure(world, train_sites, phone_offset_db[train_phone], train_noise, out=train_rssi)
    train_rssi[:, off_air[0]] = np.nan
    train_time = _times("2013-05-30T10:15", 21, n_train)
    flaw = flaws_rng.random(n_train)
    train_rssi[flaw < SILENT_SHARE] = np.nan
    same_visit = row % SCANS_PER_VISIT > 0
    copied = np.flatnonzero((flaw > 1 - COPIED_SHARE) & same_visit)
    train_rssi[copied] = train_rssi[copied - 1]
    train_time[copied] = train_time[copied - 1]

    sites = _rooms(n_validation, n_buildings, PHONE_HEIGHT_M, ANYWHERE_M, places_rng)
    phone = _by_rank(VALIDATION_PHONES, 1.0, n_validation, later_phone_rng)
    validation_rssi = rssi[n_train:]
    measure(world, sites, phone_offset_db[phone], validation_noise, out=validation_rssi)
    validation_rssi[:, off_air[1]] = np.nan

    position = np.concatenate([train_sites.position, sites.position])[:, :2]
    numbers = range(1, n_access_points + 1)
    return FingerprintSet(
        rssi=rssi,
        position=position / CAMPUS_FRAME.ground_scale,
        frame=CAMPUS_FRAME,
        transmitters=tuple(map("WAP{:03d}".format, numbers)),
        name="ujiindoorloc",
        release=Release(f"simulated campus (seed {seed})", n_train + n_validation, None),
        not_heard=WIFI.sensitivity_dbm - 1,
        floor=np.concatenate([train_sites.floor, sites.floor]),
        building=np.concatenate([train_sites.building, sites.building]),
        group=np.concatenate([train_phone, phone]),
        part=np.repeat(["train", "validation"], [n_train, n_validation]),
        time=np.concatenate([train_time, _times("2013-09-19T08:12", 19, n_validation)]),
    )


def city(n: int = 4000, n_gateways: int = 72, seed: int = 0, minimum_heard: int = 3) -> FingerprintSet:
    """LoRaWAN fingerprints of a city in the manner of the Antwerp set: vehicles that drive, and park again and again.

    Only messages that at least `minimum_heard` gateways receive are kept: 3 as in the subset, 1 as in the full release.

    Raises:
        ValueError: if an argument is out of its range, or hardly any message reaches `minimum_heard` gateways.
        MemoryError: if n messages to so many gateways do not fit in what is available.
    """
    _require_whole(1, n=n, n_gateways=n_gateways, minimum_heard=minimum_heard)
    _require_whole(0, seed=seed)
    require_memory(n, n_gateways)
    masts_rng, world_rng, places_rng, vehicles_rng, rng, parts_rng = np.random.default_rng(seed).spawn(6)
    remote = masts_rng.random((n_gateways, 1)) < REMOTE_SHARE
    spread = np.where(remote, REMOTE_SPREAD_M, GATEWAY_SPREAD_M)
    masts = masts_rng.normal(STREETS_CENTRE_M, spread, (n_gateways, 2))
    world = make_world(LORA, _outdoors(masts, MAST_HEIGHT_M), world_rng)
    places = places_rng.normal(STREETS_CENTRE_M, STREETS_SPREAD_M, (PARKING_PLACES, 2))
    vehicle_offset_db = vehicles_rng.normal(0.0, LORA.device_sigma_db, VEHICLES)
    rssi = np.empty((n, n_gateways), dtype=np.float32)
    position = np.empty((n, 2))
    kept = 0
    while kept < n:
        parked_at = _by_rank(places, PLACE_EXPONENT, MESSAGES_AT_ONCE, rng)  # a few depots see most of the parking
        driving_at = rng.normal(STREETS_CENTRE_M, STREETS_SPREAD_M, (MESSAGES_AT_ONCE, 2))
        parked = rng.random((MESSAGES_AT_ONCE, 1)) < PARKED_SHARE
        sent_at = np.where(parked, parked_at, driving_at)
        vehicle = rng.integers(VEHICLES, size=MESSAGES_AT_ONCE)
        senders = _outdoors(sent_at, VEHICLE_HEIGHT_M)
        heard = measure(world, senders, vehicle_offset_db[vehicle], rng)
        not_reported = np.argsort(-heard, axis=1)[:, MOST_REPORTED:]
        np.put_along_axis(heard, not_reported, np.nan, axis=1)
        enough = (~np.isnan(heard)).sum(axis=1) >= minimum_heard
        if enough.mean() < LEAST_KEPT:
            reached = f"reached by at least {LEAST_KEPT:.1%} of the messages to n_gateways={n_gateways}"
            raise ValueError(f"`minimum_heard` must be {reached}. Received: minimum_heard={minimum_heard}")
        located_at = sent_at + rng.normal(0.0, GPS_SIGMA_M, sent_at.shape)
        new = np.flatnonzero(enough)[: n - kept]
        end = kept + len(new)
        rssi[kept:end] = heard[new]
        position[kept:end] = located_at[new]
        kept = end
    numbers = range(1, n_gateways + 1)
    return FingerprintSet(
        rssi=rssi,
        position=position,
        frame=CITY_FRAME,
        transmitters=tuple(map("BS {}".format, numbers)),
        name="lorawan_antwerp",
        release=Release(f"simulated city (seed {seed})", n, None),
        not_heard=LORA.sensitivity_dbm - 1,
        part=np.where(parts_rng.random(n) < 0.5, "val", "test"),
    )


def _rooms(n: int, n_buildings: int, above_floor_m: float, grid_m: float, rng: np.random.Generator) -> Sites:
    """n places in the buildings of the campus, on a grid of `grid_m`."""
    draws = rng.random((n, 4))  # a row each, so that more places leave the first ones where they are
    building = (draws[:, 0] * n_buildings).astype(np.int64)
    floors = np.take(FLOORS, building, mode="wrap")
    floor = (draws[:, 1] * floors).astype(np.int64)
    inside = np.rint(draws[:, 2:] * BUILDING_SIZE_M / grid_m) * grid_m
    last_corner = BUILDING_STEP_M * (n_buildings - 1)
    corner = building[:, None] * BUILDING_STEP_M - np.minimum(last_corner, 0)
    height = floor * FLOOR_HEIGHT_M + above_floor_m
    return Sites(np.column_stack([corner + inside, height]), floor, building)


def _outdoors(position: np.ndarray, height_m: float) -> Sites:
    """(k, 2) ground metres → k sites without walls or floors between them."""
    ground = np.zeros(len(position), dtype=np.int64)
    return Sites(np.insert(position, 2, height_m, axis=1), ground, ground)


def _by_rank(choices, exponent: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """n of the choices, drawn with shares that fall with rank ** −exponent (Zipf)."""
    share = np.arange(1.0, len(choices) + 1) ** -exponent
    return rng.choice(choices, n, p=share / share.sum())


def _times(start: str, days: int, n: int) -> np.ndarray:
    """(n,) datetime64[s], evenly over a campaign."""
    seconds = np.linspace(0, days * 86_400, n)
    return np.datetime64(start, "s") + seconds.astype("timedelta64[s]")


def _require_whole(least: int, **arguments: int) -> None:
    for name, value in arguments.items():
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < least:
            raise ValueError(f"`{name}` must be a whole number of at least {least}. Received: {name}={value!r}")
