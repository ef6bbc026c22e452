"""Places: what they are made of, soft targets, and decoding against independent references."""

import dataclasses
from unittest import mock

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special
from scipy.spatial.distance import cdist

from lib.models import places
from lib.models.places import Neighbours, PlaceDecoder, PlaceLoss, Places


def some_places(position, environment=0, building=0, floor=0, sigma=4.0, sharpness=1.0, softness=0.0):
    """Places at (c, 2) positions; of the other fields a number is that of all places."""
    count = len(position)
    return Places(
        environment=np.broadcast_to(environment, count),
        building=np.broadcast_to(building, count),
        floor=np.broadcast_to(floor, count),
        position=np.array(position, dtype=float),
        sigma=np.full(count, sigma),
        sharpness=np.full(count, sharpness),
        softness=np.full(count, softness),
    )


def decode(places, probabilities, **settings):
    with np.errstate(divide="ignore"):
        logits = np.log(np.float32(probabilities))
    outputs = PlaceDecoder(places, **settings)(np.maximum(logits, -1e9))
    return {name: keras.ops.convert_to_numpy(values) for name, values in outputs.items()}


def labels_of(places):
    """(c, 4) building, floor and position of places."""
    return np.column_stack([places.building, places.floor, places.position])


def spacing_of(position):
    """Median distance of (n, 2) positions to the nearest other one."""
    between = cdist(position, position)
    return np.median(np.sort(between, axis=1)[:, 1])


def test_positions_are_places_and_where_they_are_too_many_cells(city, monkeypatch):
    positions = np.unique(city.position, axis=0)
    own = Places.of(city)
    assert np.array_equal(own.position, positions)
    assert own.softness == pytest.approx(spacing_of(positions))
    assert own.sigma == pytest.approx(2 * spacing_of(positions))
    monkeypatch.setattr(places, "MOST_POSITIONS", len(positions) - 1)
    grid = Places.of(city)
    assert 0.9 * places.CELLS < len(grid) < 1.3 * places.CELLS
    assert np.array_equal(grid.softness, 2 * grid.sigma), "half a cell, and a cell"


def test_positions_on_two_floors_are_two_places(campus):
    assert np.array_equal(labels_of(Places.of(campus)), np.unique(places.labels(campus), axis=0))


def test_where_positions_are_revisited_only_they_count_as_near(campus):
    between, revisited = Places.of(campus), Places.of(campus, revisited=True)
    assert np.array_equal(between.sigma, 2 * revisited.sigma)
    assert np.array_equal(between.position, revisited.position)


def test_a_place_of_a_grid_lies_in_its_cell(city):
    grid = Places.of(city, cell=500.0)
    cells = np.unique(np.floor(city.position / 500), axis=0)
    assert len(grid) == len(cells) and grid.sigma[0] == 250
    assert np.array_equal(np.floor(grid.position / 500), cells)


def cells_of(position, side=300):
    return {tuple(cell) for cell in np.floor(position / side)}


def test_a_margin_adds_every_cell_that_is_near_a_row_and_no_other(city):
    with_rows, wider = Places.of(city, cell=300.0), Places.of(city, cell=300.0, margin=700.0)
    assert np.array_equal(wider.position[: len(with_rows)], with_rows.position)
    added = wider.position[len(with_rows) :]
    assert (cdist(added, city.position).min(axis=1) <= 700).all()
    low, high = city.position.min(axis=0) // 300 - 3, city.position.max(axis=0) // 300 + 4
    centres = 300 * (np.stack(np.meshgrid(*map(np.arange, low, high)), axis=-1).reshape(-1, 2) + 0.5)
    near = centres[cdist(centres, city.position).min(axis=1) <= 700]
    assert cells_of(near) - cells_of(city.position) == cells_of(added)


def test_a_grid_fits_rows_from_one_yard(city, monkeypatch):
    monkeypatch.setattr(places, "MOST_POSITIONS", 100)
    yard = np.tile([[0.0, 0.0]], (3 * len(city), 1)) + np.random.default_rng(0).uniform(0, 40, (3 * len(city), 2))
    rows = np.concatenate([np.arange(len(city)), np.resize(np.arange(len(city)), len(yard))])
    crowded = dataclasses.replace(city[rows], position=np.concatenate([city.position, yard]))
    assert Places.of(crowded).sigma[0] > 0.7 * Places.of(city).sigma[0]


far_metres = st.floats(1e5, 1e7) | st.floats(-1e7, -1e5)
far_positions = st.lists(st.tuples(far_metres, far_metres), min_size=1, max_size=3)


