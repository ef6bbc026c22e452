"""Every builder: its shapes, its names, its configuration and its file."""

import random

import keras
import numpy as np
import pytest

from lib import models

DENSE_BLOCK = ("dense", "norm", "relu", "dropout")


def shape_of(outputs):
    return keras.tree.map_structure(lambda one: tuple(one.shape), outputs)


def assert_equal_outputs(one, other):
    keras.tree.map_structure(lambda a, b: np.testing.assert_array_equal(a, b), one, other)


def outputs_of(model: keras.Model, x):
    """What the network predicts. It is called as it is: `Model.predict` would compile each for a second."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))


def check_model(model: keras.Model, n_inputs: int, output_shape, layer_names, folder) -> None:
    """What every builder must give: the output shape, named layers, a configuration and a file that bring it back.

    Args:
        model: what the builder returned.
        n_inputs: width of its input.
        output_shape: of one row; a dict of shapes where there are several outputs.
        layer_names: some of the layers, in order.
        folder: where the model may be saved.
    """
    x = np.random.default_rng(0).random((3, n_inputs), dtype=np.float32)
    predicted = outputs_of(model, x)
    batch_of = {name: (3, *shape) for name, shape in output_shape.items()} if isinstance(output_shape, dict) else None
    assert shape_of(predicted) == (batch_of or (3, *output_shape))

    names = [layer.name for layer in model.layers]
    assert [name for name in names if name in layer_names] == list(layer_names)
    assert not any(name.split("_")[-1].isdigit() and name.startswith("dense") for name in names), "a layer has no name"

    again = model.__class__.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    again.set_weights(model.get_weights())
    assert_equal_outputs(outputs_of(again, x), predicted)

    model.save(folder / "model.keras")
    assert_equal_outputs(outputs_of(keras.models.load_model(folder / "model.keras"), x), predicted)


def blocks(name: str, count: int) -> list[str]:
    return [f"{name}_{kind}_{number}" for number in range(1, count + 1) for kind in DENSE_BLOCK]


# === Builders ===


def test_encoder(tmp_path):
    model = models.encoder(11, hidden=(8,), latent=5, dropout=0.1)
    check_model(model, 11, (5,), ["rssi", *blocks("encoder", 2)], tmp_path)


def test_base_model(tmp_path):
    model = models.base_model(5, hidden=(8, 7), intermediate=6, dropout=0.1)
    check_model(model, 5, (6,), ["latent", *blocks("base", 3)], tmp_path)


def test_predictive_head(tmp_path):
    model = models.predictive_head(6, hidden=(4,), dropout=0.1)
    check_model(model, 6, (2,), ["intermediate", *blocks("head", 1), "position"], tmp_path)


def test_predictive_head_without_hidden_layer_is_one_linear_layer(tmp_path):
    model = models.predictive_head(6, hidden=(), dropout=0.1)
    check_model(model, 6, (2,), ["intermediate", "position"], tmp_path)


@pytest.mark.parametrize("config", models.CONFIGS)
def test_localizer_of_every_configuration(tmp_path, config):
    model = models.localizer(11, config)
    check_model(model, 11, (2,), ["rssi", "encoder", "base_model", "predictive_head"], tmp_path)
    sizes = models.CONFIGS[config]
    assert model.get_layer("encoder").output_shape == (None, sizes["encoder"]["latent"])
    assert model.get_layer("base_model").output_shape == (None, sizes["base_model"]["intermediate"])


@pytest.mark.parametrize("config", models.CONFIGS)
def test_umlp_of_every_configuration(tmp_path, config):
    model = models.umlp(11, config)
    names = ["rssi", *blocks("trunk", len(models.CONFIGS[config]["umlp"]["hidden"]))]
    check_model(model, 11, {"environment": (1,), "position": (2,)}, names, tmp_path)


def test_default_is_a_configuration():
    assert models.DEFAULT in models.CONFIGS
    assert models.localizer(9).count_params() == models.localizer(9, models.DEFAULT).count_params()
    assert models.umlp(9).count_params() == models.umlp(9, models.DEFAULT).count_params()


# === What the paper says of them ===


def test_environment_is_a_probability_and_position_is_linear():
    outputs = outputs_of(models.umlp(4), 1e4 * np.random.default_rng(0).normal(size=(50, 4)))
    assert outputs["environment"].min() >= 0 and outputs["environment"].max() <= 1
    assert outputs["position"].min() < 0 and np.abs(outputs["position"]).max() > 1
    for model in (models.umlp(4), models.predictive_head(4, (3,), 0.0)):
        assert model.get_layer("position").activation is keras.activations.linear


def test_base_model_does_not_depend_on_the_environments_width():
    narrow, wide = (models.localizer(width).get_layer("base_model") for width in (3, 300))
    assert [weight.shape for weight in narrow.weights] == [weight.shape for weight in wide.weights]


def test_a_block_normalises_rectifies_and_drops():
    """A dense layer is followed by batch normalisation, ReLU and dropout, in this order (section III-A)."""
    model = models.encoder(4, hidden=(), latent=6, dropout=0.5)
    kinds = [type(layer).__name__ for layer in model.layers[1:]]
    assert kinds == ["Dense", "BatchNormalization", "ReLU", "Dropout"]
    x = np.random.default_rng(0).normal(size=(2000, 4)).astype("float32")
    trained = keras.ops.convert_to_numpy(model(x, training=True))
    assert (trained == 0).mean() == pytest.approx(0.75, abs=0.05)  # half are negative, half of the others dropped
    assert keras.ops.convert_to_numpy(model(x)).min() == 0


def test_dropout_is_that_of_the_argument_but_for_the_head():
    model = models.localizer(4, dropout=0.25)
    parts = {name: model.get_layer(name) for name in ("encoder", "base_model", "predictive_head")}
    for name, part in {**parts, "umlp": models.umlp(4, dropout=0.25)}.items():
        rates = {layer.rate for layer in part.layers if isinstance(layer, keras.layers.Dropout)}
        assert rates == ({0.0} if name == "predictive_head" else {0.25}), name


# === Chance ===


@pytest.mark.parametrize("build", [models.localizer, models.umlp])
def test_another_thread_that_draws_numbers_changes_no_network(build):
    """Dask and Jupyter keep threads beside the training; Python's generator is one for all of them."""
    x, seen = np.ones((4, 7), dtype=np.float32), []
    for drawn_elsewhere in (1, 2):
        keras.utils.set_random_seed(0)
        random.seed(drawn_elsewhere)
        model = build(7, dropout=0.5)
        seen.append((model.get_weights(), keras.tree.map_structure(np.asarray, model(x, training=True))))
    assert_equal_outputs(*seen)


