"""Training lowers the loss, the same seed gives the same digits, and transfer copies the base model alone."""

import gc

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from lib.models import paper, training

SETTINGS = {"loss": "mse", "epochs": 3, "batch_size": 16, "learning_rate": 0.01}
COLUMNS = ["epoch", "loss", "rmse", "val_loss", "val_rmse"]
TWO_LOSSES = {"environment": "binary_crossentropy", "position": "mse"}


def small_localizer(n_inputs: int = 5, base_width: int = 6) -> keras.Model:
    """A localizer as `paper.localizer` makes them, a few units wide."""
    inputs = keras.Input((n_inputs,), name="rssi")
    encoded = paper.encoder(n_inputs, hidden=(), latent=8, dropout=0.0)(inputs)
    base = paper.base_model(8, hidden=(), intermediate=base_width, dropout=0.1)(encoded)
    return keras.Model(inputs, paper.predictive_head(base_width, hidden=())(base), name="localizer")


def plain(width: int = 6, seen_by: tuple = ("position",), dropout: float = 0.1) -> keras.Model:
    """The smallest network with everything that chance or order touches: weights, statistics and dropout."""
    inputs = keras.Input((5,), name="rssi")
    x = keras.layers.Dense(width, activation="relu", name="hidden")(inputs)
    x = keras.layers.Dropout(dropout, name="dropout")(keras.layers.BatchNormalization(momentum=0.9, name="norm")(x))
    outputs = {
        "environment": keras.layers.Dense(1, activation="sigmoid", name="environment"),
        "position": keras.layers.Dense(2, name="position"),
    }
    made = {name: outputs[name](x) for name in seen_by}
    return keras.Model(inputs, made if len(made) > 1 else made["position"], name="plain")


def rows(n: int, seed: int):
    """Scans and the positions that they tell, learnable."""
    x = np.random.default_rng(seed).random((n, 5), dtype=np.float32)
    return x, np.stack([x[:, :2].mean(axis=1), x[:, 2]], axis=1)


@pytest.fixture(scope="module")
def train():
    return rows(70, 0)


@pytest.fixture(scope="module")
def validation():
    return rows(32, 1)


def with_environment(x, y):
    """The same rows with a second target, for networks of two outputs."""
    return x, {"position": y, "environment": (y[:, :1] > 0.5).astype("float32")}


def weights_of(source) -> list[np.ndarray]:
    return source if isinstance(source, list) else source.get_weights()


def assert_same_weights(first, second) -> None:
    for expected, weight in zip(weights_of(first), weights_of(second), strict=True):
        np.testing.assert_array_equal(expected, weight)


# === fit ===


@pytest.fixture(scope="module")
def fitted(train, validation):
    """A small localizer after 30 epochs, and its curves."""
    keras.utils.set_random_seed(0)
    model = small_localizer()
    return model, training.fit(model, train, validation, **SETTINGS | {"epochs": 30})


def latest_trainer():
    """What trained the network of the last `fit` that reuses."""
    return list(training._TRAINERS.values())[-1]


def test_fit_lowers_the_loss_and_returns_one_row_an_epoch(fitted):
    curves = fitted[1]
    assert list(curves.columns) == COLUMNS
    assert curves["epoch"].tolist() == list(range(1, 31))
    assert curves["loss"].iloc[-1] < 0.3 * curves["loss"].iloc[0]
    assert curves["val_loss"].iloc[-1] < curves["val_loss"].iloc[0]


def test_fit_sees_every_row_in_every_epoch(fitted):
    """70 rows are five batches of 16, the last one not full."""
    assert int(fitted[0].optimizer.iterations) == 30 * 5


def test_curves_are_of_the_validation_rows(fitted, validation):
    model, curves = fitted
    error = keras.ops.convert_to_numpy(model(validation[0])) - validation[1]
    assert curves["val_rmse"].iloc[-1] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)
    assert curves["val_loss"].iloc[-1] == pytest.approx(np.mean(error**2), rel=1e-4)


def test_fit_is_what_keras_does(train, validation, monkeypatch):
    """One batch an epoch, so that the order of rows does not matter: Keras' own loop and Adam give the same curves."""
    curves = []
    for backend in ("tensorflow", "another"):
        monkeypatch.setattr(training.keras.backend, "backend", lambda name=backend: name)
        keras.utils.set_random_seed(0)
        model = plain(seen_by=("environment", "position"), dropout=0.0)
        sets = with_environment(*train), with_environment(*validation)
        changes = {"loss": TWO_LOSSES, "batch_size": 70, "epochs": 5}
        curves.append(training.fit(model, *sets, **SETTINGS | changes))
    ours, theirs = curves
    assert set(ours) == set(theirs)
    pd.testing.assert_frame_equal(ours, theirs[ours.columns], rtol=1e-4)