@settings(max_examples=20)
@given(far_positions, st.integers(60, 500))
def test_a_few_far_rows_leave_the_grid_as_it_was(city, far, n_rows):
    usual = city[:n_rows]
    position = np.concatenate([usual.position, far])
    rows = np.minimum(np.arange(len(position)), n_rows - 1)
    disturbed = dataclasses.replace(usual[rows], position=position)
    with mock.patch.multiple(places, MOST_POSITIONS=0, CELLS=50):
        clean_cell = places._cell_for(places.labels(usual))
        assert clean_cell / 1.5 < places._cell_for(places.labels(disturbed)) < 1.5 * clean_cell
    for found, expected in zip(places.usual_range(position), places.usual_range(usual.position), strict=True):
        assert np.array_equal(found, expected)


def test_the_usual_range_is_that_of_all_rows_where_none_is_far(city):
    corridor = np.column_stack([np.linspace(0, 80, 50), np.zeros(50)])
    side_room = [[40.0, 6.0]]
    for position in (city.position, city.position[:3], np.concatenate([corridor, side_room]), np.zeros((1, 2))):
        low, high = places.usual_range(position)
        assert np.array_equal(low, position.min(axis=0))
        assert np.array_equal(high, position.max(axis=0))


def test_rows_without_a_fix_count_once_however_many_they_are(city):
    without_fix = np.tile([[-4e5, -5.7e6]], (300, 1))
    low, high = places.usual_range(np.concatenate([city.position, without_fix]))
    assert np.array_equal([low, high], [city.position.min(axis=0), city.position.max(axis=0)])


@pytest.mark.parametrize(("setting", "value"), [("cell", -1), ("sigma", 0), ("margin", -1), ("softness", -1)])
def test_impossible_metres_are_refused(city, setting, value):
    with pytest.raises(ValueError, match=rf"`{setting}` must .* Received: {setting}={value}"):
        Places.of(city, **{setting: value})


def test_soft_targets_fall_with_the_distance_and_stay_in_the_environment():
    four = some_places([[0, 0], [4, 0], [0, 0], [0, 0]], environment=[0, 0, 0, 1], floor=[0, 0, 1, 0])
    near = np.exp([0, -1, -places.FLOOR_SIGMAS])
    near /= near.sum()
    y, logits = np.float32([[0, 0, 0, 0, 0]]), np.float32([[0.3, -1.0, 2.0, 0.7]])
    predicted = special.softmax(logits[0])
    expected = -(near * np.log(predicted[:3])).sum()
    assert float(PlaceLoss(four)(y, logits)) == pytest.approx(expected, rel=1e-4)


def test_another_building_is_as_far_as_eight_sigmas_and_another_floor_four_a_floor():
    three = some_places([[0, 0], [0, 0], [0, 0]], building=[0, 1, 0], floor=[0, 0, 2], sigma=5.0)
    near = special.softmax([0, -places.BUILDING_SIGMAS, -2 * places.FLOOR_SIGMAS])
    y, logits = np.float32([[0, 0, 0, 0, 0]]), np.float32([[0.0, 9.0, 5.0]])
    expected = -(near * special.log_softmax(logits[0])).sum()
    assert float(PlaceLoss(three)(y, logits)) == pytest.approx(expected, rel=1e-4)


def test_without_softness_the_position_is_the_weighted_geometric_median():
    rng = np.random.default_rng(0)
    position, probabilities = rng.uniform(0, 100, (12, 2)), rng.dirichlet(np.ones(12), size=5)
    found = decode(some_places(position), probabilities, iterations=200)["position"]
    for p, here in zip(probabilities, found, strict=True):

        def cost(x, p=p):
            return p @ np.linalg.norm(position - x, axis=1)

        best = optimize.minimize(cost, p @ position, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-8})
        assert cost(here) <= best.fun + 1e-3


def test_rounding_does_not_add_up_over_the_iterations():
    rng = np.random.default_rng(0)
    position = rng.normal(0, 150, (1500, 2))
    probabilities = 0.99 * np.eye(1500)[rng.permutation(1500)] / 2
    probabilities += 0.99 * np.eye(1500)[rng.permutation(1500)] / 2 + 0.01 / 1500  # two alike: it converges slowly
    probabilities = probabilities[:300]
    found = decode(some_places(position), probabilities, iterations=20)["position"]
    exact = probabilities @ position
    for _ in range(20):
        pull = probabilities / np.sqrt(((exact[:, None] - position) ** 2).sum(axis=2) + 1e-4)
        exact = pull @ position / pull.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-3)


def test_without_iterations_the_position_is_the_mean_and_spread_the_mean_distance():
    position, probabilities = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 30.0]]), np.array([[0.2, 0.5, 0.3]])
    found = decode(some_places(position), probabilities, iterations=0)
    mean = probabilities @ position
    assert found["position"] == pytest.approx(mean, abs=1e-3)
    assert found["spread"] == pytest.approx(probabilities @ np.linalg.norm(position - mean, axis=1), rel=1e-3)


