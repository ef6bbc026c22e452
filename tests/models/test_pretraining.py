"""What the base model learns from many environments, and what an Encoder takes of it."""

import keras
import numpy as np
import pytest

from lib.data.fingerprints import in_common
from lib.models import training
from lib.models.paper import Encoder
from lib.models.pretraining import EncoderOfMany, MostHeard, localizer_of_many

TINY = {"epochs": 1, "batch_size": 64}


@pytest.fixture(scope="module")
def sets(campus, city):
    return [campus[:200], city[:150]]


@pytest.fixture(scope="module")
def source(sets):
    return EncoderOfMany(**TINY, rows=128).fit(sets, [rows[:0] for rows in sets], seed=0)


def test_each_environment_has_its_encoder_and_head_and_all_share_the_base_model():
    network = localizer_of_many([7, 4, 5])
    names = {layer.name for layer in network.layers}
    assert {f"encoder_{number}" for number in range(3)} < names
    assert {f"predictive_head_{number}" for number in range(3)} < names
    assert [network.get_layer(f"encoder_{number}").input_shape[1] for number in range(3)] == [7, 4, 5]
    assert network.output_shape == (None, 6)


def test_one_environments_scan_decides_its_position_and_no_others():
    network = localizer_of_many([3, 2])
    scans = np.random.default_rng(0).random((4, 5), dtype=np.float32)
    changed = scans.copy()
    changed[:, 3:] += 1
    before, after = network(scans, training=False), network(changed, training=False)
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert (keras.ops.convert_to_numpy(before[:, 2:]) != keras.ops.convert_to_numpy(after[:, 2:])).all()


def test_each_position_is_that_of_the_environments_own_localizer():
    """Encoder, base model and head one after another, as in the paper's Fig. 1(a)."""
    network = localizer_of_many([3, 2])
    scans = np.random.default_rng(0).random((4, 5), dtype=np.float32)
    latent = network.get_layer("encoder_1")(scans[:, 3:], training=False)
    intermediate = network.get_layer("base_model")(latent, training=False)
    expected = network.get_layer("predictive_head_1")(intermediate, training=False)
    np.testing.assert_allclose(network(scans, training=False)[:, 2:], expected, rtol=1e-5, atol=1e-6)


def test_a_scan_is_of_the_environment_of_which_it_hears_most():
    layer = MostHeard([[0, 1], [2, 3, 4], [4, 5]])
    heard = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]], dtype=bool)
    chosen = keras.ops.convert_to_numpy(layer(np.where(heard, np.float32(-60), np.nan)))
    assert chosen.argmax(axis=1).tolist() == [0, 1, 2, 0]
    assert MostHeard.from_config(layer.get_config()).columns == layer.columns


def test_scans_are_located_in_their_own_environment(source, sets):
    scans = in_common([rows[:40].scans for rows in sets])
    heard = scans.heard.any(axis=1)
    located = source.predict(scans)[heard]
    assert located.environment.tolist() == np.repeat([0, 1], 40)[heard].tolist()
    assert source.n_train == [200, 150] and source.environments == ("ujiindoorloc", "lorawan_antwerp")


def test_an_encoder_starts_from_its_base_model_and_from_nothing_else_of_it(source, sets, monkeypatch):
    starts = []

    def fit(network, *rows, **settings):
        starts.append([weight.copy() for weight in network.get_layer("base_model").get_weights()])
        return Encoder.curves

    monkeypatch.setattr(training, "fit", fit)
    Encoder(**TINY, source=source).fit([sets[1]], [sets[1][:0]], seed=0)
    base = source.network.get_layer("localizer").get_layer("base_model")
    for start, weight in zip(starts[0], base.get_weights(), strict=True):
        np.testing.assert_array_equal(start, weight)


def test_an_epoch_has_equally_many_rows_of_each_environment_and_none_twice_before_all_are_in(sets, monkeypatch):
    learnt = []

    def fit(network, rows, validation, **settings):
        learnt.append(rows)
        return Encoder.curves

    monkeypatch.setattr(training, "fit", fit)
    EncoderOfMany(**TINY, rows=180).fit(sets, [rows[:0] for rows in sets], seed=0)
    ((x, y),) = learnt
    assert len(x) == len(y) == 180
    for number, rows in enumerate(sets):
        _, counts = np.unique(y[:, 2 * number : 2 * number + 2], axis=0, return_counts=True)
        _, own_counts = np.unique(rows.position, axis=0, return_counts=True)
        assert counts.sum() == 180
        assert counts.max() <= own_counts.max() * -(-180 // len(rows))


@pytest.mark.parametrize("spoilt", ["labels", "scans"])
def test_controls_learn_the_same_levels_at_positions_in_another_order(sets, monkeypatch, spoilt):
    learnt = {}

    def fit(network, rows, validation, **settings):
        learnt[len(learnt)] = rows
        return Encoder.curves

    monkeypatch.setattr(training, "fit", fit)
    for kind in (None, spoilt):
        EncoderOfMany(**TINY, rows=len(sets[0]), spoilt=kind).fit(sets[:1], [sets[0][:0]], seed=0)
    (x, y), (spoilt_x, spoilt_y) = learnt[0], learnt[1]
    assert not np.array_equal(y, spoilt_y)
    np.testing.assert_array_equal(np.sort(y, axis=0), np.sort(spoilt_y, axis=0))
    np.testing.assert_array_equal(np.sort(x, axis=0), np.sort(spoilt_x, axis=0))
    assert np.array_equal(x, spoilt_x) == (spoilt == "labels")


def test_it_starts_from_scratch(source):
    for settings in ({"source": source}, {"frozen": True}, {"updates_only": True}):
        with pytest.raises(ValueError, match="an encoder of many environments starts from scratch"):
            EncoderOfMany(**settings)
    with pytest.raises(ValueError, match="`config` must be one of narrow"):
        localizer_of_many([3], config="huge")
