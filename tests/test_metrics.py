"""The error measures, each against a reference that does not come from this repository."""

import numpy as np
import pyproj
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics.pairwise import haversine_distances

from lib import metrics
from lib.fingerprints import EARTH_RADIUS_M, Frame

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
    mercator = Frame("EPSG:3857", (-7691.0, 4864745.0), 0.766)
    true, predicted = np.array([[0.0, 0.0]]), np.array([[30.0, 40.0]])
    assert metrics.localization_errors("ujiindoorloc", mercator, true, predicted)[0] == 50
    ground = metrics.localization_errors("lorawan_antwerp", mercator, true, predicted)[0]
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


# === Summary, CDF, interval ===


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


# === Comparisons ===


def compared(one, other, groups=None, **sampling):
    """How one model's errors differ from another's."""
    draws = metrics.bootstrap_means([one, other], groups, **sampling)
    return metrics.difference(np.mean(one) - np.mean(other), draws[:, 0] - draws[:, 1])


@pytest.fixture(scope="module")
def pair():
    """(300,) errors of two models on the same rows: hard rows are hard for both."""
    rng = np.random.default_rng(0)
    hard = rng.gamma(1, 10, 300)
    return hard + rng.gamma(1, 2, 300), hard + rng.gamma(1, 2.5, 300)


def test_interval_agrees_with_scipys_paired_bootstrap(pair):
    ours = compared(*pair)
    theirs = stats.bootstrap(
        pair,
        lambda one, other, axis: np.mean(one - other, axis=axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (ours["low_m"], ours["high_m"]) == pytest.approx(tuple(theirs), abs=0.02)
    assert ours["difference_m"] == pytest.approx(np.mean(pair[0] - pair[1]))


def test_pairing_takes_the_difficulty_of_rows_out(pair):
    draws = metrics.bootstrap_means(pair)
    assert np.std(draws[:, 0] - draws[:, 1]) < np.std(draws[:, 0]) / 2


def test_p_value_agrees_with_the_paired_t_test():
    rng = np.random.default_rng(3)
    one, other = rng.normal(10, 2, 400), rng.normal(10.3, 2, 400)
    assert compared(one, other)["p_value"] == pytest.approx(stats.ttest_rel(one, other).pvalue, abs=0.01)


def test_swapping_the_models_turns_the_comparison_round(pair):
    one, other = pair
    forth, back = compared(one, other), compared(other, one)
    assert (back["low_m"], back["high_m"]) == pytest.approx((-forth["high_m"], -forth["low_m"]))
    assert back["difference_m"] == -forth["difference_m"] and back["p_value"] == forth["p_value"]


def test_the_same_errors_do_not_differ(pair):
    assert compared(pair[0], pair[0]) == {"difference_m": 0, "low_m": 0, "high_m": 0, "p_value": 1}


def test_what_is_certain_has_the_smallest_p_value():
    rng = np.random.default_rng(0)
    one = rng.uniform(0, 1, 200)
    assert compared(one, one + rng.uniform(1, 2, 200), resamples=999)["p_value"] == 2 / 1000


def test_copies_narrow_the_interval_unless_they_are_of_one_group(pair):
    copies = [np.repeat(one, 4) for one in pair]
    single, grouped, taken_for_rows = (
        compared(*pair),
        compared(*copies, np.repeat(np.arange(300), 4)),
        compared(*copies),
    )
    assert grouped == pytest.approx(single)
    width = single["high_m"] - single["low_m"]
    assert taken_for_rows["high_m"] - taken_for_rows["low_m"] == pytest.approx(width / 2, rel=0.05)


def test_groups_of_any_names_and_order(pair):
    numbers = np.random.default_rng(0).integers(20, size=300)
    names = np.array([f"block {number:02}" for number in numbers])
    assert compared(*pair, numbers) == pytest.approx(compared(*pair, names))


def test_grouped_interval_agrees_with_the_clustered_standard_error():
    """Of a mean over groups of many sizes: √Σ(sum of a group's deviations)² / n."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(200), rng.integers(1, 12, 200))
    errors = 20 + rng.normal(0, 3, 200)[groups] + rng.normal(0, 1, len(groups))
    deviations = np.bincount(groups, weights=errors - errors.mean())
    expected = np.sqrt(np.sum(deviations**2)) / len(groups)
    assert metrics.bootstrap_means([errors], groups).std() == pytest.approx(expected, rel=0.03)


def test_where_all_rows_are_alike_the_interval_is_that_over_seeds():
    seeds = np.array([9.0, 10.0, 10.5, 11.0, 12.0])
    low, high = np.percentile(metrics.bootstrap_means([np.tile(seeds[:, None], 50)]), [2.5, 97.5])
    assert (high - low) / 2 == pytest.approx(metrics.confidence_half_width(seeds), rel=0.05)


def coverage(simulated, true):
    """Share of simulated comparisons whose interval holds the true difference."""
    found = [compared(*simulated(np.random.default_rng(number)), resamples=1000) for number in range(400)]
    return np.mean([line["low_m"] <= true <= line["high_m"] for line in found])


def test_interval_holds_the_difference_of_deterministic_models_in_95_of_100_cases():
    def simulated(rng):
        hard = rng.gamma(2, 5, 100)
        return hard + rng.exponential(2, 100), hard + rng.exponential(3, 100)

    assert 0.92 <= coverage(simulated, -1) <= 0.98


@pytest.mark.parametrize(("between_rows", "between_seeds"), [(4.0, 0.2), (2.0, 0.5), (0.5, 1.0)])
def test_interval_holds_the_difference_of_trained_models_in_95_of_100_cases(between_rows, between_seeds):
    """Five seeds against a model without; a bootstrap of the five would hold it in 85 of 100 where seeds matter."""

    def simulated(rng):
        effect = rng.normal(0, between_rows, 100) + rng.normal(0, between_seeds, (5, 1))
        return 20 + effect + rng.normal(0, 1, (5, 100)), np.full(100, 20.0)

    assert 0.92 <= coverage(simulated, 0) <= 0.985


def test_rows_and_groups_must_fit():
    with pytest.raises(ValueError, match=r"same test rows\. Received: \[5, 4\] rows"):
        metrics.bootstrap_means([np.ones((3, 5)), np.ones(4)])
    with pytest.raises(ValueError, match=r"Received: \[5, 6\] rows"):
        metrics.bootstrap_means([np.ones(5)], np.zeros(6))


def test_holm_of_a_textbook_case():
    """The worked example of en.wikipedia.org/wiki/Holm–Bonferroni_method: the first and the last are rejected."""
    np.testing.assert_allclose(metrics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert metrics.holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_rejects_step_by_step(p_values):
    """As Holm states it: the k-th smallest of m is held against α / (m − k + 1), until the first that is above."""
    adjusted = metrics.holm(p_values)
    order = np.argsort(p_values, kind="stable")
    rejects = np.array(p_values)[order] * np.arange(len(p_values), 0, -1) <= 0.05
    assert np.sum(adjusted <= 0.05) == np.argmin([*rejects, False])
    assert np.all(adjusted >= p_values) and np.all(adjusted <= 1)


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