def test_layers_of_one_shape_start_from_different_weights():
    first, second = (models.base_model(6, (6, 6), 3, 0.1).get_layer(f"base_dense_{number}") for number in (1, 2))
    assert np.any(first.get_weights()[0] != second.get_weights()[0])


# === Arguments ===


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [
        (lambda: models.encoder(0, (4,), 4, 0.0), "n_transmitters", 0),
        (lambda: models.encoder(3, (4,), -1, 0.0), "latent", -1),
        (lambda: models.encoder(3, (4, 0), 4, 0.0), "encoder_units", 0),
        (lambda: models.base_model(0, (4,), 4, 0.0), "latent", 0),
        (lambda: models.base_model(4, (4,), 0, 0.0), "intermediate", 0),
        (lambda: models.base_model(4, (-2,), 4, 0.0), "base_units", -2),
        (lambda: models.predictive_head(0, (4,), 0.0), "intermediate", 0),
        (lambda: models.predictive_head(4, (0,), 0.0), "head_units", 0),
        (lambda: models.localizer(0), "n_transmitters", 0),
        (lambda: models.umlp(-5), "n_inputs", -5),
    ],
)
def test_size_that_is_not_positive_is_named(build, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be positive. Received: {name}={value}"):
        build()


@pytest.mark.parametrize("build", [models.localizer, models.umlp])
def test_unknown_configuration_is_named_with_the_known_ones(build):
    with pytest.raises(ValueError, match=r"`config` must be one of narrow, .* Received: huge"):
        build(5, config="huge")


@pytest.mark.parametrize("dropout", [-0.1, 1.5])
@pytest.mark.parametrize("build", [models.localizer, models.umlp])
def test_dropout_that_is_no_share_is_refused(build, dropout):
    with pytest.raises(ValueError, match=f"{dropout}"):
        build(5, dropout=dropout)
