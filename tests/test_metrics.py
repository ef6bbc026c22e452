"""The error measures, each against a reference that does not come from this repository."""

import dataclasses

import numpy as np
import pyproj
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics.pairwise import haversine_distances

from lib import metrics
from lib.data.fingerprints import Frame
from lib.metrics import EARTH_RADIUS_M

PAIRS_MEASURES = [metrics.euclidean_errors, metrics.haversine_errors]


@pytest.fixture(scope="module")
def degrees():
    """Two times 500 places anywhere on the earth."""
    rng = np.random.default_rng(0)
    return rng.uniform([-90, -180], [90, 180], (2, 500, 2))


# === Eq. 6 ===


def test_euclidean_error_of_a_right_triangle():
    errors = metrics.euclidean_errors(np.array([[0, 0], [1, 1]]), np.array([[3, 4], [1, 1]]))
    np.testing.assert_array_equal(errors, [5.0, 0.0])


def test_euclidean_errors_agree_with_the_vector_norm():
    true, predicted = np.random.default_rng(0).normal(0, 1000, (2, 300, 2))
    expected = np.linalg.norm(true - predicted, axis=1)
    np.testing.assert_allclose(metrics.euclidean_errors(true, predicted), expected, rtol=1e-12)


# === Eq. 7 ===


def test_haversine_agrees_with_scikit_learn(degrees):
    true, predicted = degrees
    expected = np.diag(haversine_distances(np.radians(true), np.radians(predicted))) * EARTH_RADIUS_M
    np.testing.assert_allclose(metrics.haversine_errors(true, predicted), expected, rtol=1e-9)


def test_haversine_agrees_with_geodesics_on_the_sphere(degrees):
    true, predicted = degrees
    sphere = pyproj.Geod(a=6_371_010.0, b=6_371_010.0)
    expected = sphere.inv(true[:, 1], true[:, 0], predicted[:, 1], predicted[:, 0])[2]
    np.testing.assert_allclose(metrics.haversine_errors(true, predicted), expected, rtol=1e-7)


def test_haversine_gives_the_published_worked_example():
    """Nashville (BNA) to Los Angeles (LAX): 2887.25995 km at R = 6372.8 km (rosettacode.org/wiki/Haversine_formula)."""
    error = metrics.haversine_errors(np.array([[36.12, -86.67]]), np.array([[33.94, -118.40]]))
    assert error[0] / 1000 == pytest.approx(2887.25995 * 6371.01 / 6372.8, abs=1e-4)


def test_haversine_of_antipodes_and_of_no_distance():
    true = np.array([[0, 0], [90, 0], [51.2, 4.4], [51.2, 4.4], [10, 180]])
    predicted = np.array([[0, 180], [-90, 0], [-51.2, -175.6], [51.2, 4.4], [10, -180]])
    half_way_round = np.pi * 6_371_010
    expected = [half_way_round, half_way_round, half_way_round, 0, 0]
    np.testing.assert_allclose(metrics.haversine_errors(true, predicted), expected, rtol=1e-7, atol=1e-6)


def test_haversine_tells_a_millimetre():
    true, one_mm_north = np.array([[51.2, 4.4]]), np.array([[51.2 + np.degrees(0.001 / EARTH_RADIUS_M), 4.4]])
    assert metrics.haversine_errors(true, one_mm_north)[0] == pytest.approx(0.001, rel=1e-3)


# === Which of the two ===


def test_indoors_counts_plane_metres_and_outdoors_the_great_circle():
    plane = Frame("EPSG:3857", (-7691.0, 4864745.0), 0.766)
    sphere = dataclasses.replace(plane, great_circle=True)
    true, predicted = np.array([[0.0, 0.0]]), np.array([[30.0, 40.0]])
    assert plane.errors(true, predicted)[0] == 50
    ground = sphere.errors(true, predicted)[0]
    # Web Mercator takes another radius, and one of its metres is cos(latitude) metres on the ground.
    assert ground == pytest.approx(50 * np.cos(np.radians(39.9936)) * 6371.01 / 6378.137, rel=1e-4)


@pytest.mark.parametrize("measure", PAIRS_MEASURES)
@pytest.mark.parametrize(
    ("true", "predicted"), [((4, 2), (5, 2)), ((4, 3), (4, 3)), ((2,), (2,)), ((4, 2), (1, 2)), ((4, 2), (4,))]
)
def test_shapes_that_do_not_fit_are_named(measure, true, predicted):
    with pytest.raises(ValueError, match=r"\(n, 2\)") as raised:
        measure(np.zeros(true), np.zeros(predicted))
    assert f"Received: {true} and {predicted}" in str(raised.value)


# === Summary and interval ===


def test_summary_of_zero_to_a_hundred():
    errors = np.random.default_rng(0).permutation(np.arange(101.0))
    assert metrics.summary(errors) == {"mean_m": 50, "median_m": 50, "p75_m": 75, "p95_m": 95}


