"""k nearest neighbours against a brute-force search, and against the literature on the measured set."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lib import metrics, splits
from lib.baselines import METRICS, NearestFingerprints, choose_k


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


def test_more_neighbours_than_fingerprints_are_refused(radio_map, scans):
    with pytest.raises(ValueError):
        NearestFingerprints("euclidean", 11).fit(radio_map[:10]).predict(scans.rssi)


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
