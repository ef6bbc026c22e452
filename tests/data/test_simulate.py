"""The simulator: its marginals against the measured files, its physics, and that a seed is a world."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.data import fingerprints, simulate
from lib.paths import data_folders

# Measured on the publishers' files: UJIIndoorLoc's training and validation file pooled (21,048 rows), and the Antwerp
# messages that three gateways or more received (16,613 rows). `missing`: share of the cells that hold the marker.
# `heard`: median number of transmitters a row. `kept`: transmitters that at most 98 % of the rows miss.
# `weakest`, `q05`, `median`, `q95`: quantiles, in dBm, of all values that were heard.
CAMPUS = {"missing": 0.9655, "heard": 17, "weakest": -104, "q05": -94, "median": -82, "q95": -54, "kept": 249}
CITY = {"missing": 0.9371, "heard": 4, "weakest": -127, "q05": -119, "median": -113, "q95": -97, "kept": 28}
MEASURED = {
    "campus": (CAMPUS, 100, 520, ("ujiindoorloc/trainingData.csv.xz", "ujiindoorloc/validationData.csv.xz")),
    "city": (CITY, -200, 72, ("lorawan_antwerp/lorawan_antwerp_3gw.csv.xz",)),
}


def marginals(rssi: np.ndarray) -> dict[str, float]:
    heard = ~np.isnan(rssi)
    weakest, q05, median, q95 = np.quantile(rssi[heard], [0, 0.05, 0.5, 0.95])
    return {
        "missing": 1 - heard.mean(),
        "heard": np.median(heard.sum(axis=1)),
        "weakest": weakest,
        "q05": q05,
        "median": median,
        "q95": q95,
        "kept": np.sum(1 - heard.mean(axis=0) <= 0.98),
    }


def measured_files(names: tuple[str, ...]) -> list[Path]:
    """The publisher's files in the first folder that has them all; none if no folder does."""
    folders = [folder for folder in data_folders() if all((folder / name).is_file() for name in names)]
    return [folders[0] / name for name in names] if folders else []


def sites(east_m, floor=0, building=0) -> simulate.Sites:
    """Receivers or transmitters along a line."""
    east_m = np.atleast_1d(np.asarray(east_m, dtype=float))
    position = np.column_stack([east_m, np.zeros_like(east_m), np.zeros_like(east_m)])
    return simulate.Sites(position, np.full(len(east_m), floor), np.full(len(east_m), building))


def world(transmitters: simulate.Sites, seed=0, **changes) -> simulate.World:
    radio = dataclasses.replace(simulate.WIFI, **changes)
    return simulate.make_world(radio, transmitters, np.random.default_rng(seed))


def assert_same(large, small, rows=slice(None)):
    for field in ("rssi", "position", "floor", "building", "group"):
        if getattr(small, field) is not None:
            np.testing.assert_array_equal(getattr(large, field)[rows], getattr(small, field), err_msg=field)


# === Agreement with the measured sets ===


@pytest.mark.parametrize("environment", MEASURED)
def test_figures_are_those_of_the_measured_files(environment):
    figures, marker, columns, names = MEASURED[environment]
    for_each = [pd.read_csv(path).iloc[:, :columns].to_numpy(float) for path in measured_files(names)]
    if for_each:  # elsewhere there is nothing to compare with
        rssi = np.concatenate(for_each)
        measured = marginals(np.where(rssi == marker, np.nan, rssi))
        assert measured == pytest.approx(figures, abs=5e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("environment", "simulated"), [(CAMPUS, simulate.campus), (CITY, simulate.city)])
def test_marginals_agree_with_the_measured_ones(environment, simulated, seed):
    figures = marginals(simulated(seed=seed).rssi)
    assert figures["missing"] == pytest.approx(environment["missing"], abs=0.015)
    assert figures["heard"] == pytest.approx(environment["heard"], rel=0.25)
    assert figures["weakest"] == pytest.approx(environment["weakest"], abs=3)
    assert figures["median"] == pytest.approx(environment["median"], abs=4)
    assert figures["q05"] == pytest.approx(environment["q05"], abs=6)
    assert figures["q95"] == pytest.approx(environment["q95"], abs=6)
    if environment is CAMPUS:
        assert figures["kept"] == pytest.approx(environment["kept"], rel=0.2)


