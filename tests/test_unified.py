"""The unified network: its input, its augmentation, what it learns, and that nothing depends on what it must not."""

import dataclasses

import keras
import numpy as np
import pytest

from lib import models, training, unified
from lib.preprocess import powed

SMALL = {"network": {"hidden": (64, 64)}, "batch_size": 64, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def alone(campus, city, tmp_path_factory):
    """A network of both environments, briefly trained, no neighbours beside it."""
    sets = [campus, city]
    return unified.train(sets, sets, tmp_path_factory.mktemp("alone") / "run", 0, epochs=2, **SMALL)


def test_scans_lie_side_by_side_or_in_shared_columns(campus, city):
    own, shared = (unified.side_by_side([campus, city], shared_columns=shared) for shared in (False, True))
    width = len(campus.transmitters)
    assert np.array_equal(own[: len(campus), :width], campus.rssi, equal_nan=True)
    assert np.array_equal(own[len(campus) :, width:], city.rssi, equal_nan=True)
    assert np.isnan(own[: len(campus), width:]).all() and np.isnan(own[len(campus) :, :width]).all()
    assert shared.shape[1] == max(width, len(city.transmitters))
    assert np.array_equal(shared[len(campus) :, : len(city.transmitters)], city.rssi, equal_nan=True)


def test_small_environments_are_passed_over_more_often():
    assert unified.passes([1000, 480, 90, 1]) == [1, 2, unified.MOST_PASSES, unified.MOST_PASSES]


def test_few_rows_are_learnt_in_small_batches_at_a_lower_rate():
    many, few = unified.batches(100_000), unified.batches(500)
    assert many == {"batch_size": unified.LARGEST_BATCH, "learning_rate": unified.LEARNING_RATE}
    assert 500 / 2 / unified.LEAST_BATCHES < few["batch_size"] < 2 * 500 / unified.LEAST_BATCHES
    ratio = few["batch_size"] / many["batch_size"]
    assert few["learning_rate"] == pytest.approx(many["learning_rate"] * ratio**0.5)
    assert unified.batches(500, 300)["batch_size"] == 300 and unified.batches(1)["batch_size"] == 1


def test_levels_are_powed_rssi_of_the_columns_in_use():
    rng = np.random.default_rng(0)
    rssi = np.where(rng.random((20, 6)) < 0.5, np.nan, rng.uniform(-110, -30, (20, 6))).astype(np.float32)
    levels = keras.ops.convert_to_numpy(models.Levels([1, 4], [-105, -105], 1.5, heard=True)(rssi))
    assert levels[:, :2] == pytest.approx(powed(rssi[:, [1, 4]], -105.0, exponent=1.5), abs=1e-6)
    assert np.array_equal(levels[:, 2:] > 0, ~np.isnan(rssi[:, [1, 4]]))


def test_augmentation_is_for_training_and_never_invents_a_transmitter():
    rssi = np.where(np.random.default_rng(0).random((400, 30)) < 0.5, np.nan, -70).astype(np.float32)
    layer = models.Augmentation(offset=[3.0], noise=[2.0], loss=[0.4], deafness=[0.0], weakest=[-105.0])
    assert np.array_equal(layer(rssi), rssi, equal_nan=True)
    changed = keras.ops.convert_to_numpy(layer(rssi, training=True))
    assert np.isnan(changed[np.isnan(rssi)]).all()
    assert np.isnan(changed).mean() - np.isnan(rssi).mean() == pytest.approx(0.5 * 0.2, abs=0.02)
    one_heard = np.full((50, 4), np.nan, dtype=np.float32)
    one_heard[:, 2] = -60
    all_lost = models.Augmentation([3.0], [2.0], loss=[1.0], deafness=[90.0], weakest=[-105.0])
    assert not np.isnan(all_lost(one_heard, training=True)[:, 2]).any(), "a scan fell silent"
    scans = np.nanmean(changed, axis=1)
    assert np.nanstd(scans) == pytest.approx(3.0, rel=0.2), "a scan's levels share an offset"
    assert np.nanstd(changed - scans[:, None]) == pytest.approx(2.0, rel=0.2)


def test_a_deaf_device_loses_the_weakest_levels_and_no_others():
    rssi = np.random.default_rng(0).uniform(-105, -60, (500, 30)).astype(np.float32)
    layer = models.Augmentation([0.0], [0.0], loss=[0.0], deafness=[20.0], weakest=[-105.0])
    heard = keras.ops.convert_to_numpy(layer(rssi, training=True))
    lost = np.isnan(heard)
    assert np.array_equal(heard[~lost], rssi[~lost]) and not lost[rssi > -85].any()
    strongest_lost, weakest_heard = np.where(lost, rssi, -200).max(axis=1), np.where(lost, 0, rssi).min(axis=1)
    assert (strongest_lost < weakest_heard).all(), "each scan has one threshold"
    assert lost.mean() == pytest.approx(10 / 45, abs=0.02)


def test_only_environments_of_which_a_scan_hears_something_remain():
    layer = models.Audible(of_transmitter=[0, 0, 1], of_output=[1, 0, 1, 0])
    nan = np.nan
    rssi = np.float32([[-60, nan, nan], [nan, nan, -60], [nan, -60, -60], [nan, nan, nan]])
    logits = np.float32(np.arange(16).reshape(4, 4))
    left = keras.ops.convert_to_numpy(layer([rssi, logits]))
    expected = logits.copy()
    expected[0, [0, 2]] = expected[1, [1, 3]] = models.IMPOSSIBLE
    assert np.array_equal(left, expected), "a scan that hears both or nothing may be of both"


def test_each_environment_has_its_own_augmentation(campus, city, tmp_path, quick_fit):
    still = dict.fromkeys(unified.AUGMENTATION, 0.0)
    found = unified.train([campus, city], [campus, city], tmp_path, 0, augmentations=[still, {}], epochs=1, **SMALL)
    layer = found.model.get_layer("augmentation").get_config()
    of_city = np.arange(len(layer["loss"])) >= len(campus.transmitters)
    for name, value in unified.AUGMENTATION.items():
        assert np.array_equal(np.float32(layer[name]), np.float32(value) * of_city)


@pytest.mark.parametrize("head", unified.HEADS)
def test_one_network_learns_both_environments(campus, city, tmp_path, head):
    sets, epochs = [campus, city], 20 if head == "squared" else 12  # squared errors take longest to learn from
    found = unified.train(sets, sets, tmp_path / "run", 0, head=head, epochs=epochs, **SMALL)
    environment = np.repeat([0, 1], list(map(len, sets)))
    assert (found.predicted["environment"].argmax(axis=1) == environment).mean() > 0.95
    for number, one in enumerate(sets):
        error = np.linalg.norm(found.predicted["position"][environment == number] - one.position, axis=1).mean()
        centre = np.linalg.norm(one.position - np.median(one.position, axis=0), axis=1).mean()
        assert error < 0.7 * centre, f"{one.name}: {error:.1f} m, and {centre:.1f} m by always telling the middle"


def test_a_finished_run_is_recalled_and_another_seed_or_grid_is_not(campus, tmp_path, quick_fit):
    some = campus[:200]

    def run(seed=0, **how):
        return unified.train([some], [some], tmp_path / "run", seed, epochs=1, **SMALL | how)

    first = run()
    assert run().seconds == first.seconds
    other = run(seed=1)
    assert other.seconds != first.seconds
    assert not np.array_equal(other.predicted["position"], first.predicted["position"])
    assert run(seed=1, grids=[{"sigma": 9.0}]).seconds != other.seconds


def test_predicted_scans_have_no_say_in_training(alone, campus, city, tmp_path):
    """Few, with every transmitter louder than any row that is learnt from: the weights are the same."""
    sets = [campus, city]
    loud = [dataclasses.replace(one[:3], rssi=np.full_like(one.rssi[:3], -20)) for one in sets]
    again = unified.train(sets, loud, tmp_path / "run", 0, epochs=2, **SMALL)
    for one, other in zip(alone.model.get_weights(), again.model.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_a_saved_network_takes_dbm_and_gives_positions(alone, campus, city, tmp_path):
    alone.model.save(tmp_path / "localizer.keras")
    loaded = keras.saving.load_model(tmp_path / "localizer.keras")
    again = training.predict(loaded, unified.side_by_side([campus, city]))
    for name, values in alone.predicted.items():
        assert np.array_equal(values, again[name]), name


def test_stored_fingerprints_vote_in_their_environment_and_the_network_keeps_them(alone, campus, city, tmp_path):
    sets = [campus, city]
    voted = unified.train(sets, sets, tmp_path / "voted", 0, epochs=2, neighbours=[{}, None], **SMALL)
    indoors = np.arange(len(campus) + len(city)) < len(campus)
    errors = [
        np.linalg.norm(run.predicted["position"][indoors] - campus.position, axis=1).mean() for run in (alone, voted)
    ]
    assert errors[1] < 0.7 * errors[0], "a scan that is stored is its own neighbour"
    assert voted.predicted["position"][~indoors] == pytest.approx(alone.predicted["position"][~indoors], abs=0.05)
    again = unified.train(sets, sets, tmp_path / "voted", 0, epochs=2, neighbours=[{}, None], **SMALL)
    assert again.seconds == voted.seconds, "it was not recalled"
    again.model.save(tmp_path / "localizer.keras")
    loaded = training.predict(keras.saving.load_model(tmp_path / "localizer.keras"), unified.side_by_side(sets))
    for name, values in voted.predicted.items():
        assert np.array_equal(values, loaded[name]), name


def test_an_offset_makes_up_for_a_phone_that_hears_all_louder(campus, tmp_path, quick_fit):
    some = campus[::4]
    louder = dataclasses.replace(some, rssi=some.rssi + 6)
    alike, corrected, not_corrected = (
        unified.train([some], [asked], tmp_path / name, 0, epochs=1, neighbours=[how | {"share": 1.0}], **SMALL)
        for name, asked, how in (
            ("alike", some, {}),
            ("corrected", louder, {"offsets": (-6.0,)}),
            ("not corrected", louder, {}),
        )
    )
    assert np.array_equal(alike.predicted["position"], corrected.predicted["position"])
    assert not np.array_equal(alike.predicted["position"], not_corrected.predicted["position"])


def test_neighbours_of_too_few_environments_or_without_places_are_refused(campus, city, tmp_path):
    with pytest.raises(ValueError, match="zip"):
        unified.train([campus, city], [campus, city], tmp_path, 0, neighbours=[{}])
    with pytest.raises(ValueError, match=r"`neighbours` vote for places.*head distance.* Received: \[{}\]"):
        unified.train([campus], [campus], tmp_path, 0, head="distance", neighbours=[{}])


def test_an_unknown_head_is_refused(campus, tmp_path):
    with pytest.raises(ValueError, match=r"one of places, distance, squared\. Received: mean"):
        unified.train([campus], [campus], tmp_path, 0, head="mean")
