"""The published networks learn from training rows alone, and come back with the labels they were given."""

import dataclasses

import keras
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from lib import baseline_networks, splits
from lib.baseline_networks import INDOORS_ONLY, NETWORKS, SEARCHED

EVERYWHERE = sorted(set(NETWORKS) - INDOORS_ONLY)


def parts(fingerprints, protocol: str):
    rows = splits.split(fingerprints, protocol)
    return fingerprints[rows.train], fingerprints[rows.validation], fingerprints[rows.test]


@pytest.fixture(scope="module")
def indoor(campus):
    """Training, validation and test rows, with labels that are not 0, 1, 2, …"""
    renamed = dataclasses.replace(campus, building=10 * campus.building + 7, floor=campus.floor - 2)
    return parts(renamed, "official")


@pytest.fixture(scope="module")
def outdoor(city):
    return parts(city, "random")


@pytest.fixture(scope="module")
def fitted(indoor):
    """Every network after two epochs indoors."""
    train, validation, _ = indoor
    return {name: network(epochs=2).fit(train, validation, seed=0) for name, network in NETWORKS.items()}


# === All networks ===


@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_are_metres_and_labels_of_the_training_rows(fitted, indoor, name):
    train, _, test = indoor
    predicted = fitted[name].predict(test.rssi)
    assert predicted["position"].shape == (len(test), 2) and np.isfinite(predicted["position"]).all()
    for field in set(predicted) - {"position"}:
        assert predicted[field].shape == (len(test),)
        assert np.isin(predicted[field], getattr(train, field)).all(), field
    assert set(predicted) == {"position", *NETWORKS[name].categories}


@pytest.mark.parametrize("name", EVERYWHERE)
def test_outdoors_they_tell_the_position_alone(outdoor, untrained, name):
    train, validation, test = outdoor
    predicted = NETWORKS[name](epochs=1).fit(train, validation, seed=0).predict(test.rssi)
    assert set(predicted) == {"position"} and np.isfinite(predicted["position"]).all()


@pytest.mark.parametrize("name", sorted(INDOORS_ONLY))
def test_without_buildings_those_that_need_them_refuse(outdoor, name):
    with pytest.raises(ValueError, match=r"`train` must have building and floor. Received: lorawan_antwerp without"):
        NETWORKS[name](epochs=1).fit(*outdoor[:2], seed=0)


TRAINED_TWICE = [name if name == "mlp_plain" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]


@pytest.mark.parametrize("name", TRAINED_TWICE)
def test_same_seed_same_predictions(fitted, indoor, name):
    train, validation, test = indoor
    again = NETWORKS[name](epochs=2).fit(train, validation, seed=0).predict(test.rssi)
    for field, values in fitted[name].predict(test.rssi).items():
        np.testing.assert_array_equal(again[field], values)


@pytest.mark.parametrize("name", NETWORKS)
def test_same_seed_same_first_weights_and_another_seed_others(indoor, untrained, name):
    train, validation, test = indoor
    one, same, other = (NETWORKS[name]().fit(train, validation, seed).predict(test.rssi) for seed in (0, 0, 1))
    for field, values in one.items():
        np.testing.assert_array_equal(same[field], values)
    assert np.any(one["position"] != other["position"])


@pytest.mark.parametrize("name", NETWORKS)
def test_it_says_what_it_learnt_from(fitted, indoor, name):
    assert fitted[name].n_train == len(indoor[0]) and fitted[name].epochs_run == 2


@pytest.mark.parametrize("name", NETWORKS)
def test_scans_as_none_in_training_are_predicted_as_well(fitted, indoor, name):
    """Nothing heard, everything heard, stronger than ever, weaker than ever."""
    columns = indoor[0].rssi.shape[1]
    rssi = np.stack([np.full(columns, level, dtype=np.float32) for level in (np.nan, -70, 20, -140)])
    assert np.isfinite(fitted[name].predict(rssi)["position"]).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_what_it_sees_is_fitted_on_training_rows(fitted, indoor, untrained, name):
    """Validation rows that are louder, hear new transmitters and lie elsewhere change no scaler, label or column."""
    train, validation, test = indoor
    heard = train.heard.any(axis=0)
    elsewhere = dataclasses.replace(
        validation,
        rssi=np.where(heard, validation.rssi + 30, np.float32(-20)),
        position=validation.position + 1000,
        floor=validation.floor + 50,
    )
    other = NETWORKS[name](epochs=1).fit(train, elsewhere, seed=0)
    np.testing.assert_array_equal(other._inputs(test.rssi), fitted[name]._inputs(test.rssi))
    assert other._inputs(test.rssi).shape[1] == heard.sum()
    assert other._position_scaling == fitted[name]._position_scaling
    assert set(other.predict(test.rssi).get("floor", train.floor)) <= set(train.floor)


def test_training_makes_it_better(fitted, indoor):
    train, validation, test = indoor
    network = NETWORKS["mlp_plain"](epochs=30).fit(train, validation, seed=0)
    briefly, longer = (
        np.linalg.norm(trained.predict(test.rssi)["position"] - test.position, axis=1).mean()
        for trained in (fitted["mlp_plain"], network)
    )
    assert longer < 0.8 * briefly


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_is_the_first_that_was_compared(name):
    settings = SEARCHED[name]
    assert 2 <= len(settings) <= 4
    compared = [NETWORKS[name](**setting) for setting in settings]
    assert compared[0] == NETWORKS[name]()
    assert all(one != compared[0] for one in compared[1:])


