"""The unified network: its inputs, what it learns, its settings, and its files."""

import dataclasses

import keras
import numpy as np
import pytest

from lib.data.fingerprints import in_common, joined
from lib.models import training, unified
from lib.models.unified import Unified

SMALL = {"network": {"hidden": (64, 64)}, "batch_size": 64, "learning_rate": 5e-3}


def fit(sets, seed=0, **settings):
    """A small network that learnt all rows of the sets, none of which validates."""
    return Unified(**SMALL | settings).fit(sets, [fingerprints[:0] for fingerprints in sets], seed=seed)


def scans_of(sets):
    return in_common([fingerprints.scans for fingerprints in sets])


def assert_same(first, second):
    assert first.arrays().keys() == second.arrays().keys()
    for name, values in first.arrays().items():
        assert np.array_equal(values, second.arrays()[name]), name


def renamed(fingerprints, name, transmitters):
    return dataclasses.replace(fingerprints, name=name, transmitters=tuple(transmitters))


@pytest.fixture(scope="module")
def both(campus, city):
    return [campus, city]


@pytest.fixture(scope="module")
def briefly(both):
    """A network of both environments after two epochs, without votes."""
    return fit(both, epochs=2)


# === What it learns from ===


def test_scans_lie_side_by_side_or_in_shared_columns(campus, city):
    scans = [campus.scans, city.scans]
    own, shared = (
        unified.input_rows(scans, unified.input_columns(scans, shared_columns)) for shared_columns in (False, True)
    )
    width = len(campus.transmitters)
    assert np.array_equal(own[: len(campus), :width], campus.rssi, equal_nan=True)
    assert np.array_equal(own[len(campus) :, width:], city.rssi, equal_nan=True)
    assert np.isnan(own[: len(campus), width:]).all() and np.isnan(own[len(campus) :, :width]).all()
    assert shared.shape[1] == max(width, len(city.transmitters))
    assert np.array_equal(shared[len(campus) :, : len(city.transmitters)], city.rssi, equal_nan=True)


def test_small_environments_are_passed_over_more_often():
    assert unified.passes([1000, 480, 90, 1]) == [1, 2, unified.MOST_PASSES, unified.MOST_PASSES]
    assert unified.rows_of_epoch([4, 2]).tolist() == [0, 1, 2, 3, 4, 4, 5, 5]


def test_few_rows_are_learnt_in_small_batches_at_a_lower_rate():
    many, few = unified.batches(100_000), unified.batches(500)
    assert many == {"batch_size": unified.LARGEST_BATCH, "learning_rate": unified.LEARNING_RATE}
    assert 500 / 2 / unified.LEAST_BATCHES < few["batch_size"] < 2 * 500 / unified.LEAST_BATCHES
    ratio = few["batch_size"] / many["batch_size"]
    assert few["learning_rate"] == pytest.approx(many["learning_rate"] * ratio**0.5)
    assert unified.batches(500, 300)["batch_size"] == 300 and unified.batches(1)["batch_size"] == 1


def test_it_learns_from_validation_rows_as_from_others(campus, quick_fit):
    halves = [campus[:300]], [campus[300:]]
    parted = Unified(**SMALL, epochs=1).fit(*halves, seed=0)
    together = fit([joined(campus[:300], campus[300:])], epochs=1)
    assert parted.n_train == together.n_train == [len(campus)]
    assert_same(parted.predict(campus.scans), together.predict(campus.scans))


def test_it_may_learn_only_from_scans_that_hear_a_transmitter(campus, quick_fit):
    silent = dataclasses.replace(campus, rssi=campus.rssi.copy())
    silent.rssi[::3] = np.nan
    heard = silent.heard.any(axis=1)
    some = fit([silent], heard_only=True, epochs=1)
    assert some.n_train == [heard.sum()] and fit([silent], epochs=1).n_train == [len(campus)]
    assert_same(some.predict(campus.scans), fit([silent[heard]], epochs=1).predict(campus.scans))


def test_each_environment_has_its_own_augmentation(campus, city, quick_fit):
    still = dict.fromkeys(unified.AUGMENTATION, 0.0)
    fitted = fit([campus, city], environments=[{"augmentation": still}, {}], epochs=1)
    layer = fitted.network.get_layer("augmentation").get_config()
    of_city = np.arange(len(layer["loss"])) >= len(campus.transmitters)
    for name, value in unified.AUGMENTATION.items():
        assert np.array_equal(np.float32(layer[name]), np.float32(value) * of_city)


