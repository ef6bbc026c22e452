"""The paper's networks: what every builder makes, and what Encoder and UMLP learn from, start from and answer."""

import random

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

from lib.data.fingerprints import in_common
from lib.models import paper, training
from lib.models.paper import UMLP, Encoder

DENSE_BLOCK = ("dense", "norm", "relu", "dropout")


def shape_of(outputs):
    return keras.tree.map_structure(lambda output: tuple(output.shape), outputs)


def assert_equal_outputs(first, second):
    keras.tree.map_structure(np.testing.assert_array_equal, first, second)


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
    model = paper.encoder(11, hidden=(8,), latent=5, dropout=0.1)
    check_model(model, 11, (5,), ["rssi", *blocks("encoder", 2)], tmp_path)


def test_base_model(tmp_path):
    model = paper.base_model(5, hidden=(8, 7), intermediate=6, dropout=0.1)
    check_model(model, 5, (6,), ["latent", *blocks("base", 3)], tmp_path)


def test_predictive_head(tmp_path):
    model = paper.predictive_head(6, hidden=(4,), dropout=0.1)
    check_model(model, 6, (2,), ["intermediate", *blocks("head", 1), "position"], tmp_path)


def test_predictive_head_without_hidden_layer_is_one_linear_layer(tmp_path):
    model = paper.predictive_head(6, hidden=(), dropout=0.1)
    check_model(model, 6, (2,), ["intermediate", "position"], tmp_path)


@pytest.mark.parametrize("config", paper.CONFIGS)
def test_localizer_of_every_configuration(tmp_path, config):
    model = paper.localizer(11, config)
    check_model(model, 11, (2,), ["rssi", "encoder", "base_model", "predictive_head"], tmp_path)
    sizes = paper.CONFIGS[config]
    assert model.get_layer("encoder").output_shape == (None, sizes["encoder"]["latent"])
    assert model.get_layer("base_model").output_shape == (None, sizes["base_model"]["intermediate"])


@pytest.mark.parametrize("config", paper.CONFIGS)
def test_umlp_of_every_configuration(tmp_path, config):
    model = paper.umlp(11, config)
    names = ["rssi", *blocks("trunk", len(paper.CONFIGS[config]["umlp"]["hidden"]))]
    check_model(model, 11, {"environment": (1,), "position": (2,)}, names, tmp_path)


def test_default_is_a_configuration():
    assert paper.DEFAULT in paper.CONFIGS
    assert paper.localizer(9).count_params() == paper.localizer(9, paper.DEFAULT).count_params()
    assert paper.umlp(9).count_params() == paper.umlp(9, paper.DEFAULT).count_params()


# === What the paper says of them ===


def test_environment_is_a_probability_and_position_is_linear():
    outputs = outputs_of(paper.umlp(4), 1e4 * np.random.default_rng(0).normal(size=(50, 4)))
    assert outputs["environment"].min() >= 0 and outputs["environment"].max() <= 1
    assert outputs["position"].min() < 0 and np.abs(outputs["position"]).max() > 1
    for model in (paper.umlp(4), paper.predictive_head(4, (3,), 0.0)):
        assert model.get_layer("position").activation is keras.activations.linear


def test_base_model_does_not_depend_on_the_environments_width():
    narrow, wide = (paper.localizer(width).get_layer("base_model") for width in (3, 300))
    assert [weight.shape for weight in narrow.weights] == [weight.shape for weight in wide.weights]


def test_a_block_normalises_rectifies_and_drops():
    """A dense layer is followed by batch normalisation, ReLU and dropout, in this order (section III-A)."""
    model = paper.encoder(4, hidden=(), latent=6, dropout=0.5)
    kinds = [type(layer).__name__ for layer in model.layers[1:]]
    assert kinds == ["Dense", "BatchNormalization", "ReLU", "Dropout"]
    x = np.random.default_rng(0).normal(size=(2000, 4)).astype("float32")
    trained = keras.ops.convert_to_numpy(model(x, training=True))
    assert (trained == 0).mean() == pytest.approx(0.75, abs=0.05)  # half are negative, half of the others dropped
    assert keras.ops.convert_to_numpy(model(x)).min() == 0


def test_dropout_is_that_of_the_argument_but_for_the_head():
    model = paper.localizer(4, dropout=0.25)
    parts = {name: model.get_layer(name) for name in ("encoder", "base_model", "predictive_head")}
    for name, part in {**parts, "umlp": paper.umlp(4, dropout=0.25)}.items():
        rates = {layer.rate for layer in part.layers if isinstance(layer, keras.layers.Dropout)}
        assert rates == ({0.0} if name == "predictive_head" else {0.25}), name


