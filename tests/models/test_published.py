"""The published networks learn from training rows alone, and predict the labels that the training rows have."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from lib.data import protocols
from lib.data.fingerprints import Scans
from lib.models import published
from lib.models.published import EACNN, HADNN, AnagnostopoulosMLP, HierarchicalDNN, PlainMLP

NETWORKS = [PlainMLP, AnagnostopoulosMLP, HADNN, EACNN, HierarchicalDNN]
EVERYWHERE = [network for network in NETWORKS if not network.needs_floors]
INDOORS_ONLY = [network for network in NETWORKS if network.needs_floors]


@pytest.fixture(scope="module")
def indoor(campus):
    """Training, validation and test rows, with labels that are not 0, 1, 2, …"""
    return protocols.official(dataclasses.replace(campus, building=10 * campus.building + 7, floor=campus.floor - 2))


@pytest.fixture(scope="module")
def outdoor(city):
    return protocols.random(city)


def learnt(network, parts, seed=0):
    return network.fit([parts.train], [parts.validation], seed=seed)


@pytest.fixture(scope="module")
def fitted(indoor):
    """Every network after two epochs indoors."""
    return {network: learnt(network(epochs=2), indoor) for network in NETWORKS}


def assert_equal(located, expected):
    assert located.arrays().keys() == expected.arrays().keys()
    for name, values in expected.arrays().items():
        np.testing.assert_array_equal(getattr(located, name), values)


# === All networks ===


@pytest.mark.parametrize("network", NETWORKS)
def test_predictions_are_metres_and_labels_of_the_training_rows(fitted, indoor, network):
    located = fitted[network].predict(indoor.test.scans)
    assert located.position.shape == (len(indoor.test), 2) and np.isfinite(located.position).all()
    assert located.arrays().keys() == {"position", *network.categories}
    for field in network.categories:
        labels = getattr(located, field)
        assert labels.shape == (len(indoor.test),)
        assert np.isin(labels, getattr(indoor.train, field)).all(), field


@pytest.mark.parametrize("network", EVERYWHERE)
def test_without_buildings_they_predict_the_position_alone(outdoor, untrained, network):
    located = learnt(network(epochs=1), outdoor).predict(outdoor.test.scans)
    assert located.arrays().keys() == {"position"} and np.isfinite(located.position).all()


@pytest.mark.parametrize("network", INDOORS_ONLY)
def test_without_buildings_those_that_need_them_refuse(outdoor, network):
    with pytest.raises(ValueError, match=r"`train` must have building and floor. Received: lorawan_antwerp without"):
        learnt(network(epochs=1), outdoor)


def test_those_that_need_buildings_are_those_of_the_hierarchy():
    assert [HADNN, HierarchicalDNN] == INDOORS_ONLY


@pytest.mark.slow  # of the plain MLP, all models' tests ask it, too
@pytest.mark.parametrize("network", NETWORKS)
def test_same_seed_same_predictions(fitted, indoor, network):
    again = learnt(network(epochs=2), indoor).predict(indoor.test.scans)
    assert_equal(again, fitted[network].predict(indoor.test.scans))


@pytest.mark.parametrize("network", NETWORKS)
def test_same_seed_same_first_weights_and_another_seed_others(indoor, untrained, network):
    scans = indoor.test.scans
    first = learnt(network(), indoor, seed=0).predict(scans)
    assert_equal(learnt(network(), indoor, seed=0).predict(scans), first)
    assert np.any(learnt(network(), indoor, seed=1).predict(scans).position != first.position)


@pytest.mark.parametrize("network", NETWORKS)
def test_it_says_what_it_learnt_from(fitted, indoor, network):
    model = fitted[network]
    assert model.n_train == [len(indoor.train)]
    assert list(model.curves["epoch"]) == [1, 2] and np.isfinite(model.curves[["loss", "val_loss"]]).all(axis=None)


@pytest.mark.parametrize("network", NETWORKS)
def test_columns_are_matched_by_name(fitted, indoor, network, assert_columns_are_matched_by_name):
    scans, model = indoor.test[:20].scans, fitted[network]
    assert_columns_are_matched_by_name(model, scans)
    assert model.transmitters == indoor.train.transmitters


@pytest.mark.slow  # of the plain MLP, all models' tests ask it, too
def test_validation_rows_are_matched_by_name_as_well(fitted, indoor):
    rows = indoor.validation
    order = np.random.default_rng(0).permutation(len(rows.transmitters))
    names = tuple(np.array(rows.transmitters)[order].tolist())
    rows = dataclasses.replace(rows, rssi=rows.rssi[:, order], transmitters=names)
    model = PlainMLP(epochs=2).fit([indoor.train], [rows], seed=0)
    np.testing.assert_array_equal(model.curves["val_loss"], fitted[PlainMLP].curves["val_loss"])


def test_without_validation_rows_it_trains_all_epochs(indoor):
    """Whatever the patience: there is nothing that could stop it."""
    train = indoor.train[:80]
    model = PlainMLP(epochs=3, patience=1).fit([train], [train[:0]], seed=0)
    assert len(model.curves) == 3 and "val_loss" not in model.curves
    assert np.isfinite(model.predict(indoor.test[:5].scans).position).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_without_validation_rows_no_network_waits_for_their_loss(indoor, monkeypatch, network):
    calls = []

    def fit(model, train, validation, *, patience, **settings):
        calls.append((validation, patience))
        return pd.DataFrame({"epoch": [1]})

    monkeypatch.setattr(published.training, "fit", fit)
    model = network(patience=1).fit([indoor.train], [indoor.validation[:0]], seed=0)
    assert calls and set(calls) == {(None, None)}
    assert np.isfinite(model.predict(indoor.test[:5].scans).position).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_several_environments_are_refused(indoor, outdoor, network):
    train, validation = [indoor.train, outdoor.train], [indoor.validation, outdoor.validation]
    with pytest.raises(ValueError, match=r"learns one environment. Received: ujiindoorloc, lorawan_antwerp"):
        network(epochs=1).fit(train, validation, seed=0)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_single_row_is_too_few(indoor, network):
    """Positions cannot be scaled to a range that is none."""
    with pytest.raises(ValueError, match="`minimum` must be less than `maximum`"):
        network(epochs=1).fit([indoor.train[:1]], [indoor.validation], seed=0)


@pytest.mark.parametrize("network", NETWORKS)
def test_scans_as_none_in_training_are_predicted_as_well(fitted, indoor, network):
    """Nothing heard, everything heard, stronger than ever, weaker than ever."""
    columns = len(indoor.train.transmitters)
    rssi = np.stack([np.full(columns, level, dtype=np.float32) for level in (np.nan, -70, 20, -140)])
    located = fitted[network].predict(Scans(rssi, indoor.train.transmitters))
    assert np.isfinite(located.position).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_what_it_sees_is_fitted_on_training_rows(fitted, indoor, untrained, network):
    """Validation rows that are louder, hear new transmitters and lie elsewhere change no scaler, label or column."""
    train, validation, scans = indoor.train, indoor.validation, indoor.test.scans
    heard = train.heard.any(axis=0)
    elsewhere = dataclasses.replace(
        validation,
        rssi=np.where(heard, validation.rssi + 30, np.float32(-20)),
        position=validation.position + 1000,
        floor=validation.floor + 50,
    )
    model = network(epochs=1).fit([train], [elsewhere], seed=0)
    np.testing.assert_array_equal(model._inputs(scans), fitted[network]._inputs(scans))
    assert model._inputs(scans).shape[1] == heard.sum()
    assert model._position_scaling == fitted[network]._position_scaling
    floor = model.predict(scans).floor
    assert floor is None or set(floor) <= set(train.floor)


def test_training_makes_it_better(fitted, indoor):
    longer = learnt(PlainMLP(epochs=30), indoor)
    mean_errors = []
    for model in (fitted[PlainMLP], longer):
        position = model.predict(indoor.test.scans).position
        mean_errors.append(np.linalg.norm(position - indoor.test.position, axis=1).mean())
    assert mean_errors[1] < 0.8 * mean_errors[0]


# === Anagnostopoulos & Kalousis ===


def test_representations_are_those_of_the_formulas(indoor, untrained):
    """Both by their definition, on levels above the weakest training level less 1 dB."""
    train, test = indoor.train, indoor.test
    minimum = np.nanmin(train.rssi) - 1
    positive = np.where(np.isnan(test.rssi), 0, test.rssi - minimum)[:, train.heard.any(axis=0)]
    expected = {
        "exponential": (np.exp(np.maximum(positive, 0) / 60) - 1) / (np.exp(-minimum / 60) - 1),
        "powed": np.maximum(positive, 0) ** 1.1 / (-minimum) ** 1.1,
    }
    for representation, values in expected.items():
        network = learnt(AnagnostopoulosMLP(epochs=1, representation=representation), indoor)
        np.testing.assert_allclose(network._inputs(test.scans), values, rtol=1e-4, atol=1e-6)


def test_unknown_representation_is_refused():
    with pytest.raises(ValueError, match=r"`representation` must be one of exponential, powed. Received: positive"):
        AnagnostopoulosMLP(representation="positive")


# === EA-CNN ===


def test_noise_falls_on_what_is_heard_and_only_in_training():
    x = np.tile(np.float32([0.0, 0.5, 0.5]), (20_000, 1))
    noise = published.RssiNoise(np.float32([0.1, 0.1, 0.0]))
    np.testing.assert_array_equal(noise(x, training=False), x)
    noisy = keras.ops.convert_to_numpy(noise(x, training=True))
    np.testing.assert_array_equal(noisy[:, [0, 2]], x[:, [0, 2]])
    assert noisy[:, 1].std() == pytest.approx(0.1, rel=0.05) and noisy[:, 1].mean() == pytest.approx(0.5, abs=0.01)


def test_prediction_has_no_noise(fitted, indoor):
    first = fitted[EACNN].predict(indoor.test.scans)
    assert_equal(fitted[EACNN].predict(indoor.test.scans), first)


def test_encoder_solves_its_ridge_regression():
    rng = np.random.default_rng(0)
    features, targets = rng.random((50, 8)), rng.random((50, 3))
    expected = Ridge(alpha=0.7, fit_intercept=False).fit(features, targets).coef_.T
    np.testing.assert_allclose(published.ridge_regression(features, targets, 0.7), expected, rtol=1e-6)


def test_encoder_is_not_trained_and_keeps_what_it_was_given(fitted):
    """With as many units as directions in the data, encoding loses nothing: scans can be had back by a linear map."""
    layer = fitted[EACNN]._network.get_layer("elm_encoder")
    assert not layer.trainable_weights
    x = np.random.default_rng(0).random((100, 4))
    code = x @ published.elm_encoder(x, 12, 1e-6)
    np.testing.assert_allclose(code @ np.linalg.lstsq(code, x, rcond=None)[0], x, atol=1e-6)


# === Kim, Lee & Huang ===


def test_position_is_the_weighted_mean_of_the_strongest_reference_points(monkeypatch, fitted):
    network = dataclasses.replace(fitted[HierarchicalDNN], kappa=3, sigma=0.5)
    network._labels = {"building": np.array([7, 17]), "floor": np.array([-2, -1])}
    network._places = np.full((2, 2, 5, 2), np.nan)
    network._places[1, 0, :4] = [[0, 0], [10, 0], [0, 10], [50, 50]]
    network._network, network._inputs = None, lambda scans: scans.rssi
    scores = np.array([[0.1, 0.9, 0.2, 0.8, 0.8, 0.6, 0.3, 0.1, 0.9]], dtype=np.float32)  # that of no place is highest
    monkeypatch.setattr(published.training, "predict", lambda network, x: {"position": scores})
    located = network.predict(Scans(np.zeros((1, 4), dtype=np.float32), tuple("abcd")))
    assert (located.building, located.floor) == (17, -2), "the building has one floor"
    np.testing.assert_allclose(located.position, [[10 * 0.6 / 1.4, 0]], rtol=1e-6)


def test_reference_points_are_numbered_on_each_floor_and_unknown_places_are_none(fitted, indoor):
    train, validation = indoor.train, indoor.validation
    network = fitted[HierarchicalDNN]
    targets = network._targets(train)
    assert (targets.sum(axis=1) == 3).all()
    buildings, floors, _, _ = network._places.shape
    building, floor, place = np.split(targets, [buildings, buildings + floors], axis=1)
    positions = network._places[building.argmax(axis=1), floor.argmax(axis=1), place.argmax(axis=1)]
    np.testing.assert_array_equal(positions, train.position)
    elsewhere = dataclasses.replace(validation, position=validation.position + 0.5)
    assert (network._targets(elsewhere)[:, buildings + floors :] == 0).all()
