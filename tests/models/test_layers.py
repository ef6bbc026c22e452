"""The layers and losses of the unified network against independent references, and its builder."""

import keras
import numpy as np
import pytest
from scipy import special

from lib.models import layers
from lib.models.layers import (
    Audible,
    Augmentation,
    CoordinateDecoder,
    CoordinateLoss,
    Ensemble,
    Fold,
    Levels,
)
from lib.models.scaling import powed

NAN = np.nan


def array(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def scans(rows: int, transmitters: int, weakest: float = -110) -> np.ndarray:
    """(rows, transmitters) dBm, half of them not heard."""
    rng = np.random.default_rng(0)
    rssi = rng.uniform(weakest, -30, (rows, transmitters))
    rssi[rng.random(rssi.shape) < 0.5] = NAN
    return rssi.astype(np.float32)


def assert_saved_alike(layer, inputs, folder):
    """A network of one layer tells the same once it is saved and loaded."""
    placeholders = keras.tree.map_structure(lambda values: keras.Input(values.shape[1:]), inputs)
    network = keras.Model(placeholders, layer(placeholders))
    network.save(folder / "layer.keras")
    loaded = keras.saving.load_model(folder / "layer.keras")
    assert loaded.layers[-1].get_config() == layer.get_config()
    keras.tree.map_structure(np.testing.assert_array_equal, loaded(inputs), network(inputs))


# === Scans ===


def test_levels_are_powed_rssi_of_the_columns_in_use():
    rssi = scans(20, 6)
    levels = array(Levels([1, 4], [-105, -105], 1.5, heard=True)(rssi))
    assert levels[:, :2] == pytest.approx(powed(rssi[:, [1, 4]], -105.0, exponent=1.5), abs=1e-6)
    assert np.array_equal(levels[:, 2:] > 0, ~np.isnan(rssi[:, [1, 4]]))
    without = array(Levels([1, 4], [-105, -105], 1.5, heard=False)(rssi))
    assert np.array_equal(without, levels[:, :2])


def test_augmentation_is_for_training_and_never_invents_a_transmitter():
    rssi = np.where(np.random.default_rng(0).random((400, 30)) < 0.5, NAN, -70).astype(np.float32)
    layer = Augmentation(offset=[3.0], noise=[2.0], loss=[0.4], deafness=[0.0], weakest=[-105.0])
    assert np.array_equal(layer(rssi), rssi, equal_nan=True)
    changed = array(layer(rssi, training=True))
    assert np.isnan(changed[np.isnan(rssi)]).all()
    assert np.isnan(changed).mean() - np.isnan(rssi).mean() == pytest.approx(0.5 * 0.2, abs=0.02)
    single = np.full((50, 4), NAN, dtype=np.float32)
    single[:, 2] = -60
    all_lost = Augmentation([3.0], [2.0], loss=[1.0], deafness=[90.0], weakest=[-105.0])
    assert not np.isnan(all_lost(single, training=True)[:, 2]).any(), "a scan fell silent"
    mean_of_scan = np.nanmean(changed, axis=1)
    assert np.nanstd(mean_of_scan) == pytest.approx(3.0, rel=0.2), "a scan's levels share an offset"
    assert np.nanstd(changed - mean_of_scan[:, None]) == pytest.approx(2.0, rel=0.2)


def test_a_deaf_device_loses_the_weakest_levels_and_no_others():
    rssi = np.random.default_rng(0).uniform(-105, -60, (500, 30)).astype(np.float32)
    layer = Augmentation([0.0], [0.0], loss=[0.0], deafness=[20.0], weakest=[-105.0])
    heard = array(layer(rssi, training=True))
    lost = np.isnan(heard)
    assert np.array_equal(heard[~lost], rssi[~lost]) and not lost[rssi > -85].any()
    strongest_lost = np.where(lost, rssi, -200).max(axis=1)
    weakest_heard = np.where(lost, 0, rssi).min(axis=1)
    assert (strongest_lost < weakest_heard).all(), "each scan has one threshold"
    assert lost.mean() == pytest.approx(10 / 45, abs=0.02)


def test_folding_puts_every_environment_into_the_same_columns():
    first, second = scans(30, 3), scans(20, 5)
    own = np.full((50, 8), NAN, dtype=np.float32)
    own[:30, :3], own[30:, 3:] = first, second
    shared = np.full((50, 5), NAN, dtype=np.float32)
    shared[:30, :3], shared[30:] = first, second
    assert np.array_equal(Fold([3, 5])(own), shared, equal_nan=True)
    both = np.float32([[-60, NAN, -70, -50, NAN, NAN, -90, NAN]])
    assert np.array_equal(Fold([3, 5])(both), np.float32([[-50, NAN, -70, -90, NAN]]), equal_nan=True)


def test_only_environments_of_which_a_scan_hears_something_remain():
    layer = Audible(of_transmitter=[0, 0, 1], of_output=[1, 0, 1, 0])
    rssi = np.float32([[-60, NAN, NAN], [NAN, NAN, -60], [NAN, -60, -60], [NAN, NAN, NAN]])
    logits = np.arange(16, dtype=np.float32).reshape(4, 4)
    expected = logits.copy()
    expected[0, [0, 2]] = layers.IMPOSSIBLE
    expected[1, [1, 3]] = layers.IMPOSSIBLE
    assert np.array_equal(layer([rssi, logits]), expected), "a scan that hears both or nothing may be of both"
    assert np.array_equal(layer([rssi, logits], training=True), logits)


# === Regression ===


@pytest.fixture
def ranges():
    """A decoder of an environment of 10 m × 20 m and one of 1 km × 2 km."""
    return CoordinateDecoder(lower=[[0, -10], [-500, 0]], upper=[[10, 10], [500, 2000]])


def test_coordinates_are_decoded_in_the_range_of_the_likeliest_environment(ranges):
    outputs = np.float32([[2, 1, 0.5, 0.25, 9, 9], [1, 2, 9, 9, 0.5, 0.25]])
    decoded = ranges(outputs)
    assert array(decoded["position"]) == pytest.approx(np.array([[5, -5], [0, 500]]), abs=1e-4)
    assert array(decoded["environment"]) == pytest.approx(special.softmax(outputs[:, :2], axis=1), abs=1e-6)


@pytest.mark.parametrize("distance", [True, False])
def test_the_error_of_coordinates_counts_in_the_range_of_the_true_environment(ranges, distance):
    outputs = np.float32([[2, 1, 0.5, 0.25, 9, 9]])
    true = np.float32([[0, 3, 1, 8, 3]])  # scaled: 0.8, 0.65
    squared = np.array([0.3, 0.4]) ** 2
    error = np.sqrt(squared.sum()) if distance else squared.mean()
    expected = error - special.log_softmax([2, 1])[0]
    assert float(CoordinateLoss(ranges, distance)(true, outputs)) == pytest.approx(expected, rel=1e-4)


# === Networks ===


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (Augmentation([6.0], [2.0], [0.3], [25.0], [-105.0]), scans(5, 4)),
        (Fold([1, 3]), scans(5, 4)),
        (Levels([0, 3], [-105, -128], 1.5, heard=True), scans(5, 4)),
        (Audible([0, 0, 1, 1], [1, 0]), [scans(5, 4), np.ones((5, 2), np.float32)]),
        (CoordinateDecoder([[0, 0], [1, 1]], [[5, 5], [9, 9]]), np.ones((5, 6), np.float32)),
        (Ensemble(), [np.eye(5, dtype=np.float32), np.ones((5, 5), np.float32)]),
    ],
    ids=["Augmentation", "Fold", "Levels", "Audible", "CoordinateDecoder", "Ensemble"],
)
def test_a_saved_layer_tells_the_same(layer, inputs, tmp_path):
    assert_saved_alike(layer, inputs, tmp_path)