@pytest.fixture
def drawn():
    """(12, 2) positions in a square of 100 m, and (5, 12) probabilities."""
    rng = np.random.default_rng(0)
    return rng.uniform(0, 100, (12, 2)), rng.dirichlet(np.ones(12), size=5)


def test_a_soft_median_has_the_least_expected_softened_distance(drawn):
    position, probabilities = drawn
    found = decode(some_places(position, softness=20.0), probabilities, iterations=200)["position"]
    for p, here in zip(probabilities, found, strict=True):

        def cost(x, p=p):
            return p @ np.sqrt(((position - x) ** 2).sum(axis=1) + 20.0**2)

        best = optimize.minimize(cost, p @ position, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-8})
        assert here == pytest.approx(best.x, abs=0.02)


def test_places_much_nearer_than_the_softness_are_averaged(drawn):
    position, probabilities = drawn
    found = decode(some_places(position, softness=1e4), probabilities)
    mean = probabilities @ position
    assert found["position"] == pytest.approx(mean, abs=0.05)
    distance = np.linalg.norm(position - mean[:, None], axis=2)
    assert found["spread"] == pytest.approx((probabilities * distance).sum(axis=1), rel=1e-2), "it is not softened"


def test_each_environment_has_its_own_softness():
    position = [[0, 0], [30, 0], [0, 0], [30, 0]]
    two = some_places(position, environment=[0, 0, 1, 1])
    two = dataclasses.replace(two, softness=np.array([0.0, 0.0, 1e4, 1e4]))
    found = decode(two, [[0.6, 0.4, 0, 0], [0, 0, 0.6, 0.4]], iterations=100)["position"]
    assert found == pytest.approx(np.array([[0, 0], [12, 0]]), abs=0.05)


def test_sharpness_is_a_power_of_the_probabilities():
    position, probabilities = np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([[0.25, 0.75]])
    found = decode(some_places(position, sharpness=2.0), probabilities, iterations=0)
    assert found["position"][0] == pytest.approx([10 * 0.75**2 / (0.25**2 + 0.75**2), 0], abs=1e-3)


def test_place_is_told_from_the_environment_down():
    # The likeliest single place is in environment 1, but environment 0 is likelier as a whole; and so on below it.
    five = some_places(
        [[0, 0], [1, 0], [2, 0], [3, 0], [9, 9]],
        environment=[0, 0, 0, 0, 1],
        building=[7, 8, 8, 8, -1],
        floor=[1, 2, 3, 3, -1],
    )
    found = decode(five, [[0.15, 0.2, 0.14, 0.11, 0.4], [0, 0, 0, 0, 1]])
    assert found["environment"] == pytest.approx(np.array([[0.6, 0.4], [0, 1]]), abs=1e-5)
    assert found["building"].tolist() == [8, -1] and found["floor"].tolist() == [3, -1]
    assert (found["position"][0] < 4).all() and found["position"][1] == pytest.approx([9, 9], abs=1e-3)


def test_a_saved_decoder_tells_the_same(tmp_path):
    inputs = keras.Input((3,))
    decoder = PlaceDecoder(some_places([[0, 0], [5, 0], [0, 7]], floor=[0, 1, 1]))
    model = keras.Model(inputs, decoder(inputs))
    model.save(tmp_path / "decoder.keras")
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    again = keras.saving.load_model(tmp_path / "decoder.keras")(logits)
    for name, values in model(logits).items():
        assert np.array_equal(values, again[name]), name


def test_the_nearest_place_of_a_row_is_the_one_that_was_made_of_it(campus):
    points, label = Places.of(campus, cell=0), places.labels(campus)
    nearest = points.nearest(label, 0)
    assert np.array_equal(labels_of(points)[nearest], label)
    two = places.joined([points, points])
    assert np.array_equal(two.nearest(label, 1), len(points) + nearest)


WEAKEST = -100.0  # dBm of the level 0


def dbm(levels):
    """Scans of these levels, by the exponent 1."""
    return np.where(levels > 0, WEAKEST * (1 - levels), np.nan).astype(np.float32)


@pytest.fixture(scope="module")
def levels():
    """(20, 9) of stored fingerprints, (6, 9) of scans; the last of these hears only what none of the others does."""
    rng = np.random.default_rng(0)
    drawn = np.where(rng.random((26, 9)) < 0.5, 0, rng.random((26, 9))).astype(np.float32)
    drawn[:25, 8], drawn[25] = 0, [0] * 8 + [0.7]
    return drawn[:20], drawn[20:]