def test_fit_of_two_outputs_has_the_columns_of_both(train, validation):
    model = plain(seen_by=("environment", "position"))
    sets = with_environment(*train), with_environment(*validation)
    curves = training.fit(model, *sets, **SETTINGS | {"loss": TWO_LOSSES})
    losses = {f"{part}{name}_loss" for part in ("", "val_") for name in ("environment", "position")}
    assert set(curves.columns) == {*COLUMNS, *losses}
    total = curves["val_environment_loss"] + curves["val_position_loss"]
    np.testing.assert_allclose(curves["val_loss"], total, rtol=1e-5)


def test_without_validation_rows_there_are_no_curves_of_them(train):
    curves = training.fit(plain(), train, None, **SETTINGS)
    assert list(curves.columns) == ["epoch", "loss", "rmse"] and len(curves) == SETTINGS["epochs"]


def test_fit_leaves_no_graph_behind(fitted, train, validation):
    """A graph may hold numbers of its training, and one process may train hundreds of networks.

    `fitted` was trained before: TensorFlow keeps one graph of its own from the first training.
    """
    gc.freeze()  # what was there before is passed over
    try:
        training.fit(plain(), train, validation, **SETTINGS)
        gc.collect()
        assert not any(issubclass(type(found), tf.Graph) for found in gc.get_objects())
    finally:
        gc.unfreeze()


# === Trainers that are kept ===


def trained_plain(train, validation, seed, **changes):
    """Weights and curves of the plain network with a seed."""
    keras.utils.set_random_seed(seed)
    model = plain()
    curves = training.fit(model, train, validation, **SETTINGS | {"reuse": True} | changes)
    return model.get_weights(), curves


def test_the_same_seed_gives_the_same_digits_and_another_seed_others(train, validation):
    weights, curves = trained_plain(train, validation, seed=0, reuse=False)
    same_weights, same_curves = trained_plain(train, validation, seed=0, reuse=False)
    assert_same_weights(weights, same_weights)
    pd.testing.assert_frame_equal(curves, same_curves, check_exact=True)
    other_weights, other_curves = trained_plain(train, validation, seed=1, reuse=False)
    assert np.any(weights[0] != other_weights[0])
    assert np.any(curves["loss"] != other_curves["loss"])


def test_a_second_training_of_an_architecture_traces_nothing_and_gives_what_a_first_one_does(train, validation):
    trained_plain(train, validation, seed=1)
    trainer = latest_trainer()
    weights, curves = trained_plain(train, validation, seed=2)
    assert latest_trainer() is trainer
    expected_weights, expected_curves = trained_plain(train, validation, seed=2, reuse=False)
    assert_same_weights(weights, expected_weights)
    pd.testing.assert_frame_equal(curves, expected_curves, check_exact=True)


class Idle:
    """Stands for a trainer; it trains nothing."""

    def __init__(self, network, *settings):
        self.network = network

    def start_from(self, model):
        pass

    def train(self, *rows, **settings):
        return [{"loss": 1.0}]


@pytest.mark.parametrize(
    "changes", [{"epochs": 4}, {"batch_size": 8}, {"learning_rate": 0.02}, {"weight_decay": 0.1}, {"decay": False}]
)
def test_other_settings_have_another_trainer(train, validation, monkeypatch, changes):
    monkeypatch.setattr(training, "_Trainer", Idle)
    monkeypatch.setattr(training, "_TRAINERS", {})
    for seed in (0, 1):
        trained_plain(train, validation, seed)
        trained_plain(train, validation, seed, **changes)
    assert len(training._TRAINERS) == 2


def test_a_frozen_base_model_has_another_trainer_and_stays_as_it_is(train, validation):
    keras.utils.set_random_seed(0)
    free, frozen = small_localizer(), small_localizer()
    frozen.get_layer("base_model").trainable = False
    trained = {}
    for model in (free, frozen):
        before = model.get_layer("base_model").trainable_weights or model.get_layer("base_model").weights
        kernel = keras.ops.convert_to_numpy(before[0])
        training.fit(model, train, validation, **SETTINGS, reuse=True)
        trained[model is frozen] = not np.array_equal(kernel, keras.ops.convert_to_numpy(before[0]))
    assert trained == {False: True, True: False}


