"""What models make of RSSI and positions: Eq. 5 against a reference, powed and exponential levels against formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.preprocessing import MinMaxScaler

from lib.data import fingerprints as module_of_blocks
from lib.models import scaling as levels
from lib.models.scaling import MinMaxScaling

BOUNDS = (0.1, 0.9)

dbm = st.floats(-104, 0, width=32)
bounds = st.tuples(st.integers(-50, 50), st.integers(1, 100)).map(lambda pair: (pair[0] / 10, sum(pair) / 10))
scans = arrays.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=dbm)


# === Eq. 5 ===


def test_eq_5_of_a_hand_worked_example():
    """x_min = −105, x_max = −5, a = 0.1, b = 0.9: −55 dBm is half way, 0.5; −80 dBm a quarter, 0.3."""
    scaling = MinMaxScaling.of_rssi(np.float32([[-5, -55], [-80, np.nan]]), -105.0, 0.1, 0.9)
    np.testing.assert_allclose(scaling.transform([[-5, -55], [-80, np.nan]]), [[0.9, 0.5], [0.3, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(scaling.inverse([[0.9, 0.5], [0.3, 0.1]]), [[-5, -55], [-80, -105]])


@given(arrays.arrays(np.float64, (6, 2), elements=st.floats(-1e4, 1e4)), bounds)
def test_eq_5_agrees_with_scikit_learn(position, limits):
    position[0], position[1] = -1e4, 1e4
    expected = MinMaxScaler(limits).fit_transform(position)
    scaling = MinMaxScaling((-1e4, -1e4), (1e4, 1e4), *limits)
    np.testing.assert_allclose(scaling.transform(position), expected, rtol=1e-6, atol=1e-6)


def test_positions_are_scaled_per_axis_to_the_unit_square():
    position = np.random.default_rng(0).normal([100, -4000], [10, 300], (200, 2))
    scaled = MinMaxScaling.of_position(position).transform(position)
    np.testing.assert_allclose(scaled, MinMaxScaler().fit_transform(position), atol=1e-6)
    np.testing.assert_array_equal([scaled.min(axis=0), scaled.max(axis=0)], [[0, 0], [1, 1]])


@given(scans, bounds)
def test_scaling_comes_back(rssi, limits):
    scaling = MinMaxScaling((-105.0,), (0.0,), *limits)
    np.testing.assert_allclose(scaling.inverse(scaling.transform(rssi)), rssi, atol=1e-2)


@given(scans, bounds)
def test_scaled_values_are_within_the_bounds_and_in_order(rssi, limits):
    scaled = MinMaxScaling.of_rssi(rssi, -105.0, *limits).transform(rssi)
    assert scaled.dtype == np.float32
    slack = 1e-5
    assert limits[0] - slack <= scaled.min() and scaled.max() == pytest.approx(limits[1], abs=slack)
    assert (np.diff(scaled.ravel()[np.argsort(rssi, axis=None)]) >= 0).all()


@given(scans, bounds, st.randoms())
def test_what_is_not_heard_is_at_the_lower_bound(rssi, limits, random):
    rssi[random.randrange(rssi.shape[0]), random.randrange(rssi.shape[1])] = np.nan
    scaled = MinMaxScaling((-105.0,), (0.0,), *limits).transform(rssi)
    assert not np.isnan(scaled).any()
    np.testing.assert_allclose(scaled[np.isnan(rssi)], limits[0], rtol=1e-6, atol=1e-7)
    assert (scaled[~np.isnan(rssi)] > np.float32(limits[0])).all()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module_of_blocks, "LEAST_ROWS", 101)
    monkeypatch.setattr(module_of_blocks, "VALUES_AT_ONCE", 1)


def test_scaling_block_by_block_or_in_place_gives_every_bit_of_eq_5_in_float64(fingerprints, small_blocks):
    rssi = fingerprints.rssi[:3000]
    scaling = MinMaxScaling.of_rssi(rssi, -128.0, *BOUNDS)
    expected = 0.1 + (np.nan_to_num(rssi.astype(np.float64), nan=-128.0) + 128.0) * scaling._slope
    np.testing.assert_array_equal(scaling.transform(rssi), expected.astype(np.float32))
    here = rssi.copy()
    assert scaling.transform(here, out=here) is here
    np.testing.assert_array_equal(here, expected.astype(np.float32))


def test_x_max_is_the_strongest_rssi_and_x_min_the_level_of_not_heard(fingerprints):
    scaling = MinMaxScaling.of_rssi(fingerprints.rssi, fingerprints.not_heard_dbm, *BOUNDS)
    assert scaling.minimum == (fingerprints.not_heard,)
    assert scaling.maximum == (fingerprints.heard_values.max(),)
    assert (scaling.lower, scaling.upper) == BOUNDS


def test_scaling_leaves_the_values_alone(campus):
    before = campus.rssi.copy()
    MinMaxScaling.of_rssi(campus.rssi, -105.0).transform(campus.rssi)
    np.testing.assert_array_equal(campus.rssi, before)


def test_other_bounds_change_the_scale_only(campus):
    scaled = MinMaxScaling.of_rssi(campus.rssi, -105.0, *BOUNDS)
    moved = MinMaxScaling.of_rssi(campus.rssi, -105.0, -1.0, 1.0)
    expected = moved.transform(scaled.inverse(scaled.transform(campus.rssi)))
    np.testing.assert_allclose(moved.transform(campus.rssi), expected, atol=1e-5)


@pytest.mark.parametrize("limits", [(1.0, 1.0), (1.0, 0.0), (np.nan, 1.0), (0.0, np.nan)])
def test_bounds_in_the_wrong_order_are_refused(limits):
    with pytest.raises(ValueError, match=f"`lower` must be less than `upper`. Received: {limits[0]} and {limits[1]}"):
        MinMaxScaling((-105.0,), (0.0,), *limits)


@pytest.mark.parametrize(
    ("minimum", "maximum"), [((0.0,), (0.0,)), ((0.0, 0.0), (1.0, 0.0)), ((0.0,), (np.nan,)), ((1.0,), (0.0,))]
)
def test_values_without_a_range_are_refused(minimum, maximum):
    with pytest.raises(ValueError, match="`minimum` must be less than `maximum`"):
        MinMaxScaling(minimum, maximum)


# === Powed and exponential scaling ===


def test_powed_agrees_with_its_formula():
    rssi = np.float32([[-105, -90, -42.5, -1, np.nan, -120]])
    expected = [0, (15 / 105) ** np.e, (62.5 / 105) ** np.e, (104 / 105) ** np.e, 0, 0]
    np.testing.assert_allclose(levels.powed(rssi, -105.0)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(levels.powed(rssi, -105.0, exponent=1)[0, 1], 15 / 105, rtol=1e-6)


def test_exponential_agrees_with_its_formula():
    rssi = np.float32([[-105, -90, -42.5, 0, np.nan, -120]])
    expected = [0, (np.exp(15 / 60) - 1) / (np.exp(105 / 60) - 1), (np.exp(62.5 / 60) - 1) / (np.exp(105 / 60) - 1)]
    np.testing.assert_allclose(levels.exponential(rssi, -105.0)[0], [*expected, 1, 0, 0], rtol=1e-6)
    expected = (np.exp(15 / 24) - 1) / (np.exp(105 / 24) - 1)
    np.testing.assert_allclose(levels.exponential(rssi, -105.0, alpha=24)[0, 1], expected, rtol=1e-6)


def test_exponential_is_the_same_block_by_block(fingerprints, small_blocks):
    rssi = fingerprints.rssi[:3000]
    whole = levels.exponential(rssi, -128.0)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(levels.exponential(rssi[7:8], -128.0)[0], whole[7])
    heard = ~np.isnan(rssi)
    np.testing.assert_array_equal(levels.exponential(rssi[heard], -128.0), whole[heard])
    assert (whole[~heard] == 0).all()


def test_powed_block_by_block_gives_every_bit_of_its_formula(fingerprints, small_blocks):
    rssi = fingerprints.rssi[:3000]
    whole = (((np.nan_to_num(rssi, nan=-128.0) + np.float32(128)) / np.float32(128)) ** np.float32(np.e)).ravel()
    np.testing.assert_array_equal(levels.powed(rssi, -128.0).ravel(), whole)
    heard = ~np.isnan(rssi)
    np.testing.assert_array_equal(levels.powed(rssi[heard], -128.0), whole[heard.ravel()])


@pytest.mark.parametrize("scale", [levels.powed, levels.exponential])
@given(scans)
def test_levels_are_between_zero_and_one_and_in_order(scale, rssi):
    scaled = scale(rssi, -105.0)
    assert scaled.min() >= 0 and scaled.max() <= 1
    assert (np.diff(scaled.ravel()[np.argsort(rssi, axis=None)]) >= 0).all()
