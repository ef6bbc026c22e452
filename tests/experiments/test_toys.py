"""A further environment, protocol and estimator are a few lines each, and everything else works with them.

Nothing of lib knows the toys of this file: they stand in its three tables, and run through protocols, the store of
runs, result rows and tables like all others.
"""

import inspect

import numpy as np
import pandas as pd
import pytest

from lib.data import datasets, protocols
from lib.data.fingerprints import FingerprintSet, Release
from lib.data.frames import Frame
from lib.data.protocols import Parts, Protocol
from lib.experiments import runs, settings, store
from lib.models import registry
from lib.models.estimator import Estimator, Located, only_environment
from lib.report import results


def load_yard() -> FingerprintSet:
    """A square of 100 m with a mast in each corner; a receiver hears those within 90 m."""
    rng = np.random.default_rng(0)
    position = rng.uniform(0, 100, (240, 2))
    masts = np.array([[0, 0], [0, 100], [100, 0], [100, 100]])
    distance = np.linalg.norm(position[:, None] - masts, axis=2)
    rssi = np.where(distance < 90, -30 - distance, np.nan).astype(np.float32)
    release = Release("yard.csv", len(rssi), None)
    return FingerprintSet(rssi, position, Frame(None), ("SW", "NW", "SE", "NE"), "yard", release)


def thirds(fingerprints: FingerprintSet) -> Parts:
    """Every third row validates, and every third tests."""
    train, validation, test = (fingerprints[start::3] for start in range(3))
    return Parts("thirds", train, validation, test, fingerprints.transmitters)


class LoudestTransmitter(Estimator):
    """Answers the centroid of the training rows that hear the same transmitter loudest."""

    def fit(self, train, validation, *, seed):
        rows, _ = only_environment(train, validation)
        loudest = np.nan_to_num(rows.rssi, nan=-200).argmax(axis=1)
        self.n_train, self.transmitters = [len(rows)], rows.transmitters
        self.centroids = np.tile(rows.position.mean(axis=0), (len(rows.transmitters), 1))
        for number in np.unique(loudest):
            self.centroids[number] = rows.position[loudest == number].mean(axis=0)
        return self

    def predict(self, scans):
        rssi = scans.of(self.transmitters)
        return Located(self.centroids[np.nan_to_num(rssi, nan=-200).argmax(axis=1)])


@pytest.fixture
def toys(monkeypatch):
    """The three entries that a further environment, protocol and model take."""
    monkeypatch.delenv("DATA", raising=False)
    monkeypatch.setenv("PROFILE", "smoke")
    monkeypatch.setitem(datasets.LOADERS, "yard", load_yard)
    monkeypatch.setitem(protocols.PROTOCOLS, "thirds", Protocol("yard", thirds))
    monkeypatch.setitem(registry.REGISTRY, "loudest", registry.Entry(LoudestTransmitter, random=False))
    protocols.load.cache_clear()
    yield
    protocols.load.cache_clear()
    store.CODE.pop(__name__, None)


@pytest.mark.parametrize("toy", [load_yard, thirds, LoudestTransmitter])
def test_a_toy_is_at_most_twenty_lines(toy):
    assert len(inspect.getsource(toy).splitlines()) <= 20


def test_a_further_model_runs_in_a_further_environment_and_is_recalled(toys, workspace, monkeypatch):
    (experiment,) = runs.experiments(["loudest"], ["thirds"], [0, 1])
    assert experiment.name == "loudest-thirds"
    rows = runs.result_rows(experiment, workspace)
    (row,) = rows
    assert set(row) == {*results.COLUMNS, "share"}
    expected = {"environment": "yard", "protocol": "thirds", "model": "loudest", "seed": None, "epochs": None}
    assert expected.items() <= row.items()
    assert (row["n_train"], row["n_test"], row["floor_hit"]) == (80, 80, None)
    assert 15 < row["mean_m"] < 30  # of a square of 50 m: 0.38 of its side, about 19 m
    monkeypatch.setattr(runs.registry, "make", lambda *_, **__: pytest.fail("trained again"))
    assert runs.result_rows(experiment, workspace) == rows


def test_its_answers_are_those_of_the_estimator_on_its_own(toys, workspace):
    parts = thirds(load_yard())
    estimator = LoudestTransmitter().fit([parts.train], [parts.validation], seed=0)
    expected = estimator.predict(parts.test.scans).position
    (located,) = runs.run(runs.experiment("loudest", ["thirds"], None), workspace).located
    np.testing.assert_array_equal(located.position, expected)
    (row,) = runs.result_rows(runs.experiment("loudest", ["thirds"], None), workspace)
    errors = np.linalg.norm(expected - parts.test.position, axis=1)
    np.testing.assert_allclose(results.read_errors(workspace, row), errors)


@pytest.mark.parametrize("model", ["knn_sorensen", "extra_trees", "mlp_plain", "encoder_scratch", "unified"])
def test_models_of_the_registry_run_in_a_further_environment(toys, workspace, untrained, model):
    (row,) = runs.result_rows(runs.experiment(model, ["thirds"], 0), workspace)
    assert (row["environment"], row["protocol"], row["model"]) == ("yard", "thirds", model)
    assert row["n_test"] == 80 and np.isfinite(row["mean_m"])
    if model == "knn_sorensen":
        assert row["mean_m"] < 10


def test_a_further_model_runs_in_the_environments_that_there_are(toys, workspace, monkeypatch, campus, city):
    sets = {fingerprints.name: fingerprints for fingerprints in (campus, city)}
    monkeypatch.setattr(datasets, "load", sets.__getitem__)
    rows = [
        row
        for experiment in runs.experiments(["loudest"], ["official", "random"], [0])
        for row in runs.result_rows(experiment, workspace)
    ]
    assert [row["environment"] for row in rows] == ["ujiindoorloc", "lorawan_antwerp"]
    for row in rows:
        parts = protocols.load(row["protocol"], settings.rows())
        middle = np.tile(parts.train.position.mean(axis=0), (len(parts.test), 1))
        assert row["mean_m"] < parts.test.frame.errors(parts.test.position, middle).mean()


def test_their_rows_are_shown_in_tables_like_others(toys, workspace):
    chosen = runs.experiments(["loudest", "knn_sorensen"], ["thirds"], [0])
    rows = [row for experiment in chosen for row in runs.result_rows(experiment, workspace)]
    table = results.write(rows, workspace.results / "toys.csv", [*results.COLUMNS, "share"])
    summary = results.summarise(table)
    assert summary["model"].tolist() == ["loudest", "knn_sorensen"]
    assert summary["mean_m"].tolist() == [f"{row['mean_m']:.2f}" for row in rows]
    results.write_table(summary, workspace.tables, "toys", "Mean error (m) on test rows.", simulated=True)
    text = (workspace.tables / "toys.md").read_text()
    assert "yard.csv (240 rows)" in text and "SIMULATED DATA" in text
    for row in rows:
        assert f"| {row['model']}" in text and f"{row['mean_m']:.2f}" in text
    shown = results.benchmark_tables(table, {"loudest": "loudest transmitter", "knn_sorensen": "kNN, Sørensen"}, {})
    assert list(shown) == [("yard", "thirds")]
    assert shown["yard", "thirds"]["model"].tolist() == ["loudest transmitter", "kNN, Sørensen"]
    assert pd.read_csv(workspace.tables / "toys.csv")["data"].unique().tolist() == ["simulated"]