def test_summary_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no errors"):
        metrics.summary(np.array([]))


@pytest.mark.parametrize("count", [2, 5, 30])
def test_half_width_is_that_of_the_t_interval(count):
    values = np.random.default_rng(count).normal(7, 2, count)
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(count))
    assert metrics.confidence_half_width(values) == pytest.approx((high - low) / 2)


def test_half_width_of_a_textbook_case():
    """Five values with standard deviation 1.5811: t(0.975, 4) = 2.776 of the tables, times 1.5811 / √5."""
    assert metrics.confidence_half_width([1, 2, 3, 4, 5]) == pytest.approx(2.776 * 0.70711, rel=1e-3)


@pytest.mark.parametrize("values", [[], [6.65]])
def test_fewer_than_two_values_have_no_interval(values):
    assert np.isnan(metrics.confidence_half_width(values))


# === EvAAL ===


def test_evaal_score_without_floors_and_buildings_is_the_third_quartile():
    assert metrics.evaal_score(np.arange(101.0)) == 75.0


def test_evaal_score_adds_15_m_a_floor_and_50_m_for_a_wrong_building():
    """Of five answers 1 m off, the fourth worst counts: whichever label is wrong, by how many floors, up or down."""
    errors = np.ones(5)
    floors_off = np.array([0, 0, 0, -2, 3])
    wrong_building = np.array([False, False, True, True, True])
    assert metrics.evaal_score(errors, floors_off) == 1 + 2 * 15
    assert metrics.evaal_score(errors, wrong_building=wrong_building) == 1 + 50
    assert metrics.evaal_score(errors, floors_off, wrong_building) == 1 + 2 * 15 + 50


def test_evaal_score_leaves_the_errors_as_they_are():
    errors = np.ones(4)
    metrics.evaal_score(errors, np.ones(4), np.ones(4))
    np.testing.assert_array_equal(errors, np.ones(4))


def test_evaal_score_of_nothing_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        metrics.evaal_score(np.zeros(0))


# === Convergence ===


@pytest.mark.parametrize(
    ("curve", "epoch"),
    [
        ([1.0], 1),
        ([2, 2, 2, 2, 2, 2], 1),
        ([10, 8, 6, 4, 2, 1, 1, 1, 1, 1], 6),
        ([10, 8, 6, 4, 2, 1.04, 1, 1, 1, 1], 6),  # 4 % above the lowest is close enough
        ([10, 8, 6, 4, 2, 1, 1, 1, 9, 1, 1, 1], 6),  # one unlucky epoch
        ([5, 5, 5, 5, 1, 5, 5, 5, 5], 1),  # one lucky epoch
        ([9, 9, 9, 1, 1, 1, 1, 1, 5, 5, 5, 5, 5, 1, 1, 1, 1, 1], 14),  # it left again before it stayed
    ],
)
def test_epochs_to_converge_of_hand_made_curves(curve, epoch):
    assert metrics.epochs_to_converge(curve) == epoch


def test_a_wider_tolerance_is_reached_earlier():
    curve = 1 + 9 * np.exp(-np.arange(60) / 8)
    epochs = [metrics.epochs_to_converge(curve, tolerance) for tolerance in (0.01, 0.05, 0.5)]
    assert epochs == sorted(epochs, reverse=True) and len(set(epochs)) == 3


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40), st.floats(0.1, 100))
def test_the_scale_of_a_curve_does_not_matter(curve, scale):
    assume(np.all(np.abs(np.divide.outer(curve, curve) - 1.05) > 1e-9))  # rounding decides nothing
    assert metrics.epochs_to_converge(np.multiply(curve, scale)) == metrics.epochs_to_converge(curve)


@pytest.mark.parametrize(
    ("curve", "level", "epoch"),
    [
        ([9, 7, 5, 3, 1, 1, 1], 5, 3),
        ([9, 1, 9, 9, 9, 9, 5, 4, 4, 4], 5, 7),  # a single lucky epoch does not count
        ([9, 7, 5, 5, 5], 4, np.nan),
        ([4], 5, 1),
    ],
)
def test_epochs_to_reach_a_level_of_hand_made_curves(curve, level, epoch):
    np.testing.assert_equal(metrics.epochs_to_reach(curve, level), epoch)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_the_lowest_of_a_curve_is_reached_and_nothing_below_it(curve):
    lowest = metrics.lowest(curve)
    assert 1 <= metrics.epochs_to_reach(curve, lowest) <= metrics.epochs_to_converge(curve, 0.0)
    assert np.isnan(metrics.epochs_to_reach(curve, np.nextafter(lowest, -1)))
    assert min(curve) <= lowest <= max(curve)


def test_a_curve_that_rises_at_the_end_converges_in_no_epoch_after_its_last():
    curve = [5, 4, 3, 2, 1, 1, 1, 1, 2, 2, 2, 2]
    assert metrics.epochs_to_converge(curve) <= len(curve)
