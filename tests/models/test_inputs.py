"""What the paper's networks are trained on and see: Eq. 5 of their transmitters, fitted on training rows alone."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import quiet_import
from lib.data.fingerprints import Scans, in_common
from lib.models import paper, training
from lib.models.paper import UMLP, Encoder, HeardEnvironment, LikelierEnvironment, PositionInMetres, ScaledColumns
from lib.models.scaling import MinMaxScaling

with quiet_import():
    import keras

BOUNDS = (0.1, 0.9)
NOTHING = np.nan


@pytest.fixture
def trained_on(monkeypatch):
    """What `training.fit` is given: (train, validation) of each network. Nothing is trained."""
    calls = []

    def fit(network, train, validation, **settings):
        calls.append((train, validation))
        return pd.DataFrame({"epoch": [1]})

    monkeypatch.setattr(training, "fit", fit)
    return calls


def eq_5(rssi, not_heard, strongest):
    """dBm → scaled RSSI, in float64."""
    height = np.nan_to_num(rssi.astype(np.float64), nan=not_heard) - not_heard
    return BOUNDS[0] + (BOUNDS[1] - BOUNDS[0]) * height / (strongest - not_heard)


def reference(parts, name):
    """(x, y) of a part by the formulas, the ranges those of the training rows."""
    rows = getattr(parts, name)
    rssi = parts.train.scans.of(parts.transmitters)
    x = eq_5(rows.scans.of(parts.transmitters), parts.train.not_heard, np.nanmax(rssi))
    lowest, highest = parts.train.position.min(axis=0), parts.train.position.max(axis=0)
    return x, (rows.position - lowest) / (highest - lowest)


def encoder_of(parts):
    estimator = Encoder(bounds=BOUNDS, inputs=parts.transmitters)
    return estimator.fit([parts.train], [parts.validation], seed=0)


def umlp_of(indoor, outdoor, **settings):
    estimator = UMLP(bounds=BOUNDS, inputs=[indoor.transmitters, outdoor.transmitters], **settings)
    return estimator.fit([indoor.train, outdoor.train], [indoor.validation, outdoor.validation], seed=0)


def inputs_of(estimator, scans):
    """What the fitted network makes of scans by its own layers, before the part that was trained."""
    network = estimator.network
    scaled = keras.Model(network.inputs, network.get_layer("scaling").output)
    return np.asarray(scaled(scans.of(estimator.transmitters), training=False))


# === Layers ===


def test_columns_of_one_environment_are_scaled_by_eq_5_and_others_left_out():
    """x_min = −105, x_max = −5: −55 dBm is half way, 0.5; −80 dBm a quarter, 0.3."""
    layer = ScaledColumns([[2, 0]], [-105.0], [-5.0], *BOUNDS)
    rssi = np.float32([[-55, -1, -5], [NOTHING, -1, -80]])
    np.testing.assert_allclose(layer(rssi), [[0.9, 0.5], [0.3, 0.1]], rtol=1e-6)


def test_columns_of_several_environments_stand_side_by_side():
    layer = ScaledColumns([[0, 1], [2]], [-105.0, -125.0], [-5.0, -25.0], *BOUNDS)
    rssi = np.float32([[-55, NOTHING, NOTHING], [NOTHING, NOTHING, -75]])
    np.testing.assert_allclose(layer(rssi), [[0.5, 0.1, 0.1], [0.1, 0.1, 0.5]], rtol=1e-6)


def test_shared_columns_put_the_environments_on_top_of_each_other():
    layer = ScaledColumns([[0, 1], [2, 3, 4]], [-105.0, -125.0], [-5.0, -25.0], *BOUNDS, shared=True)
    rssi = np.float32([[-55, NOTHING, NOTHING, NOTHING, NOTHING], [NOTHING, NOTHING, -75, -25, -100]])
    np.testing.assert_allclose(layer(rssi), [[0.5, 0.1, 0.1], [0.5, 0.9, 0.3]], rtol=1e-6)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), BOUNDS, (-1.0, 1.0)])
def test_the_layer_agrees_with_the_scaling_that_training_uses(fingerprints, bounds):
    rssi = fingerprints.rssi[:500]
    scaling = MinMaxScaling.of_rssi(rssi, fingerprints.not_heard_dbm, *bounds)
    columns = np.random.default_rng(0).permutation(rssi.shape[1])[:60]
    layer = ScaledColumns([columns], scaling.minimum, scaling.maximum, *bounds)
    np.testing.assert_allclose(layer(rssi), scaling.transform(rssi[:, columns]), atol=1e-6)


def test_a_scaled_position_becomes_metres_of_its_environment():
    layer = PositionInMetres([[0.0, 100.0], [-50.0, 0.0]], [[10.0, 300.0], [50.0, 1000.0]])
    scaled = np.float32([[0.5, 0.5], [0.5, 0.5], [1.5, -0.5]])
    environment = np.float32([[1, 0], [0, 1], [1, 0]])
    np.testing.assert_allclose(layer([scaled, environment]), [[5, 200], [0, 500], [15, 0]], rtol=1e-6)


def test_the_likelier_environment_is_the_second_only_above_one_half():
    probability = np.float32([[0.0], [0.5], [0.51], [1.0]])
    np.testing.assert_array_equal(LikelierEnvironment()(probability), [[1, 0], [1, 0], [0, 1], [0, 1]])


def test_the_heard_environment_is_the_one_of_which_more_transmitters_are_heard():
    layer = HeardEnvironment([[0, 1], [2, 3]])
    heard = [[1, 1, 0, 1], [0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]]
    rssi = np.where(heard, np.float32(-60), np.float32(NOTHING))
    np.testing.assert_array_equal(layer(rssi), [[1, 0], [0, 1], [1, 0], [1, 0]])


@pytest.mark.parametrize(
    "layer",
    [
        ScaledColumns([[2, 0], [1]], [-105.0, -125.0], [-5.0, -25.0], *BOUNDS),
        ScaledColumns([[2, 0], [1]], [-105.0, -125.0], [-5.0, -25.0], *BOUNDS, shared=True),
        HeardEnvironment([[2, 0], [1]]),
    ],
    ids=["side by side", "shared", "heard"],
)
def test_a_layer_made_again_from_its_configuration_does_the_same(layer):
    rssi = np.float32([[-55, -60, NOTHING], [NOTHING, -75, -20]])
    again = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(again(rssi), layer(rssi))


def test_metres_made_again_from_their_configuration_are_the_same():
    layer = PositionInMetres([[0.25, 100.0]], [[10.0, 300.1]])
    again = PositionInMetres.from_config(layer.get_config())
    inputs = [np.float32([[0.3, 0.7]]), np.float32([[1.0]])]
    np.testing.assert_array_equal(again(inputs), layer(inputs))


# === One environment ===


@pytest.mark.parametrize("name", ["indoor", "outdoor"])
def test_an_encoder_learns_scaled_rssi_of_its_transmitters_and_positions_in_the_unit_square(request, trained_on, name):
    parts = request.getfixturevalue(name)
    encoder_of(parts)
    ((train, validation),) = trained_on
    for (x, y), part in ((train, "train"), (validation, "validation")):
        expected_x, expected_y = reference(parts, part)
        assert x.dtype == y.dtype == np.float32
        np.testing.assert_allclose(x, expected_x, rtol=1e-5)
        np.testing.assert_allclose(y, expected_y, atol=1e-6)
    x, y = train
    assert (y.min(), y.max()) == (0, 1)
    assert x.min() == pytest.approx(BOUNDS[0]) and x.max() == pytest.approx(BOUNDS[1])


@pytest.mark.parametrize("name", ["indoor", "outdoor"])
def test_a_fitted_network_sees_of_dbm_what_it_was_trained_on(request, trained_on, name):
    parts = request.getfixturevalue(name)
    estimator = encoder_of(parts)
    ((train, validation),) = trained_on
    np.testing.assert_allclose(inputs_of(estimator, parts.train.scans), train[0], atol=1e-6)
    np.testing.assert_allclose(inputs_of(estimator, parts.validation.scans), validation[0], atol=1e-6)
    expected_x, _ = reference(parts, "test")
    np.testing.assert_allclose(inputs_of(estimator, parts.test.scans), expected_x, atol=1e-6)


def test_an_encoder_s_positions_are_metres_of_the_training_rows_range(indoor, trained_on):
    estimator = encoder_of(indoor)
    scans = indoor.test.scans
    scaled = np.asarray(estimator.network.get_layer("localizer")(inputs_of(estimator, scans), training=False))
    lowest, highest = indoor.train.position.min(axis=0), indoor.train.position.max(axis=0)
    expected = lowest + scaled * (highest - lowest)
    np.testing.assert_allclose(estimator.predict(scans).position, expected, atol=1e-3)


def test_validation_rows_choose_no_scale(indoor, trained_on):
    encoder_of(indoor)
    validation = indoor.validation
    louder = dataclasses.replace(
        validation, rssi=np.full_like(validation.rssi, -1.0), position=validation.position + 5000.0
    )
    Encoder(bounds=BOUNDS, inputs=indoor.transmitters).fit([indoor.train], [louder], seed=0)
    (first, _), (second, changed) = trained_on
    for values, expected in zip(second, first, strict=True):
        np.testing.assert_array_equal(values, expected)
    assert changed[1].min() > 1


def test_without_transmitters_an_encoder_takes_those_that_a_training_row_hears(indoor, trained_on):
    estimator = Encoder(bounds=BOUNDS).fit([indoor.train], [indoor.validation], seed=0)
    heard = indoor.train.heard.any(axis=0)
    assert 0 < heard.sum() < len(heard)
    ((x, _), _), *_ = trained_on
    assert x.shape == (len(indoor.train), heard.sum())
    expected = eq_5(indoor.train.rssi[:, heard], -105.0, np.nanmax(indoor.train.rssi))
    np.testing.assert_allclose(x, expected, rtol=1e-5)
    np.testing.assert_allclose(inputs_of(estimator, indoor.train.scans), x, atol=1e-6)


def test_fitting_leaves_the_fingerprints_alone(indoor, outdoor, trained_on):
    before = [parts.train.rssi.copy() for parts in (indoor, outdoor)]
    encoder_of(indoor)
    encoder_of(outdoor)
    umlp_of(indoor, outdoor)
    for parts, rssi in zip((indoor, outdoor), before, strict=True):
        np.testing.assert_array_equal(parts.train.rssi, rssi)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.5, 0.5)])
def test_bounds_in_the_wrong_order_are_refused(indoor, outdoor, trained_on, bounds):
    with pytest.raises(ValueError, match="`lower` must be less than `upper`"):
        Encoder(bounds=bounds).fit([indoor.train], [indoor.validation], seed=0)
    sets = [indoor.train, outdoor.train], [indoor.validation, outdoor.validation]
    with pytest.raises(ValueError, match="`lower` must be less than `upper`"):
        UMLP(bounds=bounds).fit(*sets, seed=0)
    assert not trained_on


# === Both environments at once ===


@pytest.mark.parametrize("shared_columns", [False, True])
def test_a_umlp_sees_scans_of_both_environments_in_their_columns(indoor, outdoor, trained_on, shared_columns):
    estimator = umlp_of(indoor, outdoor, shared_columns=shared_columns)
    (x_in, _), (x_out, _) = reference(indoor, "test"), reference(outdoor, "test")
    x = inputs_of(estimator, in_common([indoor.test.scans, outdoor.test.scans]))
    n, width = x_in.shape
    first = 0 if shared_columns else width
    assert x.shape == (n + len(x_out), max(width, first + 72)) and x.dtype == np.float32
    np.testing.assert_allclose(x[:n, :width], x_in, atol=1e-6)
    np.testing.assert_allclose(x[n:, first : first + 72], x_out, atol=1e-6)
    assert (x[:n, width:] == np.float32(BOUNDS[0])).all() and (x[n:, :first] == np.float32(BOUNDS[0])).all()


@pytest.mark.parametrize("shared_columns", [False, True])
@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_umlp_learns_balanced_rows_of_both_in_the_order_of_the_draw(
    indoor, outdoor, trained_on, part, shared_columns
):
    estimator = umlp_of(indoor, outdoor, shared_columns=shared_columns)
    x, y = trained_on[0][("train", "validation").index(part)]
    sets = [getattr(parts, part) for parts in (indoor, outdoor)]
    environment = np.repeat(np.float32([0, 1]), [len(rows) for rows in sets])[:, None]
    chosen = paper.balanced(environment, paper.BALANCE_SEED)
    expected = inputs_of(estimator, in_common([rows.scans for rows in sets]))
    np.testing.assert_allclose(x, expected[chosen], atol=1e-6)
    np.testing.assert_array_equal(y["environment"], environment[chosen])
    positions = np.concatenate([reference(parts, part)[1] for parts in (indoor, outdoor)])
    np.testing.assert_allclose(y["position"], positions[chosen], atol=1e-6)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_rows_of_both_are_equally_many_and_keep_scan_environment_and_position_together(
    indoor, outdoor, trained_on, part
):
    estimator = umlp_of(indoor, outdoor)
    number_of_part = ("train", "validation").index(part)
    x, y = trained_on[0][number_of_part]
    width = len(indoor.transmitters)
    fewer = min(len(getattr(parts, part)) for parts in (indoor, outdoor))
    assert len(x) == len(y["environment"]) == len(y["position"]) == 2 * fewer
    if part == "train":
        assert estimator.n_train == [fewer, fewer]
    for number, parts in enumerate((indoor, outdoor)):
        chosen = y["environment"][:, 0] == number
        assert chosen.sum() == fewer
        columns = x[chosen][:, width:] if number else x[chosen][:, :width]
        encoder_of(parts)
        scans, places = trained_on[-1][number_of_part]
        pairs = {scan.tobytes() + place.tobytes() for scan, place in zip(scans, places, strict=True)}
        learnt = zip(columns, y["position"][chosen], strict=True)
        assert {scan.tobytes() + place.tobytes() for scan, place in learnt} <= pairs
    assert 0.3 < np.mean(np.diff(y["environment"][:, 0]) != 0) < 0.7  # shuffled together


@pytest.mark.parametrize("shared_columns", [False, True])
def test_a_transmitter_of_both_environments_is_seen_in_the_columns_of_both(indoor, outdoor, trained_on, shared_columns):
    """A gateway in town is called as an access point of the campus. A scan cannot tell which of the two it heard."""
    name = indoor.transmitters[0]
    names = (*outdoor.transmitters[:-1], name)
    rows = {part: getattr(outdoor, part) for part in ("train", "validation", "test")}
    renamed = {part: dataclasses.replace(subset, transmitters=names) for part, subset in rows.items()}
    town = dataclasses.replace(outdoor, transmitters=names, **renamed)
    estimator = umlp_of(indoor, town, shared_columns=shared_columns)
    assert len(estimator.transmitters) == len(indoor.transmitters) + len(names) - 1
    scans = Scans(np.float32([[-60]]), (name,))
    x = inputs_of(estimator, scans)[0]
    seen_indoors = eq_5(np.float32([-60]), -105.0, np.nanmax(indoor.train.scans.of(indoor.transmitters)))[0]
    seen_outdoors = eq_5(np.float32([-60]), -128.0, np.nanmax(town.train.rssi))[0]
    expected = np.full(len(x), BOUNDS[0])
    expected[0] = seen_indoors
    expected[len(names) - 1 if shared_columns else -1] = seen_outdoors
    np.testing.assert_allclose(x, expected, atol=1e-6)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_balanced_rows_are_as_many_of_both_and_no_row_twice(n_indoor, n_outdoor, seed):
    environment = np.repeat(np.float32([0, 1]), [n_indoor, n_outdoor])[:, None]
    rows = paper.balanced(environment, seed)
    fewer = min(n_indoor, n_outdoor)
    assert len(rows) == len(set(rows)) == 2 * fewer
    assert environment[rows].sum() == fewer
    np.testing.assert_array_equal(rows, paper.balanced(environment, seed))


def test_balanced_rows_are_shuffled_together_and_another_seed_shuffles_otherwise():
    environment = np.repeat(np.float32([0, 1]), [300, 500])[:, None]
    rows = paper.balanced(environment, 0)
    assert 200 < np.count_nonzero(np.diff(environment[rows, 0])) < 400  # about every second neighbour differs
    assert not np.array_equal(rows, paper.balanced(environment, 1))
