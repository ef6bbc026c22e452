"""The unified network: its inputs, what it learns, its settings, and its files."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest

from lib.data.fingerprints import in_common, joined
from lib.data.folds import HOLD_OUT, Folds
from lib.models import training, unified
from lib.models.choosing import Choice
from lib.models.layers import Fold, member_network
from lib.models.places import PlaceDecoder, Places
from lib.models.unified import Unified

SMALL = {"folds": 2, "network": {"hidden": (16, 16)}, "batch_size": 64, "learning_rate": 5e-3, "epochs": 1}
NEAREST = {"share": 1.0, "width": 1e-3, "softness": 0.0}  # votes alone, of the most similar fingerprint alone


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
def office(campus):
    """200 rows of the campus that hear something, at 80 positions, no two with the same scan."""
    heard = campus[campus.heard.any(axis=1)]
    _, different = np.unique(np.nan_to_num(heard.rssi, nan=1.0), axis=0, return_index=True)
    return heard[np.sort(different)][::3][:200]


@pytest.fixture(scope="module")
def both(office, city):
    return [office, city[:200]]


@pytest.fixture(scope="module")
def briefly(both):
    """A network of both environments after an epoch, whose say was chosen."""
    return fit(both)


@pytest.fixture
def learnt(monkeypatch):
    """The networks that were to be trained and the rows they were to learn, of which they learn nothing."""
    calls = []

    def fit(network, train, validation, **settings):
        calls.append((network, train[0], settings))
        return pd.DataFrame({"epoch": [1], "loss": [1.0]})

    monkeypatch.setattr(training, "fit", fit)
    return calls


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
    assert unified.passes([1000, 480, 300, 1]) == [1, 3, unified.MOST_PASSES, unified.MOST_PASSES]
    assert unified.rows_of_epoch([4, 2]).tolist() == [0, 1, 2, 3, 4, 4, 5, 5]


def test_few_rows_are_learnt_in_small_batches_at_a_lower_rate_and_more_often():
    many, few = unified.schedule(100_000, 1, {}), unified.schedule(500, 1, {})
    expected = {"batch_size": unified.LARGEST_BATCH, "learning_rate": unified.LEARNING_RATE, "epochs": unified.EPOCHS}
    assert many == expected | unified.TRAINING
    assert 500 / 2 / unified.LEAST_BATCHES < few["batch_size"] < 2 * 500 / unified.LEAST_BATCHES
    ratio = few["batch_size"] / many["batch_size"]
    assert few["learning_rate"] == pytest.approx(many["learning_rate"] * ratio**0.5)
    assert few["epochs"] * np.ceil(500 / few["batch_size"]) >= unified.LEAST_STEPS
    assert unified.schedule(1, 1, {})["batch_size"] == 1


def test_a_schedule_that_somebody_sets_is_theirs():
    own = unified.schedule(500, 1, {"batch_size": 300, "epochs": 3, "weight_decay": None})
    assert (own["batch_size"], own["epochs"], own["weight_decay"]) == (300, 3, None)


def test_it_learns_from_validation_rows_as_from_others(office, quick_fit):
    halves = [office[:100]], [office[100:]]
    parted = Unified(**SMALL | {"environments": [{"neighbours": None}]}).fit(*halves, seed=0)
    together = fit([joined(office[:100], office[100:])], environments=[{"neighbours": None}])
    assert parted.n_train == together.n_train == [len(office)]
    assert_same(parted.predict(office.scans), together.predict(office.scans))


def test_it_may_learn_only_from_scans_that_hear_a_transmitter(office, quick_fit):
    silent = dataclasses.replace(office, rssi=office.rssi.copy())
    silent.rssi[::3] = np.nan
    heard = silent.heard.any(axis=1)
    some = fit([silent], folds=1, heard_only=True)
    assert some.n_train == [heard.sum()] and fit([silent], folds=1).n_train == [len(office)]
    assert_same(some.predict(office.scans), fit([silent[heard]], folds=1).predict(office.scans))


def test_each_environment_has_its_own_augmentation(campus, city, learnt):
    still = dict.fromkeys(unified.AUGMENTATION, 0.0)
    fit([campus, city], folds=1, environments=[{"augmentation": still}, {"hold_out": "devices"}])
    ((network, _, _),) = learnt
    of_campus, of_city = network.augmentations
    for name, value in unified.AUGMENTATION.items():
        assert not getattr(of_campus, name).any()
        assert np.array_equal(getattr(of_city, name), np.full(len(city.transmitters), np.float32(value)))


def test_scans_change_the_more_the_more_other_devices_are_to_come():
    changes = {hold_out: unified.augmentation_of({"hold_out": hold_out}) for hold_out in HOLD_OUT}
    assert changes["devices"] == unified.AUGMENTATION
    assert unified.augmentation_of({}) == changes["positions"]
    for name in ("offset", "noise", "deafness"):
        of_each = [changes[hold_out][name] for hold_out in ("rows", "positions", "devices")]
        assert of_each[0] == 0 and of_each == sorted(of_each) and of_each[1] > 0
    assert {each["loss"] for each in changes.values()} == {unified.AUGMENTATION["loss"]}


def test_places_suit_the_scans_that_will_come(office):
    between, revisited = (unified.grid_of(office, {"hold_out": hold_out}) for hold_out in ("positions", "rows"))
    assert not between["revisited"] and revisited["revisited"]
    areas = Places.of(office, **unified.grid_of(office, {"hold_out": "areas", "area": 40.0}))
    cells = {tuple(cell) for cell in np.floor(areas.position / 12.0)}
    assert len(cells) > len({tuple(cell) for cell in np.floor(office.position / 12.0)}), "some hold no row"
    assert unified.grid_of(office, {"hold_out": "areas", "grid": {"cell": 5.0}})["cell"] == 5.0


def test_a_transmitter_of_two_environments_is_one_input_with_the_lower_minimum(campus, learnt):
    names = campus.transmitters
    indoors = dataclasses.replace(campus, not_heard=-105.0)
    outdoors = renamed(campus, "outdoors", [*names[:5], *(f"gateway {name}" for name in names[5:])])
    outdoors = dataclasses.replace(outdoors, not_heard=-128.0)
    fitted = fit([indoors, outdoors], folds=1)
    assert fitted.transmitters == (*names, *outdoors.transmitters[5:])
    ((network, _, _),) = learnt
    (augmentation,) = network.augmentations
    weakest = augmentation.weakest
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


# === Members, and the rows that are held out from them ===


def contents(rssi):
    return {np.nan_to_num(scan, nan=1.0).tobytes() for scan in rssi}


@pytest.mark.parametrize("hold_out", HOLD_OUT)
def test_a_member_learns_all_rows_but_those_of_its_fold(office, learnt, hold_out):
    fit([office], folds=3, seed=5, environments=[{"hold_out": hold_out, "neighbours": None}])
    expected = Folds.of(office, hold_out, 3, seed=5)
    assert len(learnt) == 3
    for hidden, (_, rssi, _) in zip(expected.hidden, learnt, strict=True):
        assert 0 < hidden.sum() < len(office)
        assert contents(rssi) == contents(office.rssi[~hidden])


def test_a_single_member_learns_all_rows_and_nothing_is_chosen(office, learnt):
    fitted = fit([office], folds=1)
    ((network, rssi, _),) = learnt
    assert network.get_layer("member_0") is fitted.network.get_layer("member_0")
    assert contents(rssi) == contents(office.rssi)
    assert fitted.choices == [Choice(share=0.0)] and fitted.alternatives == [{}]
    names = {layer.name for layer in fitted.network.layers}
    assert not names & {"ensemble", "neighbours_0", "member_1"}


def test_each_row_is_located_once_by_the_member_that_had_not_seen_it(office, learnt):
    fitted = fit([office], folds=3, environments=[{"neighbours": {"share": 0.0}}])
    (told,) = fitted.held_out
    assert np.array_equal(np.sort(told.rows), np.arange(len(office)))
    assert np.array_equal(told.fold, Folds.of(office, "positions", 3, seed=0).asked[told.rows])
    decoder = fitted.network.get_layer("decoder")
    levels = fitted.network.get_layer("levels")(office.rssi[told.rows])
    for number in range(3):
        of_fold = told.fold == number
        logits = fitted.network.get_layer(f"member_{number}")(levels)
        expected = decoder(logits)
        assert told.located.position[of_fold] == pytest.approx(expected["position"][of_fold], abs=0.1)
        assert np.array_equal(told.located.floor[of_fold], expected["floor"][of_fold])


def test_every_row_is_stored_in_the_end_but_has_no_vote_while_it_is_held_out(office, learnt):
    fitted = fit([office], environments=[{"neighbours": NEAREST}])
    found = fitted.predict(office.scans).position
    assert np.linalg.norm(found - office.position, axis=1).max() < 0.1, "each is its own neighbour"
    (told,) = fitted.held_out
    place_id = office.place_id[told.rows]
    distance = np.linalg.norm(told.located.position[:, None] - office.position, axis=2)
    nearest = office.place_id[distance.argmin(axis=1)]
    assert (nearest != place_id).all(), "all of its position is out with it"


def test_held_out_rows_of_plain_neighbours_are_told_beside(office, learnt):
    (told,) = fit([office]).held_out
    assert told.neighbours_error.shape == told.rows.shape
    assert 0 < told.neighbours_error.mean() < np.ptp(office.position, axis=0).max()


def test_of_many_rows_only_some_are_asked_about(monkeypatch):
    monkeypatch.setattr(unified, "MOST_ASKED", 10)
    few, many = np.array([0, -1, 1, 0]), np.arange(100) % 4
    first, second = unified.asked_rows([few, many], seed=0)
    assert sorted(first) == [0, 2, 3]
    assert len(set(second)) == 10 and second.min() >= 4 and second.max() < 104
    assert np.array_equal(unified.asked_rows([few, many], seed=0)[1], second)


# === What is chosen ===


def test_what_is_chosen_is_what_the_network_does(both, learnt, monkeypatch):
    chosen = {
        "devices": Choice(share=0.25, width=0.1, exponent=2.0, offsets=(-6.0, 0.0), softness=4.0, sharpness=1.5),
        "rows": Choice(share=0.0),
    }
    monkeypatch.setattr(unified, "choose", lambda rows, hold_out: chosen[hold_out])
    fitted = fit(both[::-1], environments=[{"hold_out": "rows"}, {"hold_out": "devices"}])
    assert fitted.choices == [chosen["rows"], chosen["devices"]]
    assert "neighbours_0" not in [layer.name for layer in fitted.network.layers], "a share of 0 needs no votes"
    votes = fitted.network.get_layer("neighbours_1")
    assert (votes.share, votes.width, votes.levels.exponent, votes.offsets) == (0.25, 0.1, 2.0, (-6.0, 0.0))
    assert len(votes.of_place) == len(both[0])
    of_office = fitted.places.environment == 1
    own = Places.of(both[0])
    assert fitted.places.softness[of_office] == pytest.approx(4 * own.softness)
    assert set(fitted.places.sharpness[of_office]) == {1.5} and set(fitted.places.sharpness[~of_office]) == {1.0}


def test_what_somebody_sets_is_not_chosen(office, learnt, monkeypatch):
    monkeypatch.setattr(unified, "choose", lambda *_: pytest.fail("chosen"))
    fitted = fit([office], environments=[{"neighbours": {"share": 0.9}}])
    assert fitted.choices == [Choice(share=0.9)]
    assert fit([office], environments=[{"neighbours": None}]).choices == [Choice(share=0.0)]


def test_it_says_how_good_the_alternatives_were(briefly):
    assert len(briefly.choices) == len(briefly.alternatives) == len(briefly.held_out) == 2
    for told in briefly.alternatives:
        assert set(told) == {"network alone", "votes alone", "together", "plain kNN"}
        assert min(told.values()) > 0
        assert told["together"] < 1.5 * min(told["network alone"], told["votes alone"])


# === What it tells ===


@pytest.mark.parametrize("head", unified.HEADS)
def test_one_network_learns_both_environments(campus, city, head):
    both = [campus, city]
    epochs = 12 if head == "distance" else 20  # which takes the least to learn from
    fitted = fit(both, head=head, folds=1, epochs=epochs, network={"hidden": (64, 64)})
    located = fitted.predict(scans_of(both))
    environment = np.repeat([0, 1], list(map(len, both)))
    assert (located.environment == environment).mean() > 0.95
    for number, fingerprints in enumerate(both):
        position = located.position[environment == number]
        error = np.linalg.norm(position - fingerprints.position, axis=1).mean()
        middle = np.median(fingerprints.position, axis=0)
        centre = np.linalg.norm(fingerprints.position - middle, axis=1).mean()
        assert error < 0.7 * centre, f"{fingerprints.name}: {error:.1f} m, and {centre:.1f} m by telling the middle"


def test_labels_are_those_of_the_training_rows_and_none_where_there_are_none(office, city, both, quick_fit):
    located = fit(both, folds=1).predict(scans_of(both))
    assert set(located.building[located.environment == 0]) <= set(office.building)
    assert set(located.floor[located.environment == 1]) <= {-1}
    alone = fit([city], folds=1).predict(city.scans)
    assert alone.environment is None and alone.building is None and alone.floor is None
    assert (alone.spread > 0).all()
    below_ground = dataclasses.replace(office, floor=np.full(len(office), -1), building=None)
    basement = fit([below_ground], folds=1).predict(office.scans)
    assert basement.building is None and set(basement.floor) == {-1}


def test_a_head_that_regresses_has_one_member_and_tells_neither_spread_nor_labels(both, quick_fit):
    fitted = fit(both, head="distance", folds=4)
    assert fitted.predict(scans_of(both)).arrays().keys() == {"position", "environment"}
    assert fitted.folds == 1 and fitted.places is None and fitted.choices == []


def test_the_same_seed_tells_the_same_and_another_seed_or_grid_does_not(office, quick_fit):
    first = fit([office], folds=1).predict(office.scans)
    assert_same(fit([office], folds=1).predict(office.scans), first)
    another_seed = fit([office], folds=1, seed=1).predict(office.scans)
    another_grid = fit([office], folds=1, environments=[{"grid": {"cell": 90.0}}])
    assert not np.array_equal(another_seed.position, first.position)
    assert not np.array_equal(another_grid.predict(office.scans).position, first.position)
    assert set(another_grid.places.sigma) == {45.0}


def test_the_same_seed_learns_the_same(both, briefly):
    again = fit(both)
    assert again.choices == briefly.choices and again.alternatives == briefly.alternatives
    assert_same(again.predict(scans_of(both)), briefly.predict(scans_of(both)))
    for first, second in zip(again.held_out, briefly.held_out, strict=True):
        assert np.array_equal(first.rows, second.rows)
        assert_same(first.located, second.located)


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


def test_a_loaded_network_has_the_settings_of_the_saved_one(office, tmp_path, quick_fit):
    environments = [{"hold_out": "rows", "grid": {"cell": 30.0}, "neighbours": {"share": 0.9, "width": 0.1}}]
    fitted = fit([office], environments=environments, decoder={"iterations": 3})
    fitted.save(tmp_path)
    loaded = Unified.load(tmp_path)
    assert loaded.environment_settings == environments and loaded.training == fitted.training
    assert (loaded.folds, loaded.transmitters) == (2, office.transmitters)
    assert loaded.environments == (office.name,)
    assert loaded.places.config() == fitted.places.config()
    again = loaded.fit([office], [office[:0]], seed=0)
    assert_same(again.predict(office.scans), fitted.predict(office.scans))


# === Shared columns ===


def test_a_network_of_shared_columns_takes_all_names_and_learns_the_same_columns(both, learnt, tmp_path):
    office, town = both
    fitted = fit(both, shared_columns=True)
    assert fitted.transmitters == (*office.transmitters, *town.transmitters)
    width = max(len(office.transmitters), len(town.transmitters))
    assert [rssi.shape[1] for _, rssi, _ in learnt] == [width, width]
    fitted.save(tmp_path)
    assert_same(Unified.load(tmp_path).predict(scans_of(both)), fitted.predict(scans_of(both)))


def test_a_network_in_use_folds_scans_into_the_columns_that_its_members_learnt(office, tmp_path):
    some = Places.of(office)
    levels = {"columns": [0, 2, 3], "minimum": [-105.0] * 3, "exponent": 1.5, "heard": False}
    members = []
    for number in range(2):
        members.append(member_network(3, len(some), hidden=(8,), dropout=0.1, name=f"member_{number}"))
    rssi = np.random.default_rng(0).uniform(-100, -30, (10, 6)).astype(np.float32)
    rssi[::2, 1::2] = np.nan
    of_folded = unified.assembled(members, levels, None, [], PlaceDecoder(some, name="decoder"), 4)
    network = unified.assembled(members, levels, None, [], PlaceDecoder(some, name="decoder"), [2, 4])
    expected = of_folded(Fold([2, 4])(rssi))
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    for name, values in network(rssi).items():
        assert np.array_equal(values, expected[name]) and np.array_equal(values, loaded(rssi)[name]), name


def test_environments_with_a_transmitter_in_common_cannot_share_columns(campus):
    twice = [campus, renamed(campus, "again", campus.transmitters)]
    with pytest.raises(
        ValueError, match=rf"different transmitters\. Received: {len(campus.transmitters)} that several"
    ):
        fit(twice, shared_columns=True)


# === Votes ===


def test_stored_fingerprints_vote_in_their_environment_and_leave_the_other_alone(both, learnt, tmp_path):
    alone = fit(both, folds=1).predict(scans_of(both))
    voted = fit(both, folds=1, environments=[{"neighbours": NEAREST}, {"neighbours": None}])
    together = voted.predict(scans_of(both))
    office, _ = both
    indoors = np.arange(len(together.position)) < len(office)
    assert np.linalg.norm(together.position[indoors] - office.position, axis=1).max() < 0.1
    assert together.position[~indoors] == pytest.approx(alone.position[~indoors], abs=0.05)
    assert np.array_equal(together.environment, alone.environment)
    voted.save(tmp_path)
    assert_same(Unified.load(tmp_path).predict(scans_of(both)), together)


def test_an_offset_makes_up_for_a_phone_that_hears_all_louder(office, quick_fit):
    louder = dataclasses.replace(office.scans, rssi=office.rssi + 6)
    plain, corrected = (
        fit([office], folds=1, environments=[{"neighbours": {"share": 1.0, "offsets": offsets}}])
        for offsets in ([0.0], [-6.0])
    )
    alike = plain.predict(office.scans)
    np.testing.assert_allclose(alike.position, corrected.predict(louder).position, atol=1e-2)
    assert not np.array_equal(alike.position, plain.predict(louder).position)


# === Settings that are refused ===


def test_settings_of_too_few_environments_are_refused(both):
    with pytest.raises(ValueError, match=r"`environments` must have .* each of the 2 environments\. Received: 1 map"):
        fit(both, environments=[{"neighbours": {}}])


def test_neighbours_without_places_are_refused():
    with pytest.raises(ValueError, match=r"`neighbours` vote for places.*head distance.* Received: {}"):
        Unified(head="distance", environments=[{"neighbours": {}}])


def test_a_network_without_members_is_refused():
    with pytest.raises(ValueError, match=r"`folds` must be positive\. Received: folds=0"):
        Unified(folds=0)


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match=r"one of places, distance, squared\. Received: mean"):
        Unified(head="mean")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grids": {}}, "`environments` must be one of hold_out, .*, neighbours. Received: grids"),
        ({"hold_out": "days"}, "`hold_out` must be one of positions, rows, devices, areas. Received: days"),
        ({"augmentation": {"gain": 1}}, "`augmentation` must be one of offset, .* Received: gain"),
    ],
)
def test_an_unknown_setting_of_an_environment_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Unified(environments=[settings])


def test_the_sets_must_be_of_the_same_environments(campus, city):
    with pytest.raises(ValueError, match="in the same order"):
        Unified().fit([campus], [city[:0]], seed=0)