# === Chance ===


@pytest.mark.parametrize("build", [paper.localizer, paper.umlp])
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
    first, second = (paper.base_model(6, (6, 6), 3, 0.1).get_layer(f"base_dense_{number}") for number in (1, 2))
    assert np.any(first.get_weights()[0] != second.get_weights()[0])


# === Arguments ===


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [
        (lambda: paper.encoder(0, (4,), 4, 0.0), "n_transmitters", 0),
        (lambda: paper.encoder(3, (4,), -1, 0.0), "latent", -1),
        (lambda: paper.encoder(3, (4, 0), 4, 0.0), "encoder_units", 0),
        (lambda: paper.base_model(0, (4,), 4, 0.0), "latent", 0),
        (lambda: paper.base_model(4, (4,), 0, 0.0), "intermediate", 0),
        (lambda: paper.base_model(4, (-2,), 4, 0.0), "base_units", -2),
        (lambda: paper.predictive_head(0, (4,), 0.0), "intermediate", 0),
        (lambda: paper.predictive_head(4, (0,), 0.0), "head_units", 0),
        (lambda: paper.localizer(0), "n_transmitters", 0),
        (lambda: paper.umlp(-5), "n_inputs", -5),
    ],
)
def test_size_that_is_not_positive_is_named(build, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be positive. Received: {name}={value}"):
        build()


@pytest.mark.parametrize("build", [paper.localizer, paper.umlp])
def test_unknown_configuration_is_named_with_the_known_ones(build):
    with pytest.raises(ValueError, match=r"`config` must be one of narrow, .* Received: huge"):
        build(5, config="huge")


@pytest.mark.parametrize("dropout", [-0.1, 1.5])
@pytest.mark.parametrize("build", [paper.localizer, paper.umlp])
def test_dropout_that_is_no_share_is_refused(build, dropout):
    with pytest.raises(ValueError, match=f"{dropout}"):
        build(5, dropout=dropout)


# === As estimators ===

SMALL = {"config": "narrow", "dropout": 0.1, "epochs": 2, "batch_size": 256, "learning_rate": 0.01}


def encoder_of(parts, seed=0, **changes):
    """An Encoder that learnt the rows of a protocol."""
    estimator = Encoder(**SMALL | {"inputs": parts.transmitters} | changes)
    return estimator.fit([parts.train], [parts.validation], seed=seed)


def umlp_of(indoor, outdoor, **changes):
    """A U-MLP that learnt the rows of two protocols."""
    names = {"inputs": [indoor.transmitters, outdoor.transmitters]}
    estimator = UMLP(**SMALL | names | changes)
    return estimator.fit([indoor.train, outdoor.train], [indoor.validation, outdoor.validation], seed=0)


def network_in(estimator, name="localizer"):
    """The network that was trained, without Eq. 5 before it and metres after it."""
    return estimator.network.get_layer(name)


def weights_in(estimator, part):
    return network_in(estimator).get_layer(part).get_weights()


def assert_same_weights(first, second):
    for expected, weight in zip(first, second, strict=True):
        np.testing.assert_array_equal(expected, weight)


def differ(first, second):
    return any(np.any(expected != weight) for expected, weight in zip(first, second, strict=True))


def eq5(rssi, minimum, maximum, lower=0.0, upper=1.0):
    """Eq. 5 as the paper writes it; what is not heard has the lowest level."""
    filled = np.where(np.isnan(rssi), minimum, rssi)
    return lower + (upper - lower) * (filled - minimum) / (maximum - minimum)


@pytest.fixture
def trainings(monkeypatch):
    """What each training was called with; networks keep their first weights."""
    calls = []

    def fit(model, train, validation, **settings):
        calls.append({"model": model, "train": train, "validation": validation, **settings})
        return pd.DataFrame({"epoch": np.arange(1, settings["epochs"] + 1)})

    monkeypatch.setattr(training, "fit", fit)
    return calls


def test_an_encoder_learns_eq5_of_the_rssi_and_positions_scaled_to_the_training_rows(indoor, trainings):
    encoder_of(indoor, bounds=(0.1, 1.0))
    (call,) = trainings
    rssi = indoor.train.scans.of(indoor.transmitters)
    strongest = np.nanmax(rssi)
    west_south, east_north = indoor.train.position.min(axis=0), indoor.train.position.max(axis=0)
    for rows, (x, y) in ((indoor.train, call["train"]), (indoor.validation, call["validation"])):
        levels = rows.scans.of(indoor.transmitters)
        np.testing.assert_allclose(x, eq5(levels, indoor.train.not_heard_dbm, strongest, 0.1), atol=1e-5)
        np.testing.assert_allclose(y, (rows.position - west_south) / (east_north - west_south), atol=1e-5)
    assert call["train"][0].min() == pytest.approx(0.1) and call["train"][0].max() == pytest.approx(1.0)
    assert {name: call[name] for name in ("loss", "epochs", "batch_size", "learning_rate", "decay")} == {
        "loss": "mse",
        "epochs": 2,
        "batch_size": 256,
        "learning_rate": 0.01,
        "decay": True,
    }


def test_an_encoder_answers_in_metres_what_its_network_says_of_eq5(indoor, quick_fit):
    estimator = encoder_of(indoor)
    rssi = indoor.train.scans.of(indoor.transmitters)
    asked = indoor.test.scans.of(indoor.transmitters)
    x = eq5(asked, indoor.train.not_heard_dbm, np.nanmax(rssi)).astype(np.float32)
    scaled = training.predict(network_in(estimator), x)["position"]
    lowest = indoor.train.position.min(axis=0)
    extent = indoor.train.position.max(axis=0) - lowest
    located = estimator.predict(indoor.test.scans)
    np.testing.assert_allclose(located.position, lowest + extent * scaled, rtol=1e-4, atol=0.01)
    assert located.position.shape == (len(indoor.test), 2)
    assert estimator.n_train == [len(indoor.train)]


def test_an_encoder_without_named_transmitters_takes_those_that_a_training_row_hears(indoor, trainings):
    encoder_of(indoor, inputs=None)
    heard = indoor.train.heard.any(axis=0)
    assert not heard.all()
    assert trainings[0]["train"][0].shape == (len(indoor.train), heard.sum())


def test_an_encoder_without_validation_rows_learns_the_same(indoor, trainings):
    encoder_of(indoor)
    names = {"inputs": indoor.transmitters}
    Encoder(**SMALL | names).fit([indoor.train], [indoor.validation[:0]], seed=0)
    with_rows, without = trainings
    assert_equal_outputs(with_rows["train"], without["train"])
    assert without["validation"] is None


def test_a_transferred_encoder_starts_from_the_base_model_of_its_source_and_nothing_else(indoor, outdoor, quick_fit):
    source = encoder_of(outdoor)
    scratch = encoder_of(indoor)
    transferred = encoder_of(indoor, source=source)
    learned = [weight + 0.25 for weight in weights_in(source, "base_model")]
    assert_same_weights(learned, weights_in(transferred, "base_model"))
    assert differ(weights_in(scratch, "base_model"), weights_in(transferred, "base_model"))
    for name in ("encoder", "predictive_head"):
        assert_same_weights(weights_in(scratch, name), weights_in(transferred, name))
    assert len(transferred.predict(indoor.test.scans)) == len(indoor.test)


def test_what_a_transferred_encoder_learns_leaves_its_source_alone(indoor, outdoor, quick_fit):
    source = encoder_of(outdoor)
    before = network_in(source).get_weights()
    encoder_of(indoor, source=source)
    assert_same_weights(before, network_in(source).get_weights())


def test_a_source_that_was_read_from_its_files_is_as_good(indoor, outdoor, quick_fit, tmp_path):
    source = encoder_of(outdoor)
    source.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    expected = encoder_of(indoor, source=source)
    transferred = encoder_of(indoor, source=loaded)
    assert_same_weights(network_in(expected).get_weights(), network_in(transferred).get_weights())
    assert loaded.updates == source.updates


def test_a_frozen_base_model_stays_as_its_source_left_it(indoor, outdoor, quick_fit, monkeypatch):
    source = encoder_of(outdoor)
    monkeypatch.undo()
    given = weights_in(source, "base_model")
    frozen = encoder_of(indoor, source=source, frozen=True)
    free = encoder_of(indoor, source=source)
    assert_same_weights(given, weights_in(frozen, "base_model"))
    assert differ(given, weights_in(free, "base_model"))


@pytest.mark.parametrize("passes", [1, 3])
def test_updates_only_takes_no_weights_and_makes_as_many_batches_more(indoor, outdoor, trainings, passes):
    small = {"batch_size": 64}
    source = encoder_of(outdoor, epochs=6, **small)
    batches_of_source = 6 * int(np.ceil(len(outdoor.train) / 64))
    assert source.updates == batches_of_source
    scratch = encoder_of(indoor, passes=passes, **small)
    longer = encoder_of(indoor, passes=passes, source=source, updates_only=True, **small)
    assert_same_weights(network_in(scratch).get_weights(), network_in(longer).get_weights())
    batches = int(np.ceil(passes * len(indoor.train) / 64))
    more = batches * (trainings[2]["epochs"] - trainings[1]["epochs"])
    assert more == pytest.approx(batches_of_source, abs=batches / 2)
    assert longer.updates == trainings[2]["epochs"] * batches


@pytest.mark.parametrize("spoilt", ["labels", "scans"])
def test_spoilt_rows_keep_their_values_and_lose_what_they_say(indoor, trainings, spoilt):
    encoder_of(indoor)
    encoder_of(indoor, spoilt=spoilt)
    encoder_of(indoor, spoilt=spoilt, seed=1)
    original, changed, other_seed = trainings
    (x, y), (spoilt_x, spoilt_y) = original["train"], changed["train"]
    np.testing.assert_array_equal(np.sort(spoilt_y, axis=0), np.sort(y, axis=0))
    assert (spoilt_y != y).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(np.sort(spoilt_x, axis=0), np.sort(x, axis=0))
    assert np.array_equal(spoilt_x, x) == (spoilt == "labels")
    assert np.any(other_seed["train"][1] != spoilt_y)
    assert_equal_outputs(changed["validation"], original["validation"])


def test_whole_positions_change_their_places_among_spoilt_rows(indoor, trainings):
    encoder_of(indoor)
    encoder_of(indoor, spoilt="labels")
    expected, spoilt = ({tuple(position) for position in call["train"][1].tolist()} for call in trainings)
    assert spoilt == expected


@pytest.mark.parametrize("kind", ["encoder", "umlp"])
def test_passes_repeat_the_rows_within_an_epoch(indoor, outdoor, trainings, kind):
    for passes in (1, 3):
        estimator = encoder_of(indoor, passes=passes) if kind == "encoder" else umlp_of(indoor, outdoor, passes=passes)
    single, repeated = (call["train"][0] for call in trainings)
    np.testing.assert_array_equal(repeated, np.concatenate([single, single, single]))
    assert sum(estimator.n_train) == len(single)


def inputs_of_both(parts, rows):
    """(n, a + b) of one environment's rows by Eq. 5 beside the other's, the first environment's columns first."""
    blocks = []
    for environment in parts:
        levels = rows.scans.of(environment.transmitters)
        strongest = np.nanmax(environment.train.scans.of(environment.transmitters))
        blocks.append(eq5(levels, environment.train.not_heard_dbm, strongest))
    return np.concatenate(blocks, axis=1)


def test_a_umlp_learns_equally_many_rows_of_both_environments_side_by_side(indoor, outdoor, trainings):
    estimator = umlp_of(indoor, outdoor)
    (call,) = trainings
    x, y = call["train"]
    fewest = min(len(indoor.train), len(outdoor.train))
    assert estimator.n_train == [fewest, fewest]
    assert call["loss"] == {"environment": "binary_crossentropy", "position": "mse"}
    for number, parts in enumerate((indoor, outdoor)):
        expected = inputs_of_both((indoor, outdoor), parts.train)
        here = y["environment"][:, 0] == number
        assert here.sum() == fewest
        nearest, _ = cKDTree(expected).query(x[here])
        assert nearest.max() < 1e-4
        assert y["position"][here].min() >= 0 and y["position"][here].max() <= 1
    validation_rows = 2 * min(len(indoor.validation), len(outdoor.validation))
    assert len(call["validation"][0]) == len(call["validation"][1]["environment"]) == validation_rows


@pytest.mark.parametrize("learns", [0, 1])
def test_a_umlp_may_learn_one_environment_alone(indoor, outdoor, trainings, learns):
    umlp_of(indoor, outdoor)
    estimator = umlp_of(indoor, outdoor, learns=learns)
    both, alone = trainings
    here = both["train"][1]["environment"][:, 0] == learns
    np.testing.assert_array_equal(alone["train"][0], both["train"][0][here])
    for name in ("environment", "position"):
        np.testing.assert_array_equal(alone["train"][1][name], both["train"][1][name][here])
    assert_equal_outputs(alone["validation"], both["validation"])
    assert estimator.n_train[learns] == here.sum() and estimator.n_train[1 - learns] == 0
    scans = in_common([indoor.test.scans, outdoor.test.scans])
    located = estimator.predict(scans)
    assert located.environment is None, "it cannot tell environments apart"
    network = estimator.network
    scaled = network.get_layer("umlp")(network.get_layer("scaling")(scans.of(estimator.transmitters)))["position"]
    heard = scans.heard.any(axis=1)  # a scan that hears nothing is read in the first environment's range
    first_rows = np.arange(len(scans)) < len(indoor.test)
    for part, rows in ((indoor, heard & first_rows), (outdoor, heard & ~first_rows)):
        lowest, highest = part.train.position.min(axis=0), part.train.position.max(axis=0)
        expected = lowest + (highest - lowest) * np.array(scaled)[rows]
        np.testing.assert_allclose(located.position[rows], expected, atol=0.01)


def test_a_umlp_answers_in_metres_of_the_environment_that_its_network_finds_likelier(indoor, outdoor, quick_fit):
    estimator = umlp_of(indoor, outdoor)
    located = estimator.predict(in_common([indoor.test.scans, outdoor.test.scans]))
    assert len(located) == len(indoor.test) + len(outdoor.test)
    both = (indoor, outdoor)
    inputs = [inputs_of_both(both, parts.test) for parts in both]
    outputs = training.predict(network_in(estimator, "umlp"), np.concatenate(inputs).astype(np.float32))
    probability = outputs["environment"][:, 0]
    clear = np.abs(probability - 0.5) > 1e-3
    environment = (probability > 0.5).astype(int)
    np.testing.assert_array_equal(located.environment[clear], environment[clear])
    lowest = np.stack([parts.train.position.min(axis=0) for parts in both])[environment]
    highest = np.stack([parts.train.position.max(axis=0) for parts in both])[environment]
    expected = lowest + (highest - lowest) * outputs["position"]
    np.testing.assert_allclose(located.position[clear], expected[clear], rtol=1e-3, atol=0.5)


def test_in_shared_columns_no_column_gives_the_environment_away(indoor, outdoor, trainings):
    umlp_of(indoor, outdoor)
    umlp_of(indoor, outdoor, shared_columns=True)
    apart, shared = (call["train"][0] for call in trainings)
    width = len(indoor.transmitters)
    environment = trainings[0]["train"][1]["environment"][:, 0]
    blocks = {0: apart[:, :width], 1: apart[:, width:]}
    assert shared.shape[1] == max(block.shape[1] for block in blocks.values())
    for number, block in blocks.items():
        here = environment == number
        columns = block.shape[1]
        np.testing.assert_array_equal(shared[here, :columns], block[here])
        assert (shared[here, columns:] == 0).all()
    assert_equal_outputs(trainings[0]["train"][1], trainings[1]["train"][1])


@pytest.mark.parametrize("make", [encoder_of, umlp_of])
def test_the_same_seed_gives_the_same_digits(indoor, outdoor, make):
    arguments = [indoor] if make is encoder_of else [indoor, outdoor]
    first, second = make(*arguments), make(*arguments)
    pd.testing.assert_frame_equal(first.curves, second.curves, check_exact=True)
    scans = indoor.test.scans
    np.testing.assert_array_equal(first.predict(scans).position, second.predict(scans).position)


def test_settings_that_do_not_fit_are_refused(indoor, outdoor):
    with pytest.raises(ValueError, match=r"`spoilt` must be one of labels, scans. Received: everything"):
        Encoder(spoilt="everything")
    for setting in ("frozen", "updates_only"):
        with pytest.raises(ValueError, match=r"`source` must be a fitted Encoder where .* Received: None"):
            encoder_of(indoor, **{setting: True})
    with pytest.raises(ValueError, match=r"`learns` must be None with shared columns. Received: learns=0"):
        UMLP(shared_columns=True, learns=0)
    with pytest.raises(ValueError, match=r"the U-MLP learns two environments. Received: 1"):
        UMLP(**SMALL).fit([indoor.train], [indoor.validation], seed=0)


def test_a_source_of_other_widths_is_refused(indoor, outdoor, untrained, monkeypatch):
    source = encoder_of(outdoor)
    wider = paper.CONFIGS["narrow"]["base_model"] | {"intermediate": 96}
    monkeypatch.setitem(paper.CONFIGS, "narrow", paper.CONFIGS["narrow"] | {"base_model": wider})
    with pytest.raises(ValueError, match="both base models must have the same weights"):
        encoder_of(indoor, source=source)