def test_a_transmitter_of_two_environments_is_one_input_with_the_lower_minimum(campus, quick_fit):
    names = campus.transmitters
    indoors = dataclasses.replace(campus, not_heard=-105.0)
    outdoors = renamed(campus, "outdoors", [*names[:5], *(f"gateway {name}" for name in names[5:])])
    outdoors = dataclasses.replace(outdoors, not_heard=-128.0)
    fitted = fit([indoors, outdoors], epochs=1)
    assert fitted.transmitters == (*names, *outdoors.transmitters[5:])
    weakest = fitted.network.get_layer("augmentation").get_config()["weakest"]
    expected = np.where(np.arange(len(weakest)) < 5, -128, -105)
    expected[len(names) :] = -128
    assert np.array_equal(weakest, expected)
    layers = [layer.name for layer in fitted.network.layers]
    assert "audible" not in layers, "whoever hears a common transmitter may be in either"


def test_a_scan_is_only_located_where_it_hears_something(briefly, both):
    located = briefly.predict(scans_of(both))
    environment = np.repeat([0, 1], list(map(len, both)))
    heard = scans_of(both).heard.any(axis=1)
    assert np.array_equal(located.environment[heard], environment[heard])


# === What it tells ===


@pytest.mark.parametrize("head", unified.HEADS)
def test_one_network_learns_both_environments(both, head):
    epochs = 20 if head == "squared" else 12  # squared errors take longest to learn from
    located = fit(both, head=head, epochs=epochs).predict(scans_of(both))
    environment = np.repeat([0, 1], list(map(len, both)))
    assert (located.environment == environment).mean() > 0.95
    for number, fingerprints in enumerate(both):
        position = located.position[environment == number]
        error = np.linalg.norm(position - fingerprints.position, axis=1).mean()
        middle = np.median(fingerprints.position, axis=0)
        centre = np.linalg.norm(fingerprints.position - middle, axis=1).mean()
        assert error < 0.7 * centre, f"{fingerprints.name}: {error:.1f} m, and {centre:.1f} m by telling the middle"


def test_labels_are_those_of_the_training_rows_and_none_where_there_are_none(campus, city, both, quick_fit):
    located = fit(both, epochs=1).predict(scans_of(both))
    assert set(located.building[located.environment == 0]) <= set(campus.building)
    assert set(located.floor[located.environment == 1]) <= {-1}
    alone = fit([city], epochs=1).predict(city.scans)
    assert alone.environment is None and alone.building is None and alone.floor is None
    assert (alone.spread > 0).all()
    below_ground = dataclasses.replace(campus, floor=np.full(len(campus), -1), building=None)
    basement = fit([below_ground], epochs=1).predict(campus.scans)
    assert basement.building is None and set(basement.floor) == {-1}


def test_a_head_that_regresses_tells_neither_spread_nor_labels(both, quick_fit):
    fitted = fit(both, head="distance", epochs=1)
    assert fitted.predict(scans_of(both)).arrays().keys() == {"position", "environment"}
    assert fitted.places is None


def test_the_same_seed_tells_the_same_and_another_seed_or_grid_does_not(campus, quick_fit):
    some = campus[:200]
    first = fit([some], epochs=1).predict(some.scans)
    assert_same(fit([some], epochs=1).predict(some.scans), first)
    another_seed = fit([some], seed=1, epochs=1).predict(some.scans)
    another_grid = fit([some], environments=[{"grid": {"cell": 90.0}}], epochs=1)
    assert not np.array_equal(another_seed.position, first.position)
    assert not np.array_equal(another_grid.predict(some.scans).position, first.position)
    assert set(another_grid.places.sigma) == {60.0}


def test_columns_are_matched_by_name(briefly, both):
    scans = scans_of(both)[::7]
    order = np.random.default_rng(0).permutation(len(scans.transmitters))
    names = tuple(scans.transmitters[column] for column in order)
    shuffled = dataclasses.replace(scans, rssi=scans.rssi[:, order], transmitters=names)
    assert_same(briefly.predict(shuffled), briefly.predict(scans))


# === Files ===


def test_a_saved_network_takes_dbm_and_gives_positions(briefly, both, tmp_path):
    briefly.save(tmp_path)
    scans = scans_of(both)
    located = briefly.predict(scans)
    assert_same(Unified.load(tmp_path).predict(scans), located)
    outputs = training.predict(keras.saving.load_model(tmp_path / "network.keras"), scans.rssi)
    for name in ("position", "building", "floor", "spread"):
        assert np.array_equal(outputs[name], located.arrays()[name]), name


