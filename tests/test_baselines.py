"""What every comparator promises; kNN against a brute-force search, and against the literature on the measured set."""

import dataclasses
import runpy
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from lib import baselines, experiments, metrics, preprocess, splits
from lib.baselines import (
    BASELINES,
    METRICS,
    SCALES,
    SEARCHED,
    SEEDLESS,
    SILENT_LEVEL,
    Forest,
    GradientBoosting,
    NearestFingerprints,
    ValidatedNeighbours,
)
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


# === Every comparator ===


def fitted(name, some, seed=0, **setting):
    """Fitted on the simulated sets' first rows, validated on a few of the others."""
    return BASELINES[name](**setting).fit(some[:250], some[250:300], seed)


@pytest.fixture(scope="module", params=["campus", "city"])
def simulated(request):
    """Both simulated sets; indoors with labels that are not 0, 1, …"""
    some = request.getfixturevalue(request.param)
    if some.floor is None:
        return some
    return dataclasses.replace(some, floor=3 * some.floor - 2, building=10 * some.building + 7)


@pytest.fixture(scope="module")
def models(simulated):
    return {name: fitted(name, simulated) for name in BASELINES}


def asked(simulated):
    """Scans that were never seen, one that hears nothing and one that hears everything."""
    strange = np.full((2, simulated.rssi.shape[1]), np.nan, dtype=np.float32)
    strange[1] = -1.0
    return np.concatenate([simulated.rssi[300:400], strange])


@pytest.mark.parametrize("name", BASELINES)
def test_positions_are_finite_and_labels_those_of_the_radio_map(simulated, models, name):
    learnt, scans = simulated[:300], asked(simulated)
    predicted = models[name].predict(scans)
    fields = {field for field in ("building", "floor") if getattr(simulated, field) is not None}
    assert predicted.keys() == {"position"} | fields and models[name].n_train == len(learnt)
    assert predicted["position"].shape == (len(scans), 2) and np.isfinite(predicted["position"]).all()
    if name != "gradient_boosting":  # its trees add up: nothing keeps the sum within the radio map
        assert (predicted["position"] >= learnt.position.min(axis=0) - 1e-6).all()
        assert (predicted["position"] <= learnt.position.max(axis=0) + 1e-6).all()
    for field in fields:
        assert predicted[field].shape == (len(scans),)
        assert set(predicted[field]) <= set(getattr(learnt, field))


@pytest.mark.parametrize("name", BASELINES)
def test_same_seed_gives_the_same_predictions(simulated, models, name):
    scans = asked(simulated)
    first = models[name].predict(scans)
    for seed in (0, 1):
        again = fitted(name, simulated, seed).predict(scans)
        same = all(np.array_equal(first[field], again[field]) for field in first)
        assert same == (seed == 0 or name in SEEDLESS)


@pytest.mark.parametrize("name", BASELINES)
def test_learning_sees_only_training_and_validation_rows(simulated, models, name):
    """Rows beyond them may hold anything, and the sets that are given are left as they were."""
    elsewhere = dataclasses.replace(simulated, rssi=simulated.rssi.copy(), position=simulated.position.copy())
    elsewhere.rssi[300:], elsewhere.position[300:] = -50.0, 1e6
    before = elsewhere.rssi.copy()
    predicted = fitted(name, elsewhere).predict(asked(simulated))
    np.testing.assert_array_equal(predicted["position"], models[name].predict(asked(simulated))["position"])
    np.testing.assert_array_equal(elsewhere.rssi, before)


@pytest.mark.parametrize("name", BASELINES)
def test_comparators_locate_better_than_the_middle_of_the_radio_map(simulated, models, name):
    predicted = models[name].predict(simulated.rssi[300:400])["position"]
    middle = np.broadcast_to(simulated.position[:300].mean(axis=0), predicted.shape)
    ours, theirs = (metrics.euclidean_errors(simulated.position[300:400], one).mean() for one in (predicted, middle))
    assert ours < 0.8 * theirs


@pytest.mark.parametrize("name", BASELINES)
def test_scans_of_other_transmitters_are_named(simulated, models, name):
    columns = simulated.rssi.shape[1]
    for wrong in (simulated.rssi[:3, :-1], simulated.rssi[0]):
        with pytest.raises(ValueError, match=f"`rssi` must have {columns} columns. Received: shape"):
            models[name].predict(wrong)


