"""Frames lead from local metres to the earth and back, with pyproj and without."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics.pairwise import haversine_distances

from lib import metrics
from lib.data import frames, sources
from lib.data.frames import Frame


def metres(limit):
    return arrays.arrays(np.float64, (5, 2), elements=st.floats(-limit, limit))


@given(metres(10_000))
def test_web_mercator_leads_to_degrees_and_back(position):
    frame = Frame("EPSG:3857", (-7692.0, 4864745.0), 0.766)
    np.testing.assert_allclose(frame.from_degrees(frame.to_degrees(position)), position, atol=1e-6)


@given(metres(50_000), st.floats(-80, 80), st.floats(-179, 179))
def test_a_frame_around_any_place_leads_to_degrees_and_back(position, latitude, longitude):
    frame = Frame.around(latitude, longitude)
    # PROJ takes what is within 1e-10 rad, 0.6 mm, of the origin for the origin.
    np.testing.assert_allclose(frame.from_degrees(frame.to_degrees(position)), position, atol=1e-3)


@given(st.floats(50.9, 51.4), st.floats(4.0, 4.8))
def test_degrees_lead_to_metres_and_back(latitude, longitude):
    frame, degrees = Frame.around(51.2, 4.4), np.array([[latitude, longitude]])
    np.testing.assert_allclose(frame.to_degrees(frame.from_degrees(degrees)), degrees, atol=1e-9)


@given(metres(2000))
def test_publisher_coordinates_are_the_local_ones_from_the_origin(position):
    frame = Frame("EPSG:3857", (-7692.0, 4864745.0))
    np.testing.assert_array_equal(frame.to_publisher(position), position + np.array([-7692.0, 4864745.0]))


def test_web_mercator_agrees_with_its_formula():
    frame = Frame("EPSG:3857", (-7500.0, 4864900.0))
    latitude, longitude = frame.to_degrees(np.array([[100.0, 20.0]]))[0]
    assert longitude == pytest.approx(np.degrees(-7400 / 6_378_137), abs=1e-10)
    assert latitude == pytest.approx(np.degrees(2 * np.arctan(np.exp(4_864_920 / 6_378_137)) - np.pi / 2), abs=1e-10)


@given(arrays.arrays(np.float64, (2, 2), elements=st.floats(-5000, 5000)))
def test_metres_around_a_city_are_those_of_the_haversine_within_a_centimetre(position):
    """Both ends within 10 km of each other, as errors within a city are."""
    latitude, longitude = np.radians(Frame.around(51.2, 4.4).to_degrees(position)).T
    ground = haversine_distances(np.column_stack([latitude, longitude]))[0, 1] * 6_371_010
    assert np.hypot(*(position[0] - position[1])) == pytest.approx(ground, abs=0.01)


def test_distances_from_the_origin_of_a_frame_are_exact():
    bearing = np.linspace(0, 2 * np.pi, 12)
    position = 10_000 * np.column_stack([np.sin(bearing), np.cos(bearing)])
    degrees = np.radians(Frame.around(51.2, 4.4).to_degrees(position))
    ground = haversine_distances(np.radians([[51.2, 4.4]]), degrees)[0] * 6_371_010
    np.testing.assert_allclose(ground, 10_000, atol=1e-4)


@given(metres(2000), metres(2000))
def test_errors_in_a_plane_are_those_of_eq_6(true, predicted):
    expected = np.linalg.norm(true - predicted, axis=1)
    for frame in (Frame(None), Frame("EPSG:3857", (-7692.0, 4864745.0), 0.766)):
        assert not frame.great_circle
        np.testing.assert_allclose(frame.errors(true, predicted), expected, atol=1e-9)


@given(metres(20_000), metres(20_000))
def test_errors_around_a_city_are_those_of_eq_7(true, predicted):
    frame = Frame.around(51.2, 4.4)
    degrees = frame.to_degrees(true), frame.to_degrees(predicted)
    pairs = zip(*np.radians(degrees), strict=True)
    expected = [haversine_distances(np.stack(pair))[0, 1] * metrics.EARTH_RADIUS_M for pair in pairs]
    assert frame.great_circle
    np.testing.assert_allclose(frame.errors(true, predicted), expected, atol=1e-4)


def test_errors_of_positions_in_pairs_only():
    with pytest.raises(ValueError, match=r"shape \(n, 2\)\. Received: \(3, 2\) and \(2, 2\)"):
        Frame(None).errors(np.zeros((3, 2)), np.zeros((2, 2)))


def test_measured_positions_are_exactly_the_published_ones(measured_campus):
    published = measured_campus.frame.to_publisher(measured_campus.position)
    for part, key in (("train", "uji_training"), ("validation", "uji_validation")):
        columns = pd.read_csv(sources.find(sources.REGISTRY[key]), usecols=["LONGITUDE", "LATITUDE"])
        expected = columns[["LONGITUDE", "LATITUDE"]].to_numpy()
        np.testing.assert_array_equal(published[measured_campus.part == part], expected)
    # The first row of trainingData.csv, as printed there.
    assert tuple(published[0]) == (-7541.2642999999225, 4864920.7782000005)


def test_measured_places_are_on_the_campus_in_castellon(measured_campus):
    """Universitat Jaume I is at 39.9945° N, 0.0685° W."""
    latitude, longitude = measured_campus.frame.to_degrees(measured_campus.position).T
    assert 39.991 < latitude.min() < latitude.max() < 39.995
    assert -0.071 < longitude.min() < longitude.max() < -0.065


# === Without pyproj ===

WHOLE_METRES = st.integers(-100_000, 100_000)


@pytest.fixture
def without_pyproj(monkeypatch):
    """As on a machine that only locates; yields the frames' transformers as they are where pyproj is."""
    with_pyproj = frames._transformer
    monkeypatch.setattr(frames, "_transformer", lambda crs: None)
    return with_pyproj