def test_campus_is_built_like_the_measured_one():
    campus = simulate.campus()
    train, validation = campus[campus.part == "train"], campus[campus.part == "validation"]
    assert (len(train), len(validation), campus.rssi.dtype) == (4000, 400, np.float32)
    assert campus.transmitters[0] == "WAP001"
    assert set(zip(campus.building, campus.floor, strict=True)) == {
        (b, f) for b, n in enumerate((4, 4, 5)) for f in range(n)
    }
    assert 180 <= train.place_id.max() + 1 <= 200
    assert len(np.unique(validation.place_id)) == len(validation)
    assert not set(map(tuple, validation.position)) & set(map(tuple, train.position))
    assert 0 < np.sum(~train.heard.any(axis=1)) < 40
    assert 0.01 < 1 - len(np.unique(train.copy_id)) / len(train) < 0.06
    assert len(set(validation.group) & set(train.group)) == 2
    assert train.time.max() < validation.time.min()
    latitude, longitude = campus.frame.to_degrees(campus.position).T
    assert latitude.min() > 39.991 and latitude.max() < 39.995
    assert longitude.min() > -0.0695 and longitude.max() < -0.0650


def test_neighbours_in_signal_are_neighbours_in_space():
    campus = simulate.campus()
    train, validation = campus.part == "train", campus.part == "validation"
    signal = np.nan_to_num(campus.rssi, nan=-105.0)
    squared = np.square(signal[train]).sum(axis=1) - 2 * signal[validation] @ signal[train].T
    error = campus.position[train][squared.argmin(axis=1)] - campus.position[validation]
    assert 3 < np.linalg.norm(error, axis=1).mean() < 20  # 10.9 m on 4,000 rows of the measured set