def test_every_searched_setting_can_be_made_and_the_first_is_the_default():
    for name, settings in SEARCHED.items():
        assert len(settings) >= 2 and settings[0] == {}
        for setting in settings:
            BASELINES[name](**setting)


def test_scales_put_what_is_not_heard_below_everything_and_keep_the_order():
    rssi = np.float32([[np.nan, -104.0, -90.0, -50.0, 0.0]])
    for name, scale in SCALES.items():
        levels = scale(rssi, -105.0)[0]
        assert (np.diff(levels) > 0).all(), name
        assert name == "dbm" or (levels[0] == 0 and levels[-1] == pytest.approx(1, abs=1e-6)), name


@pytest.mark.parametrize("average", ["median", "mean"])
def test_forest_averages_the_positions_of_its_trees(campus, average):
    forest = fitted("random_forest", campus, trees=5, average=average)
    assert isinstance(forest, Forest)
    levels = SCALES[forest.scale](campus.rssi[300:310][:, campus.heard[:300].any(axis=0)], -105.0)
    of_trees = [tree.predict(levels.astype(np.float32)) for tree in forest._regressor.estimators_]
    expected = getattr(np, average)(of_trees, axis=0)
    np.testing.assert_allclose(forest.predict(campus.rssi[300:310])["position"], expected)


def test_gradient_boosting_keeps_quiet(campus, capfd, recwarn):
    """No warning that scans are arrays without names, and nothing from LightGBM itself."""
    fitted("gradient_boosting", campus, rounds=3, place_rounds=2).predict(campus.rssi[300:310])
    assert not recwarn.list and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("loss", "average"), [("l2", np.mean), ("l1", np.median)])
def test_the_loss_decides_which_average_of_the_positions_boosting_learns(campus, loss, average):
    """With one leaf a tree there is nothing but the average."""
    same = dataclasses.replace(campus, rssi=np.broadcast_to(campus.rssi[:1], campus.rssi.shape))
    predicted = fitted("gradient_boosting", same, loss=loss, rounds=1, place_rounds=1).predict(same.rssi[:1])
    np.testing.assert_allclose(predicted["position"][0], average(same.position[:300], axis=0), atol=0.1)


# === Nearest fingerprints ===


def test_weighted_position_and_labels_are_those_of_the_inverse_distances(radio_map, scans):
    model = NearestFingerprints("sorensen", 5, weighted=True).store(radio_map)
    predicted, (rows, far) = model.predict(scans.rssi), model.neighbours(scans.rssi)
    for number, weights in enumerate(1 / np.maximum(far, 1e-6)):
        expected = np.average(radio_map.position[rows[number]], axis=0, weights=weights)
        np.testing.assert_allclose(predicted["position"][number], expected)
        votes = np.bincount(radio_map.floor[rows[number]], weights=weights)
        assert votes[predicted["floor"][number]] == pytest.approx(votes.max())


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_are_those_of_a_brute_force_search(radio_map, scans, metric, k):
    all_distances = distances(metric, scans.rssi, radio_map.rssi)
    rows, far = NearestFingerprints(metric, k).store(radio_map).neighbours(scans.rssi)
    assert rows.shape == (len(scans), k)
    found = np.take_along_axis(all_distances, rows, axis=1)
    for nearest in (found, far):
        np.testing.assert_allclose(nearest, np.sort(all_distances, axis=1)[:, :k], rtol=1e-4)


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
    np.testing.assert_array_equal(NearestFingerprints("sorensen", k).store(drawn).neighbours(asked)[0], nearest)


def test_sorensen_neighbours_are_those_of_scikit_learn_but_for_the_equally_far(fingerprints):
    k, (asked, stored) = 7, np.split(np.random.default_rng(0).permutation(len(fingerprints)), [50])
    asked = asked[fingerprints.heard[asked].any(axis=1)]
    rows = NearestFingerprints("sorensen", k).store(fingerprints[stored]).neighbours(fingerprints.rssi[asked])[0]
    levels = powed(fingerprints.rssi, fingerprints.name)
    reference = NearestNeighbors(n_neighbors=k, metric="braycurtis", algorithm="brute").fit(levels[stored])
    theirs, their_rows = reference.kneighbors(levels[asked])
    for scan, ours, far, their in zip(levels[asked], rows, theirs, their_rows, strict=True):
        np.testing.assert_array_equal(cdist([scan], levels[stored[ours]], "braycurtis")[0], far)
        assert set(ours[far < far[-1]]) == set(their[far < far[-1]])