def test_trainers_hold_no_rows_and_are_few(train, validation, monkeypatch):
    monkeypatch.setattr(training, "KEPT_TRAINERS", 1)
    monkeypatch.setattr(training, "_TRAINERS", {})
    trained_plain(train, validation, seed=0)
    first = latest_trainer()
    shapes = [tuple(tensor.shape) for graph in first.epochs.values() for tensor in graph.captured_inputs]
    assert (len(train[0]), 5) not in shapes and (len(train[0]), 2) not in shapes
    trained_plain(train, validation, seed=0, batch_size=32)
    assert list(training._TRAINERS.values()) != [first]
    assert len(training._TRAINERS) == 1


# === Stopping ===


@pytest.mark.parametrize("backend", ["tensorflow", "another"])
def test_patience_stops_and_goes_back_to_the_best_epoch(train, validation, monkeypatch, backend):
    """A learning rate so high that the loss soon rises: the weights at the end are those of its lowest epoch."""
    monkeypatch.setattr(training.keras.backend, "backend", lambda: backend)
    keras.utils.set_random_seed(1)
    model = plain(dropout=0.0)
    changes = {"learning_rate": 0.5, "epochs": 60, "decay": False}
    curves = training.fit(model, train, validation, **SETTINGS | changes, patience=4)
    assert len(curves) == curves["val_loss"].idxmin() + 1 + 4 < 60
    error = keras.ops.convert_to_numpy(model(validation[0])) - validation[1]
    assert np.mean(error**2) == pytest.approx(curves["val_loss"].min(), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", -1),
        ("batch_size", 0),
        ("batch_size", -16),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
    ],
)
def test_setting_that_is_not_positive_is_named(train, validation, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be positive. Received: {name}={value}"):
        training.fit(plain(), train, validation, **SETTINGS | {name: value})


def test_loss_that_becomes_nan_is_an_error_that_names_the_training(train, validation):
    x, y = train
    spoilt = y.copy()
    spoilt[5, 0] = np.nan
    with pytest.raises(ValueError, match=r"encoder_tl, seed 3: the loss became nan in epoch 1$"):
        training.fit(plain(), (x, spoilt), validation, **SETTINGS, label="encoder_tl, seed 3")


# === transfer ===


def test_transfer_copies_the_base_model_with_its_statistics_and_nothing_else(fitted):
    source, target = fitted[0], small_localizer(n_inputs=9)
    given = source.get_weights()
    before = {name: target.get_layer(name).get_weights() for name in ("encoder", "base_model", "predictive_head")}
    training.transfer(source, target)

    base = source.get_layer("base_model")
    paths = [weight.path for weight in base.weights]
    assert any("moving_mean" in path for path in paths) and any("moving_variance" in path for path in paths)
    assert_same_weights(base, target.get_layer("base_model"))
    for path, old, new in zip(paths, before["base_model"], base.get_weights(), strict=True):
        assert np.any(old != new), f"{path} was the same before"
    for name in ("encoder", "predictive_head"):
        assert_same_weights(before[name], target.get_layer(name))
    assert_same_weights(given, source)


def test_what_happens_to_the_target_leaves_the_source_alone():
    source, target = small_localizer(), small_localizer()
    training.transfer(source, target)
    before = source.get_weights()
    target.set_weights([weight + 1 for weight in target.get_weights()])
    assert_same_weights(before, source)


def test_transfer_between_base_models_of_different_shape_is_refused():
    target = small_localizer(base_width=7)
    before = target.get_weights()
    with pytest.raises(
        ValueError, match=r"both base models must have the same weights. Received: .*\(8, 6\).*\(8, 7\)"
    ):
        training.transfer(small_localizer(), target)
    assert_same_weights(before, target)


# === predict ===


def test_predict_gives_what_keras_predicts_however_many_rows(fitted, monkeypatch):
    x = rows(70, 2)[0]
    expected = fitted[0].predict(x, verbose=0)
    for at_once in (16, 70, 512):
        monkeypatch.setattr(training, "PREDICTED_AT_ONCE", at_once)
        outputs = training.predict(fitted[0], x)
        assert outputs.keys() == {"position"}
        np.testing.assert_allclose(outputs["position"], expected, atol=1e-6)


def test_predict_gives_every_output_by_its_name():
    outputs = training.predict(plain(seen_by=("environment", "position")), rows(16, 2)[0])
    shapes = {name: values.shape for name, values in outputs.items()}
    assert shapes == {"environment": (16, 1), "position": (16, 2)}
