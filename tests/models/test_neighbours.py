"""kNN against a brute-force search, and against the literature on the measured set."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from lib import metrics
from lib.data import protocols
from lib.data.fingerprints import FingerprintSet, Release, Scans
from lib.data.frames import Frame
from lib.models import scaling
from lib.models.neighbours import METRICS, SCALES, SILENT_LEVEL, NearestFingerprints, ValidatedNeighbours

ESTIMATORS = {
    "euclidean, k = 1": lambda: ValidatedNeighbours(metrics=("euclidean",), ks=(1,)),
    "euclidean": lambda: ValidatedNeighbours(metrics=("euclidean",)),
    "sorensen": lambda: ValidatedNeighbours(metrics=("sorensen",)),
    "sorensen, k = 13": lambda: NearestFingerprints("sorensen", 13),
    "weighted": lambda: ValidatedNeighbours(weighting="inverse"),
    "powed with 1.1": lambda: ValidatedNeighbours(metrics=("sorensen",), scale="powed_1.1"),
}


@pytest.fixture(scope="module")
def radio_map(campus):
    """Distinct scans, so that no two neighbours are equally far."""
    train = campus[campus.part == "train"]
    distinct = np.unique(train.copy_id, return_index=True)[1]
    return train[np.sort(distinct[train.heard.any(axis=1)[distinct]])][:300]


@pytest.fixture(scope="module")
def validation(campus):
    return campus[campus.part == "validation"][:60]


@pytest.fixture(scope="module")
def fitted(simulated):
    return {name: learnt(make(), simulated) for name, make in ESTIMATORS.items()}


def learnt(estimator, rows, seed=0):
    """Fitted on the first rows of a set, and validated on the next."""
    return estimator.fit([rows[:250]], [rows[250:300]], seed=seed)


def stored(radio_map, metric, k, **settings):
    """All rows of the radio map stored, and nothing else."""
    return NearestFingerprints(metric, k, **settings).fit([radio_map], [radio_map[:0]], seed=0)


def assert_equal(located, expected):
    assert located.arrays().keys() == expected.arrays().keys()
    for name, values in expected.arrays().items():
        np.testing.assert_array_equal(getattr(located, name), values)


def distances(metric, scans, fingerprints):
    """Straight from the definitions: dBm with −105 for "not heard"; Bray–Curtis on powed RSSI with β = e."""
    first = np.nan_to_num(scans.rssi, nan=-105.0).astype(float)
    second = np.nan_to_num(fingerprints.rssi, nan=-105.0).astype(float)
    if metric == "euclidean":
        return cdist(first, second)
    return cdist(((first + 105) / 105) ** np.e, ((second + 105) / 105) ** np.e, "braycurtis")


# === Every kNN ===


@pytest.mark.parametrize("name", ESTIMATORS)
def test_positions_are_finite_and_labels_those_of_the_radio_map(simulated, fitted, name, strange):
    rows, scans = simulated[:300], strange
    located = fitted[name].predict(scans)
    fields = {field for field in ("building", "floor") if getattr(simulated, field) is not None}
    assert located.arrays().keys() == {"position"} | fields and fitted[name].n_train == [len(rows)]
    assert located.position.shape == (len(scans), 2) and np.isfinite(located.position).all()
    assert (located.position >= rows.position.min(axis=0) - 1e-6).all()
    assert (located.position <= rows.position.max(axis=0) + 1e-6).all()
    for field in fields:
        assert set(getattr(located, field)) <= set(getattr(rows, field))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_seed_changes_a_prediction(simulated, fitted, name, strange):
    scans = strange
    for seed in (0, 1):
        assert_equal(learnt(ESTIMATORS[name](), simulated, seed).predict(scans), fitted[name].predict(scans))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_learning_sees_only_training_and_validation_rows(simulated, fitted, name, strange):
    """Rows beyond them may hold anything, and the sets are left as they were."""
    elsewhere = dataclasses.replace(simulated, rssi=simulated.rssi.copy(), position=simulated.position.copy())
    elsewhere.rssi[300:] = -50.0
    elsewhere.position[300:] = 1e6
    before = elsewhere.rssi.copy()
    scans = strange
    assert_equal(learnt(ESTIMATORS[name](), elsewhere).predict(scans), fitted[name].predict(scans))
    np.testing.assert_array_equal(elsewhere.rssi, before)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_knn_locates_better_than_the_middle_of_the_radio_map(simulated, fitted, name):
    asked = simulated[300:400]
    errors = metrics.euclidean_errors(asked.position, fitted[name].predict(asked.scans).position)
    middle = np.broadcast_to(simulated.position[:300].mean(axis=0), asked.position.shape)
    assert errors.mean() < 0.8 * metrics.euclidean_errors(asked.position, middle).mean()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_columns_are_matched_by_name(simulated, fitted, name, assert_columns_are_matched_by_name, strange):
    scans, model = strange, fitted[name]
    assert_columns_are_matched_by_name(model, scans)
    assert model.transmitters == simulated.transmitters


@pytest.mark.parametrize("name", ESTIMATORS)
def test_validation_rows_are_matched_by_name_as_well(simulated, fitted, name, strange):
    rows = simulated[250:300]
    order = np.random.default_rng(0).permutation(len(rows.transmitters))
    names = tuple(np.array(rows.transmitters)[order].tolist())
    rows = dataclasses.replace(rows, rssi=rows.rssi[:, order], transmitters=names)
    model = ESTIMATORS[name]().fit([simulated[:250]], [rows], seed=0)
    assert_equal(model.predict(strange), fitted[name].predict(strange))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_several_environments_are_refused(campus, city, name):
    with pytest.raises(ValueError, match=f"learns one environment. Received: {campus.name}, {city.name}"):
        ESTIMATORS[name]().fit([campus[:50], city[:50]], [campus[50:60], city[50:60]], seed=0)


def test_scales_put_what_is_not_heard_below_everything_and_keep_the_order():
    rssi = np.float32([[np.nan, -104.0, -90.0, -50.0, 0.0]])
    for name, scale in SCALES.items():
        levels = scale(rssi, -105.0)[0]
        assert (np.diff(levels) > 0).all(), name
        assert name == "dbm" or (levels[0] == 0 and levels[-1] == pytest.approx(1, abs=1e-6)), name


# === Nearest fingerprints ===


WEIGHTS = {
    "inverse": lambda far: 1 / np.maximum(far, 1e-6),
    "soft": lambda far: np.exp(-(far - far.min()) / 0.03),
}


@pytest.mark.parametrize("weighting", WEIGHTS)
def test_position_and_labels_are_those_of_the_neighbours_by_their_weights(radio_map, validation, weighting):
    model = stored(radio_map, "sorensen", 5, weighting=weighting)
    located = model.predict(validation.scans)
    rows, far = model.neighbours(validation.scans)
    for number, distances_of_scan in enumerate(far):
        weights = WEIGHTS[weighting](distances_of_scan)
        expected = np.average(radio_map.position[rows[number]], axis=0, weights=weights)
        np.testing.assert_allclose(located.position[number], expected)
        votes = np.bincount(radio_map.floor[rows[number]], weights=weights)
        assert votes[located.floor[number]] == pytest.approx(votes.max())


def test_soft_weights_are_of_the_sorensen_distance_alone():
    with pytest.raises(ValueError, match="`metric` must be sorensen, whose distances `soft` is made for"):
        NearestFingerprints("euclidean", 5, weighting="soft")
    with pytest.raises(ValueError, match=r"`weighting` must be one of equal, inverse, soft. Received: hard"):
        NearestFingerprints("sorensen", 5, weighting="hard")


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_are_those_of_a_brute_force_search(radio_map, validation, metric, k):
    all_distances = distances(metric, validation, radio_map)
    rows, far = stored(radio_map, metric, k).neighbours(validation.scans)
    assert rows.shape == (len(validation), k)
    expected = np.sort(all_distances, axis=1)[:, :k]
    np.testing.assert_allclose(np.take_along_axis(all_distances, rows, axis=1), expected, rtol=1e-4)
    np.testing.assert_allclose(far, expected, rtol=1e-4)


def powed(rssi, minimum):
    """Levels in float64, in which Sørensen distances of whole dBm are exact but for one division."""
    return scaling.powed(rssi, minimum).astype(np.float64)


def whole_dbm(rows, transmitters):
    """Scans with few different levels, so that many are equally far, and some without a reading."""
    levels = st.sampled_from([np.nan, np.nan, -104.0, -90.0, -89.0, -50.0, 0.0])
    return stn.arrays(np.float32, st.tuples(rows, st.just(transmitters)), elements=levels)


@given(st.data())
def test_of_equally_far_fingerprints_sorensen_takes_the_lowest_row_first(data):
    transmitters = data.draw(st.integers(1, 6))
    rssi = data.draw(whole_dbm(st.integers(1, 40), transmitters))
    asked = data.draw(whole_dbm(st.integers(1, 5), transmitters))
    rssi[0, 0] = -50.0  # a radio map in which nothing is heard is refused
    k = data.draw(st.integers(1, len(rssi)))
    names = tuple(map(str, range(transmitters)))
    release = Release("drawn", len(rssi), None)
    position = np.zeros((len(rssi), 2))
    radio_map = FingerprintSet(rssi, position, Frame("EPSG:3857"), names, "drawn", release, not_heard=-105.0)
    scans = powed(asked, -105.0)
    scans[~scans.any(axis=1)] = SILENT_LEVEL
    nearest = cdist(scans, powed(rssi, -105.0), "braycurtis").argsort(axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(stored(radio_map, "sorensen", k).neighbours(Scans(asked, names))[0], nearest)


def test_sorensen_neighbours_are_those_of_scikit_learn_but_for_the_equally_far(fingerprints):
    k = 7
    asked, kept = np.split(np.random.default_rng(0).permutation(len(fingerprints)), [50])
    asked = asked[fingerprints.heard[asked].any(axis=1)]
    rows, _ = stored(fingerprints[kept], "sorensen", k).neighbours(fingerprints[asked].scans)
    levels = powed(fingerprints.rssi, fingerprints.not_heard_dbm)
    reference = NearestNeighbors(n_neighbors=k, metric="braycurtis", algorithm="brute").fit(levels[kept])
    expected, expected_rows = reference.kneighbors(levels[asked])
    for number, scan in enumerate(levels[asked]):
        far = expected[number]
        closer = far < far[-1]
        np.testing.assert_array_equal(cdist([scan], levels[kept[rows[number]]], "braycurtis")[0], far)
        assert set(rows[number][closer]) == set(expected_rows[number][closer])


@pytest.mark.parametrize("metric", METRICS)
def test_position_is_the_mean_and_building_and_floor_the_majority_of_the_neighbours(radio_map, validation, metric):
    model = stored(radio_map, metric, 5)
    located = model.predict(validation.scans)
    rows, _ = model.neighbours(validation.scans)
    np.testing.assert_allclose(located.position, radio_map.position[rows].mean(axis=1))
    for field in ("building", "floor"):
        votes = np.apply_along_axis(np.bincount, 1, getattr(radio_map, field)[rows], minlength=5)
        chosen = np.take_along_axis(votes, getattr(located, field)[:, None], axis=1)[:, 0]
        np.testing.assert_array_equal(chosen, votes.max(axis=1))


@pytest.mark.parametrize("metric", METRICS)
def test_a_stored_fingerprint_is_its_own_nearest_neighbour(radio_map, metric):
    located = stored(radio_map, metric, 1).predict(radio_map.scans)
    np.testing.assert_array_equal(located.position, radio_map.position)


def test_neighbours_outdoors_have_neither_building_nor_floor(city):
    located = stored(city[:200], "euclidean", 3).predict(city[200:220].scans)
    assert located.arrays().keys() == {"position"} and located.position.shape == (20, 2)


@pytest.mark.parametrize("metric", METRICS)
def test_scan_that_hears_nothing_gets_a_position(radio_map, metric):
    """Also where the radio map holds such scans: 0/0 is no distance."""
    silent = np.full((2, len(radio_map.transmitters)), np.nan, dtype=np.float32)
    with_silence = radio_map.rssi.copy()
    with_silence[:2] = silent
    for rows in (radio_map, dataclasses.replace(radio_map, rssi=with_silence)):
        position = stored(rows, metric, 3).predict(Scans(silent, rows.transmitters)).position
        assert np.isfinite(position).all()
        assert (position >= rows.position.min(axis=0)).all() and (position <= rows.position.max(axis=0)).all()


def test_silent_scan_is_nearest_to_those_that_hear_many_transmitters_hardly(radio_map):
    silent = np.full((1, len(radio_map.transmitters)), np.nan, dtype=np.float32)
    levels = powed(radio_map.rssi, -105.0)
    distance = cdist(np.full(silent.shape, SILENT_LEVEL), levels, "braycurtis")
    nearest = distance.argsort(axis=1, kind="stable")[:, :5]
    rows, _ = stored(radio_map, "sorensen", 5).neighbours(Scans(silent, radio_map.transmitters))
    np.testing.assert_array_equal(rows, nearest)
    assert levels[levels > 0].min() > SILENT_LEVEL and distance.min() > 0.9


@pytest.mark.parametrize("metric", METRICS)
def test_predicting_changes_neither_scans_nor_radio_map(radio_map, validation, metric):
    stored_before, asked_before = radio_map.rssi.copy(), validation.rssi.copy()
    model = stored(radio_map, metric, 2)
    first = model.predict(validation.scans).position
    np.testing.assert_array_equal(first, model.predict(validation.scans).position)
    np.testing.assert_array_equal(radio_map.rssi, stored_before)
    np.testing.assert_array_equal(validation.rssi, asked_before)


def test_without_a_level_for_not_heard_it_is_1_db_below_the_weakest_row_of_both(radio_map, validation):
    """So that a validation row that hears a transmitter more weakly than any training row stays above it."""
    weak = validation.rssi.copy()
    weak[0, np.flatnonzero(validation.heard[0])[0]] = -120.0
    train = dataclasses.replace(radio_map, not_heard=None)
    rows = dataclasses.replace(validation, rssi=weak, not_heard=None)
    model = NearestFingerprints("sorensen", 3).fit([train], [rows], seed=0)
    as_said = NearestFingerprints("sorensen", 3).fit([dataclasses.replace(train, not_heard=-121.0)], [rows], seed=0)
    assert_equal(model.predict(validation.scans), as_said.predict(validation.scans))


# === Choice of metric and k ===


@pytest.mark.parametrize("weighting", ["equal", "inverse"])
def test_chosen_metric_and_k_have_the_lowest_error_of_the_candidates(radio_map, validation, weighting):
    ks = [1, 3, 4, 9, 30]
    model = ValidatedNeighbours(ks=ks, weighting=weighting).fit([radio_map], [validation], seed=0)
    assert list(model.errors) == [(metric, k) for metric in METRICS for k in ks]
    for (metric, k), error in model.errors.items():
        candidate = stored(radio_map, metric, k, weighting=weighting)
        errors = metrics.euclidean_errors(validation.position, candidate.predict(validation.scans).position)
        assert error == pytest.approx(errors.mean())
    assert model.errors[model.model.metric, model.model.k] == min(model.errors.values())


def test_where_one_k_is_published_nothing_is_chosen(fitted):
    assert not fitted["euclidean, k = 1"].errors and fitted["euclidean, k = 1"].model.k == 1
    assert len(fitted["euclidean"].errors) > 1


def test_more_candidates_than_fingerprints_are_left_out(radio_map, validation):
    model = ValidatedNeighbours(metrics=["sorensen"]).fit([radio_map[:4]], [validation], seed=0)
    assert list(model.errors) == [("sorensen", 1), ("sorensen", 3)]
    with pytest.raises(ValueError, match=r"`ks` must have a k between 1 and 4. Received: \[9, 0\]"):
        ValidatedNeighbours(ks=[9, 0]).fit([radio_map[:4]], [validation], seed=0)


def test_several_candidates_need_validation_rows_and_a_single_one_does_not(radio_map, validation):
    with pytest.raises(ValueError, match=r"choose among 16 metrics and k, validation rows are needed. Received: none"):
        ValidatedNeighbours().fit([radio_map], [validation[:0]], seed=0)
    model = ValidatedNeighbours(metrics=["sorensen"], ks=[3]).fit([radio_map], [validation[:0]], seed=0)
    assert not model.errors and model.n_train == [len(radio_map)]
    assert_equal(model.predict(validation.scans), stored(radio_map, "sorensen", 3).predict(validation.scans))


# === Arguments ===


@pytest.mark.parametrize("metric", ["manhattan", "Euclidean", ""])
def test_unknown_metric_is_named_with_the_known_ones(metric):
    message = f"`metric` must be one of euclidean, sorensen. Received: {metric}$"
    with pytest.raises(ValueError, match=message):
        NearestFingerprints(metric, 1)
    with pytest.raises(ValueError, match=message):
        ValidatedNeighbours(metrics=(metric,))


@pytest.mark.parametrize("k", [0, -3])
def test_number_of_neighbours_that_is_not_positive_is_named(k):
    with pytest.raises(ValueError, match=f"`k` must be positive. Received: k={k}"):
        NearestFingerprints("euclidean", k)


def test_unknown_scale_is_named_with_the_known_ones():
    message = r"`scale` must be one of dbm, powed, .*Received: log"
    with pytest.raises(ValueError, match=message):
        NearestFingerprints("euclidean", 1, scale="log")
    with pytest.raises(ValueError, match=message):
        ValidatedNeighbours(scale="log")


def test_sorensen_does_not_take_dbm():
    with pytest.raises(ValueError, match="`scale` must have 0 for what is not heard"):
        NearestFingerprints("sorensen", 1, scale="dbm")


@pytest.mark.parametrize("metric", METRICS)
def test_more_neighbours_than_fingerprints_are_refused(radio_map, metric):
    with pytest.raises(ValueError, match="`k` must be at most 10, the radio map's rows"):
        stored(radio_map[:10], metric, 11)


# === The literature ===


def test_measured_official_1nn_error_is_the_known_one(measured_campus):
    """Euclidean 1-NN on the publisher's split: about 9.6 m over all 1,111 rows, whatever the treatment of ties."""
    test = protocols.official(measured_campus).test
    train = measured_campus[measured_campus.part == "train"]
    located = stored(train, "euclidean", 1).predict(test.scans)
    assert 9.4 < metrics.euclidean_errors(test.position, located.position).mean() < 9.9
    assert (located.building == test.building).mean() > 0.98
    assert (located.floor == test.floor).mean() > 0.85


def test_measured_official_sorensen_error_is_the_committed_one(measured_campus):
    train = measured_campus[measured_campus.part == "train"]
    test = measured_campus[measured_campus.part == "validation"]
    located = stored(train, "sorensen", 7).predict(test.scans)
    assert metrics.euclidean_errors(test.position, located.position).mean() == pytest.approx(6.54, abs=0.005)