@pytest.mark.parametrize("metric", METRICS)
def test_position_is_the_mean_and_building_and_floor_the_majority_of_the_neighbours(radio_map, scans, metric):
    model = NearestFingerprints(metric, 5).store(radio_map)
    predicted, (rows, _) = model.predict(scans.rssi), model.neighbours(scans.rssi)
    np.testing.assert_allclose(predicted["position"], radio_map.position[rows].mean(axis=1))
    for field in ("building", "floor"):
        votes = np.apply_along_axis(np.bincount, 1, getattr(radio_map, field)[rows], minlength=5)
        chosen = np.take_along_axis(votes, predicted[field][:, None], axis=1)[:, 0]
        np.testing.assert_array_equal(chosen, votes.max(axis=1))


@pytest.mark.parametrize("metric", METRICS)
def test_a_stored_fingerprint_is_its_own_nearest_neighbour(radio_map, metric):
    predicted = NearestFingerprints(metric, 1).store(radio_map).predict(radio_map.rssi)
    np.testing.assert_array_equal(predicted["position"], radio_map.position)


def test_neighbours_outdoors_have_neither_building_nor_floor(city):
    predicted = NearestFingerprints("euclidean", 3).store(city[:200]).predict(city.rssi[200:220])
    assert predicted.keys() == {"position"} and predicted["position"].shape == (20, 2)


@pytest.mark.parametrize("metric", METRICS)
def test_scan_that_hears_nothing_gets_a_position(radio_map, metric):
    """Also where the radio map holds such scans: 0/0 is no distance."""
    silent = np.full((2, radio_map.rssi.shape[1]), np.nan, dtype=np.float32)
    with_silence = radio_map.rssi.copy()
    with_silence[:2] = silent
    for stored in (radio_map, dataclasses.replace(radio_map, rssi=with_silence)):
        position = NearestFingerprints(metric, 3).store(stored).predict(silent)["position"]
        assert np.isfinite(position).all()
        assert (position >= stored.position.min(axis=0)).all() and (position <= stored.position.max(axis=0)).all()


