"""What is exported locates as the trained network does."""

import importlib.util

import keras
import numpy as np
import pytest

from benchmarks import export as benchmark
from lib import export, models, places, unified

MISSING = [
    name for name in ("tf2onnx", "onnx", "onnxruntime", "ai_edge_litert") if importlib.util.find_spec(name) is None
]


@pytest.fixture(scope="module")
def scans(campus, city):
    """40 scans of each environment, one that hears nothing among them."""
    rssi = unified.side_by_side([campus[:40], city[:40]])
    return np.concatenate([rssi, np.full((1, rssi.shape[1]), np.nan, np.float32)])


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "with neighbours"])
def trained(request, campus, city, scans):
    """A network whose normalisation has seen scans, so that folding it is something to get right."""
    keras.utils.set_random_seed(3)
    of = places.joined([places.Places.of(campus), places.Places.of(city, cell=500.0)])
    columns = np.flatnonzero(~np.isnan(unified.side_by_side([campus, city])).all(axis=0))
    minimum, settings = np.full(scans.shape[1], -105.0), unified.NETWORK | {"hidden": (24, 16)}
    augmentation = dict.fromkeys(unified.AUGMENTATION, np.zeros(scans.shape[1]))
    network = models.unified(scans.shape[1], columns, minimum, len(of), augmentation=augmentation, **settings)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            drawn = np.random.default_rng(len(layer.name)).uniform(0.5, 2.0, (4, layer.input.shape[1]))
            layer.set_weights(list(drawn))
    head = network.get_layer("head")
    head.set_weights([8 * weights for weights in head.get_weights()])  # so that few places are likely
    if request.param:
        vote, levels = places.Neighbours(np.arange(40), 0.5, 0.03, strongest=24), network.get_layer("levels")
        shifted = [levels(network.input + offset) for offset in (-4.0, 0.0)]
        network = keras.Model(network.input, vote([*shifted, network.output]))
        vote.store(levels(scans[:40]))
    return models.decoded(network, places.PlaceDecoder(of, name="decoder"))


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
    folded = export.for_inference(trained)
    kinds = {type(layer) for layer in folded.layers}
    assert not kinds & {keras.layers.BatchNormalization, keras.layers.Dropout, models.Augmentation}
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
    folded, x = export.for_inference(model), drawn.normal(size=(5, 3))
    assert sum(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers) == 2
    np.testing.assert_allclose(folded(x)["position"], model(x)["position"], rtol=1e-4)


@pytest.mark.skipif(bool(MISSING), reason=f"requirements-export.txt is not installed: no {', '.join(MISSING)}")
@pytest.mark.parametrize("suffix", export.FORMATS)
def test_exported_file_says_what_the_network_says(trained, scans, expected, tmp_path, suffix, capfd):
    path = export.write(trained, tmp_path / "new" / f"localizer{suffix}")
    locate = export.read(path)
    check_alike(locate(scans), expected, metres=1e-3)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert list(path.parent.iterdir()) == [path]
    alone = [locate(scan[None]) for scan in scans]
    check_alike({name: np.concatenate([one[name] for one in alone]) for name in expected}, expected, metres=1e-3)


@pytest.mark.skipif(bool(MISSING), reason=f"requirements-export.txt is not installed: no {', '.join(MISSING)}")
def test_failed_export_leaves_the_former_file(trained, tmp_path, monkeypatch):
    path = tmp_path / "localizer.onnx"
    path.write_bytes(b"former")
    monkeypatch.setattr(keras.Model, "export", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export.write(trained, path)
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"former"]


@pytest.mark.parametrize("use", [lambda path: export.write(None, path), export.read])
def test_other_formats_are_refused(use, tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end with \.onnx or \.tflite"):
        use(tmp_path / "localizer.h5")


def test_absent_package_is_named_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(export.RUN_BY, "onnx", "no_such_runtime")
    with pytest.raises(ImportError, match=r"no_such_runtime.*requirements-export\.txt"):
        export.read(tmp_path / "localizer.onnx")


def test_disagreement_is_of_each_environment_and_counts_other_places_apart():
    expected = {
        "environment": np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]]),
        "building": np.array([0, 0, -1, -1]),
        "floor": np.array([1, 1, -1, -1]),
        "position": np.zeros((4, 2)),
    }
    moved = expected | {"position": np.array([[0, 2], [0, 90], [3, 4], [0, 80]]), "floor": np.array([1, 2, -1, -1])}
    moved |= {"environment": np.array([[0.8, 0.2], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])}
    found = benchmark.disagreement(moved, expected, counts=[2, 2])
    assert found == {"indoors_m": 2, "outdoors_m": 5, "other_place": 2, "n_scans": 4}