def by_pyproj(frame, position, transformer):
    longitude, latitude = transformer(frame.crs).transform(*frame.to_publisher(position).T)
    return np.column_stack([latitude, longitude])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays.arrays(np.float64, (5, 2), elements=WHOLE_METRES),
    st.sampled_from([-90.0, -60.5, 0.0, 51.2, 89.9]),
    st.sampled_from([-180.0, -179.9, 0.0, 4.4, 179.9]),
)
def test_a_frame_around_any_place_leads_to_the_degrees_of_pyproj(without_pyproj, position, latitude, longitude):
    frame = Frame.around(latitude, longitude)
    difference = frame.to_degrees(position) - by_pyproj(frame, position, without_pyproj)
    turns = np.round(difference / 360)  # 180° are -180°
    np.testing.assert_allclose(difference, 360 * turns, atol=1e-9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays.arrays(np.float64, (5, 2), elements=WHOLE_METRES), st.floats(-1.9e7, 1.9e7), st.floats(-1.9e7, 1.9e7))
def test_web_mercator_leads_to_the_degrees_of_pyproj(without_pyproj, position, east, north):
    frame = Frame("EPSG:3857", (east, north), 0.766)
    expected = by_pyproj(frame, position, without_pyproj)
    np.testing.assert_allclose(frame.to_degrees(position), expected, atol=1e-9)


@pytest.mark.parametrize("crs", ["EPSG:32631", "+proj=aeqd +lat_0=51 +lon_0=4 +ellps=WGS84 +units=m +no_defs"])
def test_other_planes_need_pyproj(without_pyproj, crs):
    with pytest.raises(ImportError, match=r"expected pyproj.*pip install pyproj"):
        Frame(crs).to_degrees(np.zeros((1, 2)))
    with pytest.raises(ImportError, match=r"expected pyproj.*pip install pyproj"):
        Frame(crs).from_degrees(np.zeros((1, 2)))