def test_an_ensemble_averages_probabilities():
    drawn = np.random.default_rng(0).normal(0, 3, (3, 6, 5)).astype(np.float32)
    drawn[:, :, 4] = layers.IMPOSSIBLE
    expected = special.softmax(drawn, axis=2).mean(axis=0)
    found = array(Ensemble()(list(drawn)))
    assert np.exp(found) == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(found).all(), "what all members hold impossible has a logarithm"


LEVELS = {"columns": [0, 2, 3], "minimum": [-105.0] * 3, "exponent": 1.5, "heard": False}
AUGMENTATION = {"offset": [6.0], "noise": [2.0], "loss": [0.3], "deafness": [25.0]}


def small_member(**changes):
    settings = {"n_levels": 3, "n_outputs": 5, "hidden": (8, 6), "dropout": 0.1, "name": "member_0"}
    return layers.member_network(**settings | changes)


def small_learner(member):
    return layers.learning_network(member, 4, np.full(4, -105.0), LEVELS, AUGMENTATION)


def test_a_member_has_named_layers_and_one_output_a_place():
    member = small_member()
    blocks = [f"trunk_{kind}_{number}" for number in (1, 2) for kind in ("dense", "norm", "relu", "dropout")]
    assert [layer.name for layer in member.layers] == ["levels", *blocks, "head"]
    assert (member.input_shape, member.output_shape) == ((None, 3), (None, 5))
    learner = small_learner(member)
    assert [layer.name for layer in learner.layers] == ["rssi", "augmentation", "levels", "member_0"]
    assert (learner.input_shape, learner.output_shape) == ((None, 4), (None, 5))


def test_a_member_learns_from_augmented_scans_and_predicts_of_the_scans_themselves():
    member, rssi = small_member(), scans(6, 4)
    learner = small_learner(member)
    assert np.array_equal(learner(rssi), member(Levels(**LEVELS)(rssi)))
    assert not np.array_equal(learner(rssi, training=True), learner(rssi, training=True))


def test_a_saved_member_tells_the_same(tmp_path):
    network = small_learner(small_member())
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert np.array_equal(loaded(scans(6, 4)), network(scans(6, 4)))


def test_transmitters_that_are_not_in_use_do_not_matter():
    network, rssi = small_learner(small_member()), scans(6, 4)
    changed = rssi.copy()
    changed[:, 1] = -30
    assert np.array_equal(network(rssi), network(changed))


@pytest.mark.parametrize(("name", "value"), [("n_levels", 0), ("n_outputs", 0), ("trunk_units", -2)])
def test_size_that_is_not_positive_is_named(name, value):
    changes = {"hidden": (8, value)} if name == "trunk_units" else {name: value}
    with pytest.raises(ValueError, match=f"`{name}` must be positive. Received: {name}={value}"):
        small_member(**changes)
