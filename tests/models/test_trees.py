"""Forests and gradient boosting: what they promise to everyone, and how they average."""

import dataclasses
import runpy
import sys

import numpy as np
import pytest

from lib import metrics
from lib.models import trees
from lib.models.neighbours import SCALES
from lib.models.trees import Forest, GradientBoosting

ESTIMATORS = {  # small ones
    "extra_trees": lambda **settings: Forest(kind="extra_trees", **{"trees": 10} | settings),
    "random_forest": lambda **settings: Forest(kind="random_forest", **{"trees": 10} | settings),
    "gradient_boosting": lambda **settings: GradientBoosting(**{"rounds": 30, "place_rounds": 5} | settings),
}


@pytest.fixture(scope="module")
def fitted(simulated):
    return {name: learnt(make(), simulated) for name, make in ESTIMATORS.items()}


def learnt(estimator, rows, seed=0):
    """Fitted on the first rows of a set, and on those that validate."""
    return estimator.fit([rows[:250]], [rows[250:300]], seed=seed)


def equal(located, expected):
    if located.arrays().keys() != expected.arrays().keys():
        return False
    return all(np.array_equal(getattr(located, name), values) for name, values in expected.arrays().items())


# === All of them ===


@pytest.mark.parametrize("name", ESTIMATORS)
def test_positions_are_finite_and_labels_those_of_the_training_rows(simulated, fitted, name, strange):
    rows, scans = simulated[:300], strange
    located = fitted[name].predict(scans)
    fields = {field for field in ("building", "floor") if getattr(simulated, field) is not None}
    assert located.arrays().keys() == {"position"} | fields and fitted[name].n_train == [len(rows)]
    assert located.position.shape == (len(scans), 2) and np.isfinite(located.position).all()
    if name != "gradient_boosting":  # its trees add up: nothing keeps the sum within the training positions
        assert (located.position >= rows.position.min(axis=0) - 1e-6).all()
        assert (located.position <= rows.position.max(axis=0) + 1e-6).all()
    for field in fields:
        assert set(getattr(located, field)) <= set(getattr(rows, field))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_same_seed_gives_the_same_predictions_and_another_seed_others(simulated, fitted, name, strange):
    scans = strange
    first = fitted[name].predict(scans)
    assert equal(learnt(ESTIMATORS[name](), simulated, seed=0).predict(scans), first)
    assert not equal(learnt(ESTIMATORS[name](), simulated, seed=1).predict(scans), first)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_learning_sees_only_training_and_validation_rows(simulated, fitted, name, strange):
    """Rows beyond them may hold anything, and the sets are left as they were."""
    elsewhere = dataclasses.replace(simulated, rssi=simulated.rssi.copy(), position=simulated.position.copy())
    elsewhere.rssi[300:] = -50.0
    elsewhere.position[300:] = 1e6
    before = elsewhere.rssi.copy()
    scans = strange
    assert equal(learnt(ESTIMATORS[name](), elsewhere).predict(scans), fitted[name].predict(scans))
    np.testing.assert_array_equal(elsewhere.rssi, before)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_trees_locate_better_than_the_middle_of_the_training_rows(simulated, fitted, name):
    asked = simulated[300:400]
    errors = metrics.euclidean_errors(asked.position, fitted[name].predict(asked.scans).position)
    middle = np.broadcast_to(simulated.position[:300].mean(axis=0), asked.position.shape)
    assert errors.mean() < 0.8 * metrics.euclidean_errors(asked.position, middle).mean()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_columns_are_matched_by_name(simulated, fitted, name, assert_columns_are_matched_by_name, strange):
    scans, model = strange, fitted[name]
    assert_columns_are_matched_by_name(model, scans)
    assert model.transmitters == simulated.transmitters


def test_validation_rows_are_matched_by_name_as_well(simulated, fitted, strange):
    rows = simulated[250:300]
    order = np.random.default_rng(0).permutation(len(rows.transmitters))
    names = tuple(np.array(rows.transmitters)[order].tolist())
    rows = dataclasses.replace(rows, rssi=rows.rssi[:, order], transmitters=names)
    model = ESTIMATORS["extra_trees"]().fit([simulated[:250]], [rows], seed=0)
    assert equal(model.predict(strange), fitted["extra_trees"].predict(strange))


def test_without_validation_rows_they_learn_from_the_training_rows_alone(simulated, fitted, strange):
    rows = simulated[:300]
    model = ESTIMATORS["extra_trees"]().fit([rows], [rows[:0]], seed=0)
    assert model.n_train == [300]
    assert equal(model.predict(strange), fitted["extra_trees"].predict(strange))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_several_environments_are_refused(campus, city, name):
    with pytest.raises(ValueError, match=f"learns one environment. Received: {campus.name}, {city.name}"):
        ESTIMATORS[name]().fit([campus[:50], city[:50]], [campus[50:60], city[50:60]], seed=0)


def test_unknown_kind_scale_and_average_are_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"`kind` must be one of extra_trees, random_forest\. Received: oak"):
        Forest(kind="oak")
    with pytest.raises(ValueError, match=r"`average` must be one of median, mean\. Received: mode"):
        Forest(kind="extra_trees", average="mode")
    for name in ESTIMATORS:
        with pytest.raises(ValueError, match=r"`scale` must be one of dbm, powed, .*Received: log"):
            ESTIMATORS[name](scale="log")


# === Forests ===


@pytest.mark.parametrize("average", ["median", "mean"])
def test_forest_averages_the_positions_of_its_trees(campus, average):
    forest = learnt(Forest(kind="random_forest", trees=5, average=average), campus)
    asked = campus[300:310]
    levels = SCALES[forest.scale](asked.rssi[:, campus.heard[:300].any(axis=0)], -105.0)
    of_trees = [tree.predict(levels.astype(np.float32)) for tree in forest._regressor.estimators_]
    assert len(of_trees) == 5
    np.testing.assert_allclose(forest.predict(asked.scans).position, getattr(np, average)(of_trees, axis=0))


# === Gradient boosting ===


def test_gradient_boosting_keeps_quiet(campus, capfd, recwarn):
    """No warning that scans are arrays without names, and nothing from LightGBM itself."""
    learnt(GradientBoosting(rounds=3, place_rounds=2), campus).predict(campus[300:310].scans)
    assert not recwarn.list and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("loss", "average"), [("l2", np.mean), ("l1", np.median)])
def test_the_loss_decides_which_average_of_the_positions_boosting_learns(campus, loss, average):
    """With one leaf a tree there is nothing but the average."""
    same = dataclasses.replace(campus, rssi=np.broadcast_to(campus.rssi[:1], campus.rssi.shape))
    model = learnt(GradientBoosting(loss=loss, rounds=1, place_rounds=1), same)
    position = model.predict(same[:1].scans).position
    np.testing.assert_allclose(position[0], average(same.position[:300], axis=0), atol=0.1)


@pytest.mark.parametrize("reason", [OSError("libgomp.so.1: cannot open shared object file"), ImportError("no module")])
def test_only_gradient_boosting_needs_lightgbm_and_says_what_to_install(monkeypatch, reason):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == "lightgbm":
                raise reason

    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    runpy.run_path(trees.__file__)  # imports all that it needs
    Forest(kind="extra_trees")
    with pytest.raises(ImportError, match=f"{reason}: .*apt-get install libgomp1.*brew install libomp"):
        GradientBoosting()
    assert list(trees.missing()) == ["gradient_boosting"]


def test_nothing_is_missing_where_lightgbm_is_installed():
    pytest.importorskip("lightgbm", exc_type=(ImportError, OSError))
    assert trees.missing() == {}
