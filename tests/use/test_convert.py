"""A network in a file of another format says what the trained network says."""

import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

from lib.data.fingerprints import in_common
from lib.models import places, unified
from lib.models.by_environment import member_of_several
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


def some_member(number, n_levels, counts):
    """A member whose normalisation has seen scans, so that folding it is something to get right."""
    member = member_of_several(n_levels, counts, hidden=(24, 16), dropout=0.3, name=f"member_{number}")
    for layer in member.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            rng = np.random.default_rng(10 * number + layer.input.shape[1])
            layer.set_weights(list(rng.uniform(0.5, 2.0, (4, layer.input.shape[1]))))
    head = member.get_layer("head")
    head.set_weights([8 * weights for weights in head.get_weights()])  # so that few places are likely
    return member


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "with neighbours"])
def trained(request, campus, city, scans):
    """A network of two members for both environments."""
    keras.utils.set_random_seed(3)
    all_places = places.joined([places.Places.of(campus), places.Places.of(city, cell=500.0)])
    n_transmitters = scans.shape[1]
    widths = [len(campus.transmitters), len(city.transmitters)]
    heard = ~np.isnan(in_common([campus.scans, city.scans]).rssi)
    columns = np.flatnonzero(heard.any(axis=0))
    levels = {"columns": columns, "minimum": np.full(len(columns), -105.0), "exponent": 1.5, "heard": False}
    audible = {"of_transmitter": np.repeat([0, 1], widths), "of_output": all_places.environment}
    counts = np.bincount(all_places.environment).tolist()
    members = [some_member(number, len(columns), counts) for number in range(2)]
    votes = []
    if request.param:
        own_columns = columns[columns < len(campus.transmitters)]
        settings = {
            "columns": own_columns,
            "minimum": np.full(len(own_columns), -105.0),
            "own_places": np.flatnonzero(all_places.environment == 0),
            "of_place": all_places.nearest(places.labels(campus[:40]), 0),
            "offsets": (-4.0, 0.0),
        }
        votes.append(unified.Votes(settings, scans[:40], "neighbours_0"))
    decoder = places.PlaceDecoder(all_places, name="decoder")
    return unified.assembled(members, levels, audible, votes, decoder, n_transmitters)


@pytest.fixture(scope="module")
def expected(trained, scans):
    return {name: keras.ops.convert_to_numpy(values) for name, values in trained(scans, training=False).items()}


def all_layers(model):
    """The layers of a network and of the members in it."""
    layers = []
    for layer in model.layers:
        layers += all_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return layers


def check_alike(found, expected, metres):
    assert set(found) == {"environment", "building", "floor", "position", "spread"} == set(expected)
    for name in ("building", "floor"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found["environment"], expected["environment"], atol=1e-4)
    for name in ("position", "spread"):
        np.testing.assert_allclose(found[name], expected[name], atol=metres)


def test_for_inference_is_smaller_and_says_the_same(trained, scans, expected):
    folded = convert.for_inference(trained)
    kinds = {type(layer) for layer in all_layers(folded)}
    assert not kinds & {keras.layers.BatchNormalization, keras.layers.Dropout}
    assert folded.count_params() < trained.count_params()
    check_alike(folded(scans, training=False), expected, metres=1e-3)


def test_what_is_stored_is_read_once_for_each_offset(trained):
    """The converter copies what it reads: once for each transmitter, a large survey is beyond the 2 GB of a graph."""
    stored = [layer.stored for layer in trained.layers if isinstance(layer, places.Neighbours)]
    exported = tf.function(convert.for_inference(trained))
    graph = exported.get_concrete_function(tf.TensorSpec([None, trained.input_shape[1]])).graph
    read = [operation.outputs[0].shape for operation in graph.get_operations() if operation.type == "ReadVariableOp"]
    for weights in stored:
        assert read.count(weights.shape) == 2


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