# === Anagnostopoulos & Kalousis ===


def test_representations_are_those_of_the_formulas(indoor):
    """Both by their definition, on levels above the weakest training level less 1 dB."""
    train, _, test = indoor
    minimum = np.nanmin(train.rssi) - 1
    positive = np.where(np.isnan(test.rssi), 0, test.rssi - minimum)[:, train.heard.any(axis=0)]
    expected = {
        "exponential": (np.exp(np.maximum(positive, 0) / 60) - 1) / (np.exp(-minimum / 60) - 1),
        "powed": np.maximum(positive, 0) ** 1.1 / (-minimum) ** 1.1,
    }
    for representation, values in expected.items():
        network = NETWORKS["mlp_anagnostopoulos"](epochs=1, representation=representation)
        network._heard = train.heard.any(axis=0)
        network._learn_inputs(train)
        np.testing.assert_allclose(network._inputs(test.rssi), values, rtol=1e-4, atol=1e-6)


def test_unknown_representation_is_refused():
    with pytest.raises(ValueError, match=r"`representation` must be exponential or powed. Received: positive"):
        NETWORKS["mlp_anagnostopoulos"](representation="positive")


# === EA-CNN ===


def test_noise_falls_on_what_is_heard_and_only_in_training():
    x = np.tile(np.float32([0.0, 0.5, 0.5]), (20_000, 1))
    noise = baseline_networks.RssiNoise(np.float32([0.1, 0.1, 0.0]))
    np.testing.assert_array_equal(noise(x, training=False), x)
    noisy = keras.ops.convert_to_numpy(noise(x, training=True))
    np.testing.assert_array_equal(noisy[:, [0, 2]], x[:, [0, 2]])
    assert noisy[:, 1].std() == pytest.approx(0.1, rel=0.05) and noisy[:, 1].mean() == pytest.approx(0.5, abs=0.01)


def test_prediction_has_no_noise(fitted, indoor):
    first, second = (fitted["ea_cnn"].predict(indoor[2].rssi)["position"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_encoder_solves_its_ridge_regression():
    rng = np.random.default_rng(0)
    features, targets = rng.random((50, 8)), rng.random((50, 3))
    theirs = Ridge(alpha=0.7, fit_intercept=False).fit(features, targets).coef_.T
    np.testing.assert_allclose(baseline_networks.ridge_regression(features, targets, 0.7), theirs, rtol=1e-6)


def test_encoder_is_not_trained_and_keeps_what_it_was_given(fitted, indoor):
    """With as many units as directions in the data, encoding loses nothing: scans can be had back by a linear map."""
    layer = fitted["ea_cnn"]._network.get_layer("elm_encoder")
    assert not layer.trainable_weights
    x = np.random.default_rng(0).random((100, 4))
    code = x @ baseline_networks.elm_encoder(x, 12, 1e-6)
    np.testing.assert_allclose(code @ np.linalg.lstsq(code, x, rcond=None)[0], x, atol=1e-6)


# === Kim, Lee & Huang ===


def test_position_is_the_weighted_mean_of_the_strongest_reference_points(monkeypatch, fitted):
    network = dataclasses.replace(fitted["hierarchical_dnn"], kappa=3, sigma=0.5)
    network._labels = {"building": np.array([7, 17]), "floor": np.array([-2, -1])}
    network._places = np.full((2, 2, 5, 2), np.nan)
    network._places[1, 0, :4] = [[0, 0], [10, 0], [0, 10], [50, 50]]
    network._network, network._inputs = None, lambda rssi: rssi
    scores = np.array([[0.1, 0.9, 0.2, 0.8, 0.8, 0.6, 0.3, 0.1, 0.9]], dtype=np.float32)  # that of no place is highest
    monkeypatch.setattr(baseline_networks.training, "predict", lambda network, x: {"position": scores})
    predicted = network.predict(np.zeros((1, 4)))
    assert (predicted["building"], predicted["floor"]) == (17, -2), "the building has one floor"
    np.testing.assert_allclose(predicted["position"], [[10 * 0.6 / 1.4, 0]], rtol=1e-6)


def test_reference_points_are_numbered_on_each_floor_and_unknown_places_are_none(fitted, indoor):
    train, validation, _ = indoor
    network = fitted["hierarchical_dnn"]
    targets = network._targets(train)
    assert (targets.sum(axis=1) == 3).all()
    buildings, floors, _, _ = network._places.shape
    building, floor, place = np.split(targets, [buildings, buildings + floors], axis=1)
    found = network._places[building.argmax(axis=1), floor.argmax(axis=1), place.argmax(axis=1)]
    np.testing.assert_array_equal(found, train.position)
    elsewhere = dataclasses.replace(validation, position=validation.position + 0.5)
    assert (network._targets(elsewhere)[:, buildings + floors :] == 0).all()
