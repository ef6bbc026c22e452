"""What each cell of the benchmark trains on, starts from and leaves; each of its controls takes away what it says."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest

from lib import baseline_networks, experiments, models, preprocess, results, splits, sweep, training

# === Cells ===


def test_cells_are_every_combination():
    every = experiments.cells(sweep.MODELS, experiments.ENVIRONMENTS, [0, 1, 2], sweep.SHARES)
    assert len(every) == len({cell.name for cell in every}) == (4 + 4 + 2) * 3 * 7
    assert {cell.protocols for cell in every if cell.model == "umlp"} == {("pooled", "random"), ("official", "spatial")}
    assert {cell.protocols for cell in every if cell.model != "umlp"} == {(name,) for name in experiments.ENVIRONMENTS}
    assert len(experiments.cells(["umlp"], ["pooled", "spatial"], [0], [1.0])) == 2


@pytest.mark.parametrize(
    ("protocol", "source"),
    [("pooled", "random"), ("random", "pooled"), ("official", "spatial"), ("spatial", "official")],
)
def test_source_is_the_other_environment_of_the_pair_with_all_rows(protocol, source):
    (cell,) = experiments.cells(["encoder_tl"], [protocol], [2], [0.05])
    assert cell.source == experiments.Cell("encoder_scratch", (source,), 2, 1.0)
    assert cell.source.source is None


def test_a_source_of_the_same_environment_has_another_seed():
    (cell,) = experiments.cells(["encoder_tl_own"], ["random"], [2])
    assert cell.source.protocols == ("random",) and cell.source.model == "encoder_scratch"
    assert cell.source.seed not in (None, 2)


def test_what_is_not_random_has_one_cell_and_what_needs_floors_has_none_outdoors():
    chosen = experiments.cells(["knn_sorensen", "hadnn"], experiments.ENVIRONMENTS, [0, 1])
    assert [cell.seed for cell in chosen if cell.model == "knn_sorensen"] == [None] * 4
    assert [cell.protocols for cell in chosen if cell.model == "hadnn"] == [("pooled",)] * 2 + [("official",)] * 2


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01])
def test_share_must_be_a_share(share):
    with pytest.raises(ValueError, match=f"`share` must be above 0 and at most 1. Received: {share}"):
        experiments.Cell("umlp", ("pooled", "random"), 0, share)


# === Rows ===


@pytest.mark.parametrize("seed", [0, 1])
def test_smaller_shares_are_parts_of_larger_ones(seed):
    groups = np.arange(1000) % 3
    chosen = [experiments.subset(groups, share, seed) for share in sweep.SHARES]
    for smaller, larger in itertools.pairwise(chosen):
        assert set(smaller) < set(larger)
        assert (np.diff(larger) > 0).all()
    for share, rows in zip(sweep.SHARES, chosen, strict=True):
        np.testing.assert_allclose(np.bincount(groups[rows]), share * 1000 / 3, atol=0.7)
    np.testing.assert_array_equal(chosen[-1], np.arange(1000))


def test_another_seed_chooses_other_rows():
    assert set(experiments.subset(np.zeros(1000), 0.1, 0)) != set(experiments.subset(np.zeros(1000), 0.1, 1))


def test_a_share_of_few_rows_is_at_least_one():
    assert len(experiments.subset(np.zeros(10), 0.01, 0)) == 1


# === Settings ===


def test_settings_are_those_of_the_notebooks(monkeypatch):
    monkeypatch.setenv("PROFILE", "full")
    full = experiments.settings()
    assert set(full) == {*splits.PROTOCOLS, "umlp"}
    assert {how["config"] for how in full.values()} == {models.DEFAULT}
    assert (
        full["lorawan_antwerp"]["batch_size"]
        == experiments.parameters("03_transfer_learning")["BATCH_SIZES"]["lorawan_antwerp"]
    )
    monkeypatch.setenv("PROFILE", "smoke")
    smoke = experiments.settings()
    assert {name: how["epochs"] for name, how in smoke.items()} == dict.fromkeys(smoke, 3)
    assert {name: how | {"epochs": 3} for name, how in full.items()} == smoke


# === One cell ===


@pytest.fixture(scope="module")
def prepared(campus, city, tmp_path_factory):
    """A workspace with small processed sets of one pair of protocols."""
    place = experiments.paths.Workspace(*(tmp_path_factory.mktemp(name) for name in ("outputs", "processed")))
    for data, protocol in ((campus, "pooled"), (city, "random")):
        processed = preprocess.process(data, protocol, np.arange(len(data)), (0.0, 1.0))
        processed.save(place.processed / f"{data.name}-{protocol}.npz")
    return place


@pytest.fixture
def how(monkeypatch):
    monkeypatch.setenv("PROFILE", "smoke")
    small = {"comparators": experiments.parameters("05_benchmark")["SETTINGS"]}
    return experiments.settings() | small | {"constant": {"epochs": 5, "decay": False}}


@pytest.fixture
def simulated(monkeypatch, campus, city):
    """What the comparators take their raw fingerprints from."""
    monkeypatch.setattr(experiments, "_fingerprints", {data.name: data for data in (campus, city)}.__getitem__)


@pytest.mark.parametrize("what", ["labels", "scans"])
def test_spoilt_rows_keep_their_values_and_lose_what_they_say(prepared, what):
    data = experiments.processed("pooled", prepared)
    spoilt, rows = experiments.spoil(data, what, seed=0), data.split.train
    np.testing.assert_array_equal(np.sort(spoilt.position[rows], axis=0), np.sort(data.position[rows], axis=0))
    assert (spoilt.position[rows] != data.position[rows]).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(np.sort(spoilt.x[rows], axis=0), np.sort(data.x[rows], axis=0))
    assert (spoilt.x[rows] == data.x[rows]).all() == (what == "labels")
    others = np.setdiff1d(np.arange(len(data.x)), rows)
    np.testing.assert_array_equal(spoilt.x[others], data.x[others])
    np.testing.assert_array_equal(spoilt.position[others], data.position[others])


def test_controls_start_from_what_they_say(prepared, how, monkeypatch):
    """The base model before any training, and how long it is trained; the networks have the fewest layers."""
    small = {"encoder": {"hidden": (), "latent": 8}, "base_model": {"hidden": (), "intermediate": 8}}
    monkeypatch.setitem(models.CONFIGS, models.DEFAULT, small | {"predictive_head": {"hidden": ()}})
    started, epochs = {}, {}

    def fit(model, train, validation, **settings):
        name = settings["label"].split("-")[2]
        name += "-own" * settings["label"].endswith(f"s{experiments.ANOTHER_SEED}")
        started[name] = [weight.copy() for weight in model.get_layer("base_model").get_weights()]
        epochs[name] = settings["epochs"]
        model.set_weights([weight + 0.25 for weight in model.get_weights()])
        trainable[name] = bool(model.get_layer("base_model").trainable_weights)
        return pd.DataFrame([{"epoch": 1, "rmse": 1.0}])

    trainable = {}
    monkeypatch.setattr(training, "fit", fit)
    runs = {}
    for model in experiments.LOCALIZERS:
        (cell,) = experiments.cells([model], ["pooled"], [0])
        runs[model] = experiments.train(cell, how, prepared)[0]
    fresh = started["encoder_scratch"]
    for name, kind in experiments.LOCALIZERS.items():
        same = all(np.array_equal(one, other) for one, other in zip(started[name], fresh, strict=True))
        assert same == (kind.source is None), name
        assert trainable[name] == (not kind.frozen), name
    batches = {
        data.environment: -(-len(data.split.train) // how[data.environment]["batch_size"])
        for data in (experiments.processed(protocol, prepared) for protocol in ("pooled", "random"))
    }
    more = 3 * batches["lorawan_antwerp"] / batches["ujiindoorloc"]
    assert epochs["encoder_scratch_constant"] == epochs["encoder_tl_constant"] == 5
    assert epochs["encoder_scratch_longer"] == 3 + round(more) > epochs["encoder_scratch"] == 3


@pytest.mark.parametrize("model", experiments.COMPARATORS)
def test_every_comparator_gives_rows_and_is_recalled(prepared, how, simulated, monkeypatch, request, model):
    if model in baseline_networks.NETWORKS and model != "mlp_plain":  # one is trained, which takes seconds
        request.getfixturevalue("untrained")
    (cell, *_) = experiments.cells([model], ["pooled"], [0])
    (row,) = experiments.result_rows(cell, how, prepared)
    assert {"environment": "ujiindoorloc", "protocol": "pooled", "model": model}.items() <= row.items()
    assert set(results.COLUMNS) <= set(row)
    assert 0 < row["mean_m"] < 300 and 0 < row["floor_hit"] <= 1 if row["floor_hit"] is not None else True
    monkeypatch.setitem(experiments.COMPARATORS, model, lambda **_: pytest.fail("trained again"))
    (again,) = experiments.result_rows(cell, how, prepared)
    assert again == row


def test_a_comparator_that_learnt_from_other_rows_is_trained_anew(prepared, how, simulated, monkeypatch, campus):
    cell = experiments.Cell("knn_sorensen", ("pooled",), None)
    experiments.result_rows(cell, how, prepared)
    changed = dataclasses.replace(campus, position=campus.position + 1.0)
    monkeypatch.setattr(experiments, "_fingerprints", {"ujiindoorloc": changed}.__getitem__)
    called = []
    monkeypatch.setitem(experiments.COMPARATORS, "knn_sorensen", lambda: called.append(1) or pytest.skip.Exception)
    with pytest.raises((AttributeError, TypeError)):
        experiments.result_rows(cell, how, prepared)
    assert called


TINY = {"epochs": 1, "network": {"hidden": (16,)}, "grids": {"random": {"cell": 400.0}}}


def test_the_unified_network_tests_on_test_rows_and_validates_on_rows_it_did_not_learn(prepared, simulated, quick_fit):
    sets = [experiments.processed(protocol, prepared) for protocol in ("pooled", "random")]
    for validates, part in ((False, "test"), (True, "validation")):
        cell = experiments.Cell("unified", ("pooled", "random"), 0, validates=validates)
        rows = experiments.result_rows(cell, {"unified": TINY}, prepared)
        for row, data in zip(rows, sets, strict=True):
            learnt = len(data.split.train) + (0 if validates else len(data.split.validation))
            assert (row["n_train"], row["n_test"]) == (learnt, len(getattr(data.split, part)))
            predicted = results.read_errors(prepared, row, "row")
            np.testing.assert_array_equal(predicted, data.rows[getattr(data.split, part)])
            assert 0 <= row["environment_hit"] <= 1
        assert rows[0]["floor_hit"] is not None and rows[1]["floor_hit"] is None


@pytest.mark.parametrize(("model", "how"), [("umlp", {"validates": True}), ("unified", {"share": 0.1})])
def test_what_a_model_does_not_know_is_refused(model, how):
    with pytest.raises(ValueError, match="unified networks"):
        experiments.Cell(model, ("pooled", "random"), 0, **how)
