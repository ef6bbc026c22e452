"""A network in a file of another format says what the trained network says."""

import importlib.util

import keras
import numpy as np
import pytest

from lib.data.fingerprints import in_common
from lib.models import places, unified
from lib.models.layers import Augmentation, decoded, trunk_network
from lib.use import convert

NEEDS_LITERT = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="requirements-export.txt is not installed"
)
SUFFIXES = [".onnx", pytest.param(".tflite", marks=NEEDS_LITERT)]


@pytest.fixture(scope="module")
def scans(campus, city):
    """40 scans of each environment, one that hears nothing among them."""
    rssi = in_common([campus.scans[:40], city.scans[:40]]).rssi
    silent = np.full((1, rssi.shape[1]), np.nan, np.float32)
    return np.concatenate([rssi, silent])


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "with neighbours"])
def trained(request, campus, city, scans):
    """A network whose normalisation has seen scans, so that folding it is something to get right."""
    keras.utils.set_random_seed(3)
    all_places = places.joined([places.Places.of(campus), places.Places.of(city, cell=500.0)])
    heard = ~np.isnan(in_common([campus.scans, city.scans]).rssi)
    n_transmitters = scans.shape[1]
    network = trunk_network(
        n_transmitters,
        np.flatnonzero(heard.any(axis=0)),
        np.full(n_transmitters, -105.0),
        len(all_places),
        augmentation=dict.fromkeys(unified.AUGMENTATION, np.zeros(n_transmitters)),
        **unified.NETWORK | {"hidden": (24, 16)},
    )
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            drawn = np.random.default_rng(len(layer.name)).uniform(0.5, 2.0, (4, layer.input.shape[1]))
            layer.set_weights(list(drawn))
    head = network.get_layer("head")
    head.set_weights([8 * weights for weights in head.get_weights()])  # so that few places are likely
    if request.param:
        settings = {"share": 0.5, "width": 0.03, "strongest": 24, "offsets": (-4.0, 0.0)}
        labels = places.labels(campus[:40])
        network = places.with_votes(network, labels, scans[:40], all_places, 0, **settings)
    return decoded(network, places.PlaceDecoder(all_places, name="decoder"))


@pytest.fixture(scope="module")
def expected(trained, scans):
    return {name: keras.ops.convert_to_numpy(values) for name, values in trained(scans, training=False).items()}


def check_alike(found, expected, metres):
    assert set(found) == {"environment", "building", "floor", "position", "spread"} == set(expected)
    for name in ("building", "floor"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found["environment"], expected["environment"], atol=1e-4)
    for name in ("position", "spread"):
        np.testing.assert_allclose(found[name], expected[name], atol=metres)


def test_for_inference_is_smaller_and_says_the_same(trained, scans, expected):
    folded = convert.for_inference(trained)
    kinds = {type(layer) for layer in folded.layers}
    assert not kinds & {keras.layers.BatchNormalization, keras.layers.Dropout, Augmentation}
    assert folded.count_params() < trained.count_params()
    check_alike(folded(scans, training=False), expected, metres=1e-3)


def test_folding_leaves_alone_what_no_dense_layer_precedes():
    inputs = keras.Input((3,))
    x = keras.layers.BatchNormalization()(inputs)
    x = keras.layers.Dense(4, activation="relu")(x)
    x = keras.layers.BatchNormalization(scale=False)(x)
    x = keras.layers.Dense(4)(x)
    model = keras.Model(inputs, {"position": keras.layers.BatchNormalization(center=False)(x)})
    drawn = np.random.default_rng(0)
    model.set_weights([drawn.uniform(0.5, 2.0, weights.shape) for weights in model.get_weights()])
    folded, x = convert.for_inference(model), drawn.normal(size=(5, 3))
    assert sum(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers) == 2
    np.testing.assert_allclose(folded(x)["position"], model(x)["position"], rtol=1e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_says_what_the_network_says(trained, scans, expected, tmp_path, suffix, capfd):
    path = convert.write(trained, tmp_path / "new" / f"localizer{suffix}")
    locate = convert.read(path)
    check_alike(locate(scans), expected, metres=1e-3)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert list(path.parent.iterdir()) == [path]
    alone = [locate(scan[None]) for scan in scans]
    joined = {name: np.concatenate([outputs[name] for outputs in alone]) for name in expected}
    check_alike(joined, expected, metres=1e-3)


def test_failed_conversion_leaves_the_former_file(trained, tmp_path, monkeypatch):
    path = tmp_path / "localizer.onnx"
    path.write_bytes(b"former")
    monkeypatch.setattr(keras.Model, "export", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert.write(trained, path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"former"]


@pytest.mark.parametrize("use", [lambda path: convert.write(None, path), convert.read])
def test_other_formats_are_refused(use, tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end with \.onnx or \.tflite"):
        use(tmp_path / "localizer.h5")


def test_absent_package_is_named_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "LITERT", "no_such_runtime")
    with pytest.raises(ImportError, match=r"no_such_runtime.*requirements-export\.txt"):
        convert.read(tmp_path / "localizer.tflite")