def test_a_loaded_network_has_the_settings_of_the_saved_one(campus, tmp_path, quick_fit):
    environments = [{"grid": {"cell": 30.0}, "neighbours": {"offsets": [-6.0, 0.0]}}]
    fitted = fit([campus], environments=environments, decoder={"iterations": 3}, epochs=1)
    fitted.save(tmp_path)
    loaded = Unified.load(tmp_path)
    assert loaded.environment_settings == environments and loaded.training == fitted.training
    assert (loaded.transmitters, loaded.environments) == (campus.transmitters, (campus.name,))
    assert loaded.places.config() == fitted.places.config()
    again = loaded.fit([campus], [campus[:0]], seed=0)
    assert_same(again.predict(campus.scans), fitted.predict(campus.scans))


# === Shared columns ===


def test_a_network_of_shared_columns_takes_all_names_and_learns_the_same_columns(campus, city, both, tmp_path):
    fitted = fit(both, shared_columns=True, epochs=1)
    assert fitted.transmitters == (*campus.transmitters, *city.transmitters)
    trained = fitted.network.get_layer("unified")
    assert trained.input_shape == (None, max(len(campus.transmitters), len(city.transmitters)))
    rows = np.full((len(city), trained.input_shape[1]), np.nan, dtype=np.float32)
    rows[:, : len(city.transmitters)] = city.rssi
    logits = training.predict(trained, rows)["position"]
    decoded = fitted.network.get_layer("decoder")(logits)
    assert np.array_equal(fitted.predict(city.scans).position, decoded["position"])
    fitted.save(tmp_path)
    assert_same(Unified.load(tmp_path).predict(scans_of(both)), fitted.predict(scans_of(both)))


def test_environments_with_a_transmitter_in_common_cannot_share_columns(campus):
    twice = [campus, renamed(campus, "again", campus.transmitters)]
    with pytest.raises(
        ValueError, match=rf"different transmitters\. Received: {len(campus.transmitters)} that several"
    ):
        fit(twice, shared_columns=True)


# === Votes ===


def test_stored_fingerprints_vote_in_their_environment_and_the_network_keeps_them(briefly, campus, both, tmp_path):
    voted = fit(both, environments=[{"neighbours": {}}, {"neighbours": None}], epochs=2)
    scans = scans_of(both)
    alone, together = briefly.predict(scans), voted.predict(scans)
    indoors = np.arange(len(scans)) < len(campus)
    errors = [np.linalg.norm(located.position[indoors] - campus.position, axis=1) for located in (alone, together)]
    assert errors[1].mean() < 0.7 * errors[0].mean(), "a scan that is stored is its own neighbour"
    assert together.position[~indoors] == pytest.approx(alone.position[~indoors], abs=0.05)
    voted.save(tmp_path)
    assert_same(Unified.load(tmp_path).predict(scans), together)


def test_an_offset_makes_up_for_a_phone_that_hears_all_louder(campus, quick_fit):
    some = campus[::4]
    louder = dataclasses.replace(some.scans, rssi=some.rssi + 6)
    plain, corrected = (
        fit([some], environments=[{"neighbours": {"share": 1.0, "offsets": offsets}}], epochs=1)
        for offsets in ([0.0], [-6.0])
    )
    alike = plain.predict(some.scans)
    assert np.array_equal(alike.position, corrected.predict(louder).position)
    assert not np.array_equal(alike.position, plain.predict(louder).position)


# === Settings that are refused ===


def test_settings_of_too_few_environments_are_refused(both):
    with pytest.raises(ValueError, match=r"`environments` must have .* each of the 2 environments\. Received: 1 map"):
        fit(both, environments=[{"neighbours": {}}])


def test_neighbours_without_places_are_refused():
    with pytest.raises(ValueError, match=r"`neighbours` vote for places.*head distance.* Received: {}"):
        Unified(head="distance", environments=[{"neighbours": {}}])


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match=r"one of places, distance, squared\. Received: mean"):
        Unified(head="mean")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grids": {}}, "`environments` must be one of grid, augmentation, neighbours. Received: grids"),
        ({"augmentation": {"gain": 1}}, "`augmentation` must be one of offset, .* Received: gain"),
    ],
)
def test_an_unknown_setting_of_an_environment_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Unified(environments=[settings])


def test_the_sets_must_be_of_the_same_environments(campus, city):
    with pytest.raises(ValueError, match="in the same order"):
        Unified().fit([campus], [city[:0]], seed=0)