def test_city_is_built_like_the_measured_one():
    city = simulate.city()
    heard = city.heard.sum(axis=1)
    assert (heard.min(), heard.max(), city.transmitters[0]) == (3, 10, "BS 1")
    assert 34 <= city.heard.any(axis=0).sum() <= 50  # 42 in the measured subset
    assert set(city.part) == {"val", "test"} and abs(np.mean(city.part == "val") - 0.5) < 0.03
    distance = np.linalg.norm(city.position[:, None] - city.position[None, :1500], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (distance.min(axis=0) < 5).mean() > 0.5  # 0.63 on 4,000 rows of the measured set


def test_full_city_keeps_messages_that_one_gateway_hears():
    heard = simulate.city(minimum_heard=1).heard.sum(axis=1)
    assert heard.min() == 1
    assert np.mean(heard >= 3) == pytest.approx(0.425, abs=0.15)  # 55,375 of 130,429 messages of the full release


@pytest.mark.parametrize("simulated", [simulate.campus(100, 10), simulate.city(100)])
def test_release_says_that_it_is_simulated(simulated):
    assert simulated.release.simulated
    assert simulated.release.rows == len(simulated)
    assert "simulated" in simulated.release.file and "seed 0" in simulated.release.file


# === One seed is one world ===


def test_same_seed_gives_the_same_campus_and_another_seed_another():
    campus = simulate.campus(300, 50, seed=7)
    again = simulate.campus(300, 50, seed=7)
    assert_same(campus, again)
    np.testing.assert_array_equal(campus.time, again.time)
    another = simulate.campus(300, 50, seed=8)
    assert not np.array_equal(campus.rssi, another.rssi, equal_nan=True)
    assert not np.array_equal(campus.position, another.position)


def test_same_seed_gives_the_same_city_and_another_seed_another():
    assert_same(simulate.city(300, seed=7), simulate.city(300, seed=7))
    assert not np.array_equal(simulate.city(300, seed=7).rssi, simulate.city(300, seed=8).rssi, equal_nan=True)


def test_more_rows_are_more_visits_to_the_same_world():
    small, large = simulate.campus(200, 40), simulate.campus(5000, 60)
    assert_same(large, small[small.part == "train"], slice(200))
    assert_same(large, small[small.part == "validation"], slice(5000, 5040))
    few, many = simulate.city(500), simulate.city(6000)
    assert_same(many, few, slice(500))
    np.testing.assert_array_equal(many.part[:500], few.part)


# === Physics ===


def test_mean_power_falls_by_the_exponent():
    line = world(sites(0.0), gain_sigma_db=0.0, wall_db_per_m=0.0)
    near, far = simulate.mean_power(line, sites([5.0, 50.0]))[:, 0]
    assert near - far == pytest.approx(10 * simulate.WIFI.exponent)
    assert simulate.mean_power(line, sites(0.0))[0, 0] == pytest.approx(simulate.WIFI.power_dbm)


def test_walls_and_floors_lower_the_power():
    transmitter, radio = sites(0.0), simulate.WIFI
    inside = simulate.mean_power(world(transmitter), sites(20.0))
    open_space = simulate.mean_power(world(transmitter, wall_db_per_m=0.0), sites(20.0))
    assert open_space - inside == pytest.approx(20 * radio.wall_db_per_m)
    upstairs = simulate.mean_power(world(transmitter), sites(20.0, floor=2))
    assert inside - upstairs == pytest.approx(2 * radio.floor_db)
    next_door = simulate.mean_power(world(transmitter), sites(20.0, building=1))
    assert inside - next_door == pytest.approx(2 * radio.outer_wall_db)


def test_measured_rssi_falls_with_distance():
    quiet = world(sites(np.zeros(200)), sensitivity_dbm=-200.0)
    distances = np.array([2.0, 8.0, 32.0, 128.0])
    rssi = simulate.measure(quiet, sites(distances), np.zeros(4), np.random.default_rng(1))
    assert np.all(np.diff(np.nanmean(rssi, axis=1)) < -10)


def test_device_offset_shifts_every_reading():
    quiet = world(sites(np.linspace(0, 40, 30)), sensitivity_dbm=-200.0, interference_db=0.0, saturation_dbm=50.0)
    plain, shifted = (
        simulate.measure(quiet, sites([3.0, 9.0]), np.full(2, offset), np.random.default_rng(1))
        for offset in (0.0, 6.0)
    )
    np.testing.assert_array_equal(shifted - plain, 6.0)


def test_readings_are_whole_and_within_the_limits_of_the_receiver():
    for simulated, radio in ((simulate.campus(1000, 100), simulate.WIFI), (simulate.city(1000), simulate.LORA)):
        values = simulated.heard_values
        assert values.min() >= radio.sensitivity_dbm and values.max() <= radio.saturation_dbm
        np.testing.assert_array_equal(values, np.rint(values))


def test_nothing_is_heard_below_the_sensitivity():
    deaf = world(sites(np.zeros(50)), sensitivity_dbm=50.0, saturation_dbm=60.0)
    assert np.isnan(simulate.measure(deaf, sites([1.0, 10.0]), np.zeros(2), np.random.default_rng(1))).all()


def test_shadowing_has_its_spread_and_its_correlation_distance():
    scale = simulate.WIFI.shadowing_distance_m
    many = world(sites(np.zeros(4000)))
    at = np.array([0.0, 0.25, 1.0, 2.0, 6.0])
    field = simulate.shadowing(many, sites(at * scale).position)
    assert field.std(axis=1) == pytest.approx(np.full(5, simulate.WIFI.shadowing_sigma_db), rel=0.1)
    correlation = np.corrcoef(field)[0]
    assert np.all(np.diff(correlation) < 0)
    assert correlation == pytest.approx(np.exp(-at), abs=0.12)


def test_transmitters_are_shadowed_independently():
    field = simulate.shadowing(world(sites(np.zeros(2))), sites(np.arange(4000) * 60.0).position)
    assert abs(np.corrcoef(field.T)[0, 1]) < 0.2


# === Arguments ===


@pytest.mark.parametrize(
    ("function", "argument", "value"),
    [
        (simulate.campus, "n_train", 0),
        (simulate.campus, "n_validation", -1),
        (simulate.campus, "n_access_points", 2.5),
        (simulate.campus, "n_buildings", True),
        (simulate.campus, "seed", -1),
        (simulate.city, "n", 0),
        (simulate.city, "n_gateways", "72"),
        (simulate.city, "minimum_heard", 0),
        (simulate.city, "seed", 0.5),
    ],
)
def test_wrong_argument_is_named_with_what_came(function, argument, value):
    with pytest.raises(ValueError, match=rf"`{argument}` must be .*Received: {argument}={value!r}"):
        function(**{argument: value})


@pytest.mark.parametrize(
    "simulated",
    [
        lambda: simulate.campus(900_000, 100_000, n_access_points=10_000),
        lambda: simulate.city(1_000_000, n_gateways=10_000),
    ],
    ids=["campus", "city"],
)
def test_what_does_not_fit_in_memory_is_refused_at_once(simulated, monkeypatch):
    monkeypatch.setattr(fingerprints, "available_memory", lambda: 39_000_000_000)
    with pytest.raises(MemoryError, match=r"1,000,000 rows × 10,000 transmitters need 40\.0 GB, and 39\.0 GB"):
        simulated()


@pytest.mark.parametrize(("n_gateways", "minimum_heard"), [(72, 11), (2, 3)])
def test_minimum_that_no_message_reaches_is_refused(n_gateways, minimum_heard):
    with pytest.raises(ValueError, match=rf"`minimum_heard` must be .*Received: minimum_heard={minimum_heard}"):
        simulate.city(n_gateways=n_gateways, minimum_heard=minimum_heard)