def stored_neighbours(levels, of_place, columns=range(9), own_places=range(5), **settings):
    columns = list(columns)
    usual = {"share": 0.5, "width": 0.1, "exponent": 1.0, "strongest": 9}
    layer = Neighbours(columns, [WEAKEST] * len(columns), own_places, of_place, **usual | settings)
    layer.build([levels.shape, (None, 5)])
    layer.store(dbm(levels))
    return layer


def votes_by_place(distance, of_place, width=0.1):
    """(n, 5) shares of the votes, by (n, m) distances."""
    votes = np.exp(-distance / width)
    votes = np.stack([votes[:, of_place == place].sum(axis=1) for place in range(5)], axis=1)
    return votes / votes.sum(axis=1, keepdims=True)


def test_neighbours_vote_for_their_places_by_their_sorensen_distance(levels):
    stored, scans = levels
    of_place, logits = np.arange(20) % 4, np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    network = special.softmax(logits, axis=1)
    expected = 0.7 * network + 0.3 * votes_by_place(cdist(scans, stored, "braycurtis"), of_place)
    expected[-1] = network[-1]
    found = np.exp(stored_neighbours(stored, of_place, share=0.3)([dbm(scans), logits]))
    assert found == pytest.approx(expected, abs=1e-5), "the last shares nothing: the network's word stands"


def test_similarity_is_one_less_the_sorensen_distance_of_powed_rssi(levels):
    stored, scans = levels
    layer = stored_neighbours(stored, np.arange(20) % 5, exponent=1.5)
    expected = 1 - cdist(scans**1.5, stored**1.5, "braycurtis")
    assert np.asarray(layer.similarity(dbm(scans))) == pytest.approx(expected, abs=1e-5)


def test_of_several_offsets_the_one_counts_by_which_a_fingerprint_is_nearest(levels):
    stored, _ = levels
    heard_louder = dbm(stored) + 6
    plain, corrected, both = (
        np.asarray(stored_neighbours(stored, np.arange(20) % 5, offsets=offsets).similarity(heard_louder))
        for offsets in ((0.0,), (-6.0,), (-6.0, 0.0))
    )
    assert np.diag(corrected) == pytest.approx(1, abs=1e-5) and (np.diag(plain) < 0.99).any()
    assert np.array_equal(both, np.maximum(plain, corrected))


def test_of_a_scan_only_the_strongest_levels_are_compared(levels):
    stored, scans = levels
    cut, logits = np.where(scans >= np.sort(scans, axis=1)[:, -2:-1], scans, 0), np.zeros((6, 5), np.float32)
    few = stored_neighbours(stored, np.arange(20) % 5, strongest=2)([dbm(scans), logits])
    shared = np.minimum(cut[:, None], stored).sum(axis=2)
    distance = 1 - 2 * shared / (scans.sum(axis=1)[:, None] + stored.sum(axis=1))
    votes = votes_by_place(distance, np.arange(20) % 5)
    assert np.exp(few)[:-1] == pytest.approx((0.5 * 0.2 + 0.5 * votes)[:-1], abs=1e-5)


def test_transmitters_of_other_environments_are_not_compared(levels):
    stored, scans = levels
    layer = stored_neighbours(stored, np.arange(20) % 5, columns=range(4))
    expected = 1 - cdist(scans[:, :4], stored[:, :4], "braycurtis")
    assert np.asarray(layer.similarity(dbm(scans)))[:-1] == pytest.approx(expected[:-1], abs=1e-5)


def test_votes_are_for_places_of_their_environment_and_leave_the_others_what_they_have(levels):
    stored, scans = levels
    logits = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    network = special.softmax(logits, axis=1)
    of_place = 2 + np.arange(20) % 3
    found = np.exp(stored_neighbours(stored, of_place, own_places=[2, 3, 4], share=1.0)([dbm(scans), logits]))
    assert found[:, :2] == pytest.approx(network[:, :2], abs=1e-6)
    votes = votes_by_place(cdist(scans[:5], stored, "braycurtis"), of_place)
    assert found[:5] == pytest.approx(
        np.where(np.arange(5) < 2, network[:5], network[:5, 2:].sum(axis=1, keepdims=True) * votes), abs=1e-5
    )


def test_saved_neighbours_vote_alike(levels, tmp_path):
    stored, scans = levels
    rssi, logits = keras.Input((9,)), keras.Input((5,))
    layer = stored_neighbours(stored, np.arange(20) % 5, offsets=(-6.0, 0.0))
    model = keras.Model([rssi, logits], layer([rssi, logits]))
    model.save(tmp_path / "neighbours.keras")
    loaded = keras.saving.load_model(tmp_path / "neighbours.keras")
    asked = [dbm(scans), np.zeros((6, 5), np.float32)]
    assert np.array_equal(loaded(asked), model(asked))
    assert loaded.layers[-1].get_config() == layer.get_config()