def test_silent_scan_is_nearest_to_those_that_hear_many_transmitters_hardly(radio_map):
    silent = np.full((1, radio_map.rssi.shape[1]), np.nan, dtype=np.float32)
    levels = powed(radio_map.rssi, radio_map.name)
    distance = cdist(np.full(silent.shape, SILENT_LEVEL), levels, "braycurtis")
    nearest = distance.argsort(axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(NearestFingerprints("sorensen", 5).store(radio_map).neighbours(silent)[0], nearest)
    assert levels[levels > 0].min() > SILENT_LEVEL and distance.min() > 0.9


@pytest.mark.parametrize("metric", METRICS)
def test_predicting_changes_neither_scans_nor_radio_map(radio_map, scans, metric):
    stored, asked = radio_map.rssi.copy(), scans.rssi.copy()
    model = NearestFingerprints(metric, 2).store(radio_map)
    first = model.predict(scans.rssi)["position"]
    np.testing.assert_array_equal(first, model.predict(scans.rssi)["position"])
    np.testing.assert_array_equal(radio_map.rssi, stored)
    np.testing.assert_array_equal(scans.rssi, asked)


# === Choice of metric and k ===


@pytest.mark.parametrize("weighted", [False, True])
def test_chosen_metric_and_k_have_the_lowest_error_of_the_candidates(radio_map, scans, weighted):
    ks = [1, 3, 4, 9, 30]
    model = ValidatedNeighbours(ks={radio_map.name: ks}, weighted=weighted).fit(radio_map, scans, seed=0)
    assert list(model.errors) == [(metric, k) for metric in METRICS for k in ks]
    for (metric, k), error in model.errors.items():
        candidate = NearestFingerprints(metric, k, weighted=weighted).store(radio_map)
        errors = metrics.euclidean_errors(scans.position, candidate.predict(scans.rssi)["position"])
        assert error == pytest.approx(errors.mean())
    assert model.errors[model.model.metric, model.model.k] == min(model.errors.values())


def test_where_one_k_is_published_nothing_is_chosen(campus, city):
    indoors, outdoors = (fitted("knn_euclidean", some) for some in (campus, city))
    assert not indoors.errors and indoors.model.k == 1 and len(outdoors.errors) > 1


def test_more_candidates_than_fingerprints_are_left_out(radio_map, scans):
    model = ValidatedNeighbours(metrics=["sorensen"]).fit(radio_map[:4], scans, seed=0)
    assert list(model.errors) == [("sorensen", 1), ("sorensen", 3)]
    with pytest.raises(ValueError, match=r"`ks` must have a k between 1 and 4. Received: \[9, 0\]"):
        ValidatedNeighbours(ks={radio_map.name: [9, 0]}).fit(radio_map[:4], scans, seed=0)


# === Arguments ===


@pytest.mark.parametrize("metric", ["manhattan", "Euclidean", ""])
def test_unknown_metric_is_named_with_the_known_ones(metric):
    with pytest.raises(ValueError, match=f"`metric` must be one of euclidean, sorensen. Received: {metric}$"):
        NearestFingerprints(metric, 1)


@pytest.mark.parametrize("k", [0, -3])
def test_number_of_neighbours_that_is_not_positive_is_named(k):
    with pytest.raises(ValueError, match=f"`k` must be positive. Received: k={k}"):
        NearestFingerprints("euclidean", k)


def test_unknown_scale_and_average_are_named_with_the_known_ones():
    for wrong in (lambda: NearestFingerprints("euclidean", 1, scale="log"), lambda: GradientBoosting(scale="log")):
        with pytest.raises(ValueError, match=r"`scale` must be one of dbm, powed, .*Received: log"):
            wrong()
    with pytest.raises(ValueError, match=r"`average` must be one of median, mean\. Received: mode"):
        BASELINES["extra_trees"](average="mode")


def test_sorensen_does_not_take_dbm():
    with pytest.raises(ValueError, match="`scale` must have 0 for what is not heard"):
        NearestFingerprints("sorensen", 1, scale="dbm")


@pytest.mark.parametrize("metric", METRICS)
def test_more_neighbours_than_fingerprints_are_refused(radio_map, metric):
    with pytest.raises(ValueError, match="`k` must be at most 10, the radio map's rows"):
        NearestFingerprints(metric, 11).store(radio_map[:10])


@pytest.mark.parametrize("metric", METRICS)
def test_scans_of_other_transmitters_are_refused(radio_map, scans, metric):
    model = NearestFingerprints(metric, 1).store(radio_map)
    for wrong in (scans.rssi[:, :-1], scans.rssi[0]):
        with pytest.raises(ValueError, match="`rssi` must have"):
            model.predict(wrong)


# === Without the OpenMP library ===


@pytest.mark.parametrize("reason", [OSError("libgomp.so.1: cannot open shared object file"), ImportError("no module")])
def test_only_gradient_boosting_needs_lightgbm_and_says_what_to_install(monkeypatch, reason):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == "lightgbm":
                raise reason

    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    for module in (baselines, experiments):
        runpy.run_path(module.__file__)  # imports all that it needs
    with pytest.raises(ImportError, match=f"{reason}: .*apt-get install libgomp1.*brew install libomp"):
        BASELINES["gradient_boosting"]()


# === The literature ===


def test_measured_official_1nn_error_is_the_known_one(measured_campus):
    """Euclidean 1-NN on the publisher's split: about 9.6 m over all 1,111 rows, whatever the treatment of ties."""
    test = splits.split(measured_campus, "official").test
    train = measured_campus[measured_campus.part == "train"]
    predicted = NearestFingerprints("euclidean", 1).store(train).predict(measured_campus.rssi[test])
    error = metrics.euclidean_errors(measured_campus.position[test], predicted["position"])
    assert 9.4 < error.mean() < 9.9
    assert (predicted["building"] == measured_campus.building[test]).mean() > 0.98
    assert (predicted["floor"] == measured_campus.floor[test]).mean() > 0.85


def test_measured_official_sorensen_error_is_the_committed_one(measured_campus):
    train, test = (measured_campus[measured_campus.part == part] for part in ("train", "validation"))
    predicted = NearestFingerprints("sorensen", 7).store(train).predict(test.rssi)
    assert metrics.euclidean_errors(test.position, predicted["position"]).mean() == pytest.approx(6.54, abs=0.005)
