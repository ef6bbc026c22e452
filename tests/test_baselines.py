"""k nearest neighbours against a brute-force search, and against the literature on the measured set."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from lib import metrics, preprocess, splits
from lib.baselines import METRICS, SILENT_LEVEL, NearestFingerprints, choose_k
from lib.fingerprints import FingerprintSet, Frame, Release


@pytest.fixture(scope="module")
def radio_map(campus):
    """Distinct scans, so that no two neighbours are equally far."""
    train = campus[campus.part == "train"]
    distinct = np.unique(train.copy_id, return_index=True)[1]
    return train[np.sort(distinct[train.heard.any(axis=1)[distinct]])][:300]


@pytest.fixture(scope="module")
def scans(campus):
    return campus[campus.part == "validation"][:60]


def distances(metric, one, other):
    """Straight from the definitions: dBm with −105 for "not heard"; Bray–Curtis on powed RSSI with β = e."""
    one, other = (np.nan_to_num(rssi, nan=-105.0).astype(float) for rssi in (one, other))
    if metric == "euclidean":
        return cdist(one, other)
    return cdist(((one + 105) / 105) ** np.e, ((other + 105) / 105) ** np.e, "braycurtis")


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_are_those_of_a_brute_force_search(radio_map, scans, metric, k):
    all_distances = distances(metric, scans.rssi, radio_map.rssi)
    rows = NearestFingerprints(metric, k).fit(radio_map).neighbours(scans.rssi)
    assert rows.shape == (len(scans), k)
    found = np.take_along_axis(all_distances, rows, axis=1)
    np.testing.assert_allclose(found, np.sort(all_distances, axis=1)[:, :k], rtol=1e-4)


def powed(rssi, name):
    """Levels in float64, in which Sørensen distances of whole dBm are exact but for one division."""
    return preprocess.powed(rssi, preprocess.NOT_HEARD_DBM[name]).astype(np.float64)


def whole_dbm(rows, transmitters):
    """Scans with few different levels, so that many are equally far, and some without a reading."""
    levels = st.sampled_from([np.nan, np.nan, -104.0, -90.0, -89.0, -50.0, 0.0])
    return stn.arrays(np.float32, st.tuples(rows, st.just(transmitters)), elements=levels)


@given(st.data())
def test_of_equally_far_fingerprints_sorensen_takes_the_lowest_row_first(data):
    transmitters = data.draw(st.integers(1, 6))
    stored, asked = (data.draw(whole_dbm(st.integers(1, rows), transmitters)) for rows in (40, 5))
    k = data.draw(st.integers(1, len(stored)))
    names = tuple(map(str, range(transmitters)))
    release = Release("drawn", len(stored), None)
    drawn = FingerprintSet(stored, np.zeros((len(stored), 2)), Frame("EPSG:3857"), names, "ujiindoorloc", release)
    scans = powed(asked, drawn.name)
    scans[~scans.any(axis=1)] = SILENT_LEVEL
    nearest = cdist(scans, powed(stored, drawn.name), "braycurtis").argsort(axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(NearestFingerprints("sorensen", k).fit(drawn).neighbours(asked), nearest)


def test_sorensen_neighbours_are_those_of_scikit_learn_but_for_the_equally_far(fingerprints):
    k, (asked, stored) = 7, np.split(np.random.default_rng(0).permutation(len(fingerprints)), [50])
    asked = asked[fingerprints.heard[asked].any(axis=1)]
    rows = NearestFingerprints("sorensen", k).fit(fingerprints[stored]).neighbours(fingerprints.rssi[asked])
    levels = powed(fingerprints.rssi, fingerprints.name)
    reference = NearestNeighbors(n_neighbors=k, metric="braycurtis", algorithm="brute").fit(levels[stored])
    theirs, their_rows = reference.kneighbors(levels[asked])
    for scan, ours, far, their in zip(levels[asked], rows, theirs, their_rows, strict=True):
        np.testing.assert_array_equal(cdist([scan], levels[stored[ours]], "braycurtis")[0], far)
        assert set(ours[far < far[-1]]) == set(their[far < far[-1]])


@pytest.mark.parametrize("metric", METRICS)
def test_position_is_the_mean_and_building_and_floor_the_majority_of_the_neighbours(radio_map, scans, metric):
    model = NearestFingerprints(metric, 5).fit(radio_map)
    predicted, rows = model.predict(scans.rssi), model.neighbours(scans.rssi)
    np.testing.assert_allclose(predicted["position"], radio_map.position[rows].mean(axis=1))
    for field in ("building", "floor"):
        votes = np.apply_along_axis(np.bincount, 1, getattr(radio_map, field)[rows], minlength=5)
        chosen = np.take_along_axis(votes, predicted[field][:, None], axis=1)[:, 0]
        np.testing.assert_array_equal(chosen, votes.max(axis=1))


@pytest.mark.parametrize("metric", METRICS)
def test_a_stored_fingerprint_is_its_own_nearest_neighbour(radio_map, metric):
    predicted = NearestFingerprints(metric, 1).fit(radio_map).predict(radio_map.rssi)
    np.testing.assert_array_equal(predicted["position"], radio_map.position)


def test_neighbours_outdoors_have_neither_building_nor_floor(city):
    predicted = NearestFingerprints("euclidean", 3).fit(city[:200]).predict(city.rssi[200:220])
    assert predicted.keys() == {"position"} and predicted["position"].shape == (20, 2)


@pytest.mark.parametrize("metric", METRICS)
def test_scan_that_hears_nothing_gets_a_position(radio_map, metric):
    """Also where the radio map holds such scans: 0/0 is no distance."""
    silent = np.full((2, radio_map.rssi.shape[1]), np.nan, dtype=np.float32)
    with_silence = radio_map.rssi.copy()
    with_silence[:2] = silent
    for stored in (radio_map, dataclasses.replace(radio_map, rssi=with_silence)):
        position = NearestFingerprints(metric, 3).fit(stored).predict(silent)["position"]
        assert np.isfinite(position).all()
        assert (position >= stored.position.min(axis=0)).all() and (position <= stored.position.max(axis=0)).all()


def test_silent_scan_is_nearest_to_those_that_hear_many_transmitters_hardly(radio_map):
    silent = np.full((1, radio_map.rssi.shape[1]), np.nan, dtype=np.float32)
    levels = powed(radio_map.rssi, radio_map.name)
    distance = cdist(np.full(silent.shape, SILENT_LEVEL), levels, "braycurtis")
    nearest = distance.argsort(axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(NearestFingerprints("sorensen", 5).fit(radio_map).neighbours(silent), nearest)
    assert levels[levels > 0].min() > SILENT_LEVEL and distance.min() > 0.9


@pytest.mark.parametrize("metric", METRICS)
def test_predicting_changes_neither_scans_nor_radio_map(radio_map, scans, metric):
    stored, asked = radio_map.rssi.copy(), scans.rssi.copy()
    model = NearestFingerprints(metric, 2).fit(radio_map)
    first = model.predict(scans.rssi)["position"]
    np.testing.assert_array_equal(first, model.predict(scans.rssi)["position"])
    np.testing.assert_array_equal(radio_map.rssi, stored)
    np.testing.assert_array_equal(scans.rssi, asked)


# === Choice of k ===


@pytest.mark.parametrize("metric", METRICS)
def test_chosen_k_has_the_lowest_error_of_the_candidates(radio_map, scans, metric):
    candidates = [1, 3, 4, 9, 30]
    k, errors = choose_k(radio_map, scans, metric, candidates)
    assert list(errors) == candidates
    for candidate in candidates:
        predicted = NearestFingerprints(metric, candidate).fit(radio_map).predict(scans.rssi)["position"]
        mean = metrics.euclidean_errors(scans.position, predicted).mean()
        assert errors[candidate] == pytest.approx(mean)
    assert errors[k] == min(errors.values())


# === Arguments ===


@pytest.mark.parametrize("metric", ["manhattan", "Euclidean", ""])
def test_unknown_metric_is_named_with_the_known_ones(metric):
    with pytest.raises(ValueError, match=f"`metric` must be one of euclidean, sorensen. Received: {metric}$"):
        NearestFingerprints(metric, 1)


@pytest.mark.parametrize("k", [0, -3])
def test_number_of_neighbours_that_is_not_positive_is_named(k):
    with pytest.raises(ValueError, match=f"`k` must be positive. Received: k={k}"):
        NearestFingerprints("euclidean", k)


@pytest.mark.parametrize("candidates", [[0, 1, 3], [3, -1], [], [301]])
def test_candidates_that_no_search_can_have_are_refused(radio_map, scans, candidates):
    with pytest.raises(ValueError):
        choose_k(radio_map, scans, "euclidean", candidates)


@pytest.mark.parametrize("metric", METRICS)
def test_more_neighbours_than_fingerprints_are_refused(radio_map, metric):
    with pytest.raises(ValueError, match="`k` must be at most 10, the radio map's rows"):
        NearestFingerprints(metric, 11).fit(radio_map[:10])


@pytest.mark.parametrize("metric", METRICS)
def test_scans_of_other_transmitters_are_refused(radio_map, scans, metric):
    model = NearestFingerprints(metric, 1).fit(radio_map)
    for wrong in (scans.rssi[:, :-1], scans.rssi[0]):
        with pytest.raises(ValueError, match="`rssi` must have"):
            model.predict(wrong)


# === The literature ===


def test_measured_official_1nn_error_is_the_known_one(measured_campus):
    """Euclidean 1-NN on the publisher's split: about 9.6 m over all 1,111 rows, whatever the treatment of ties."""
    test = splits.split(measured_campus, "official").test
    train = measured_campus[measured_campus.part == "train"]
    predicted = NearestFingerprints("euclidean", 1).fit(train).predict(measured_campus.rssi[test])
    error = metrics.euclidean_errors(measured_campus.position[test], predicted["position"])
    assert 9.4 < error.mean() < 9.9
    assert (predicted["building"] == measured_campus.building[test]).mean() > 0.98
    assert (predicted["floor"] == measured_campus.floor[test]).mean() > 0.85


def test_measured_official_sorensen_error_is_the_committed_one(measured_campus):
    train, test = (measured_campus[measured_campus.part == part] for part in ("train", "validation"))
    predicted = NearestFingerprints("sorensen", 7).fit(train).predict(test.rssi)
    assert metrics.euclidean_errors(test.position, predicted["position"]).mean() == pytest.approx(6.54, abs=0.005)
