"""What each experiment learns from, starts from and leaves; each of the controls takes away what it says."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest

from lib import paths
from lib.data import protocols
from lib.data.fingerprints import Scans, in_common
from lib.experiments import runs, settings, store, sweep
from lib.experiments.runs import Experiment
from lib.models import paper, registry, training
from lib.models.estimator import Estimator, Located
from lib.report import results

PAPERS = [name for name, entry in registry.REGISTRY.items() if entry.of_the_paper and not entry.together]
TOGETHER = [name for name, entry in registry.REGISTRY.items() if entry.together]

# === Which there are ===


def test_experiments_are_every_combination():
    every = runs.experiments(sweep.MODELS, sweep.PROTOCOLS, [0, 1, 2], sweep.SHARES)
    assert len(every) == len({experiment.name for experiment in every}) == (4 + 4 + 2) * 3 * 7
    groups = {
        model: {experiment.protocols for experiment in every if experiment.model == model} for model in sweep.MODELS
    }
    assert groups["umlp"] == {("pooled", "random"), ("official", "spatial")}
    assert groups["encoder_tl"] == groups["encoder_scratch"] == {(protocol,) for protocol in sweep.PROTOCOLS}
    assert len(runs.experiments(["umlp"], ["pooled", "spatial"], [0], [1.0])) == 2
    assert [experiment.protocols for experiment in runs.experiments(["umlp"], ["random"], [0])] == [
        ("pooled", "random")
    ]


def test_names_of_folders_tell_everything_apart():
    experiments = [
        runs.experiment("encoder_tl", ["pooled"], 0),
        runs.experiment("encoder_tl", ["pooled"], 0, label="step"),
        runs.experiment("encoder_tl", ["pooled"], 0, part="validation"),
        runs.experiment("encoder_tl", ["pooled"], 0, share=0.05),
        runs.experiment("encoder_tl", ["pooled"], None),
        runs.experiment("umlp", ["pooled", "random"], 0),
    ]
    assert [experiment.name for experiment in experiments] == [
        "encoder_tl-pooled-s0",
        "step-pooled-s0",
        "encoder_tl-pooled-validation-s0",
        "encoder_tl-pooled-0.05-s0",
        "encoder_tl-pooled",
        "umlp-pooled-random-s0",
    ]


@pytest.mark.parametrize(
    ("protocol", "source"),
    [("pooled", "random"), ("random", "pooled"), ("official", "spatial"), ("spatial", "official")],
)
def test_the_source_is_the_other_environment_of_the_pair_with_all_rows(protocol, source):
    (experiment,) = runs.experiments(["encoder_tl"], [protocol], [2], [0.05])
    assert experiment.source == runs.experiment("encoder_scratch", (source,), 2, 1.0)
    assert experiment.source.share == 1.0
    assert experiment.source.source is None


def test_a_source_of_the_same_environment_has_another_seed():
    (experiment,) = runs.experiments(["encoder_tl_own"], ["random"], [2])
    assert experiment.source.protocols == ("random",) and experiment.source.model == "encoder_scratch"
    assert experiment.source.seed not in (None, 2)


def test_a_source_of_many_environments_has_all_unrelated_ones_at_hand(environments):
    (experiment,) = runs.experiments(["encoder_tl_many"], ["official"], [2], [0.05])
    assert experiment.source == runs.experiment("source_many", protocols.unrelated("official"), 2)
    assert experiment.source.protocols == ("random",)


def test_a_source_has_as_many_rows_of_its_environment():
    assert runs.experiment("encoder_tl", ["pooled"], 0, rows=70).source.rows == 70


def test_what_is_not_random_has_one_run_and_what_needs_floors_has_none_outdoors(environments):
    chosen = runs.experiments(["knn_sorensen", "hadnn"], sweep.PROTOCOLS, [0, 1])
    assert [experiment.seed for experiment in chosen if experiment.model == "knn_sorensen"] == [None] * 4
    indoors = [experiment.protocols for experiment in chosen if experiment.model == "hadnn"]
    assert indoors == [("pooled",)] * 2 + [("official",)] * 2


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01])
def test_share_must_be_a_share(share):
    with pytest.raises(ValueError, match=f"`share` must be above 0 and at most 1. Received: {share}"):
        Experiment("umlp", ("pooled", "random"), 0, share)


def test_what_cannot_be_run_is_refused():
    with pytest.raises(ValueError, match=r"knn_sorensen learns one environment. Received: pooled, random"):
        Experiment("knn_sorensen", ("pooled", "random"), 0)
    with pytest.raises(ValueError, match=r"`model` must be one of .* Received: oracle"):
        runs.experiment("oracle", ["pooled"], 0)
    with pytest.raises(ValueError, match=r"`protocol` must be one of .* Received: nowhere"):
        runs.experiment("encoder_tl", ["nowhere"], 0)
    with pytest.raises(ValueError, match=r"`part` must be one of test, validation. Received: train"):
        Experiment("knn_sorensen", ("pooled",), None, part="train")
    with pytest.raises(ValueError, match=r"encoder_tl: expected a source"):
        Experiment("encoder_tl", ("pooled",), 0)


def test_an_epoch_of_a_network_of_the_paper_passes_more_often_over_fewer_rows():
    passes = {
        share: runs.experiment("umlp", ["pooled", "random"], 0, share).settings.get("passes") for share in sweep.SHARES
    }
    assert passes == {0.01: 32, 0.02: 19, 0.05: 9, 0.1: 6, 0.25: 3, 0.5: 2, 1.0: None}
    assert "passes" not in runs.experiment("mlp_plain", ["pooled"], 0, 0.1).settings


def test_settings_of_an_experiment_take_the_place_of_the_profiles():
    experiment = runs.experiment("encoder_scratch", ["random"], 0, settings={"epochs": 7})
    assert experiment.settings == settings.of("encoder", ["random"]) | {"epochs": 7}


# === Rows ===


@pytest.mark.parametrize("seed", [0, 1])
def test_smaller_shares_are_parts_of_larger_ones(seed):
    chosen = [runs.subset(1000, share, seed) for share in sweep.SHARES]
    for smaller, larger in itertools.pairwise(chosen):
        assert set(smaller) < set(larger)
        assert (np.diff(larger) > 0).all()
    assert [len(rows) for rows in chosen] == [round(1000 * share) for share in sweep.SHARES]
    np.testing.assert_array_equal(chosen[-1], np.arange(1000))


def test_another_seed_chooses_other_rows():
    assert set(runs.subset(1000, 0.1, 0)) != set(runs.subset(1000, 0.1, 1))


def test_a_share_of_few_rows_is_at_least_one():
    assert len(runs.subset(10, 0.01, 0)) == 1


# === What an estimator is given ===


class Spy(Estimator):
    """Keeps what it was given, and says that every row is at (0, 0)."""

    def __init__(self, arguments):
        self.arguments = arguments

    def fit(self, train, validation, *, seed):
        self.train, self.validation, self.seed = train, validation, seed
        self.n_train = [len(rows) for rows in train]
        return self

    def predict(self, scans):
        self.scans = scans
        return Located(np.zeros((len(scans), 2)))


@pytest.fixture
def spies(monkeypatch):
    """Stand for all estimators, the latest last."""
    made = []

    def make(name, **arguments):
        made.append(Spy(arguments))
        return made[-1]

    monkeypatch.setattr(runs.registry, "make", make)
    return made


def assert_same_rows(first, second):
    np.testing.assert_array_equal(first.rssi, second.rssi)
    np.testing.assert_array_equal(first.position, second.position)


def test_it_learns_from_training_and_validation_rows_and_is_asked_the_scans_of_the_test_rows(
    environments, spies, workspace
):
    runs.run(runs.experiment("knn_sorensen", ["official"], None), workspace)
    (spy,), parts = spies, protocols.official(environments["ujiindoorloc"])
    assert_same_rows(spy.train[0], parts.train)
    assert_same_rows(spy.validation[0], parts.validation)
    assert isinstance(spy.scans, Scans)
    np.testing.assert_array_equal(spy.scans.rssi, parts.test.rssi)
    assert spy.arguments == {} and spy.seed == 0


def test_a_share_is_of_the_training_rows(environments, spies, workspace):
    runs.run(runs.experiment("mlp_plain", ["pooled"], 3, 0.2), workspace)
    (spy,), parts = spies, protocols.pooled(environments["ujiindoorloc"])
    assert_same_rows(spy.train[0], parts.train[runs.subset(len(parts.train), 0.2, 3)])
    assert_same_rows(spy.validation[0], parts.validation)
    assert spy.seed == 3


@pytest.mark.parametrize(
    ("model", "names"),
    [("knn_sorensen", ["pooled"]), ("encoder_scratch", ["pooled"]), ("unified", ["pooled", "random"])],
)
def test_the_validation_part_learns_from_training_rows_alone(environments, spies, workspace, model, names):
    done = runs.run(runs.experiment(model, names, 0, part="validation"), workspace)
    (spy,) = spies
    for number, name in enumerate(names):
        parts = protocols.load(name, settings.rows())
        assert_same_rows(spy.train[number], parts.train)
        assert len(spy.validation[number]) == 0
        assert len(done.located[number]) == len(parts.validation)
    asked = in_common([protocols.load(name, settings.rows()).validation.scans for name in names])
    np.testing.assert_array_equal(spy.scans.rssi, asked.rssi)


def test_a_network_of_the_paper_takes_the_transmitters_of_its_protocol(environments, spies, workspace):
    runs.run(runs.experiment("encoder_scratch", ["pooled"], 0), workspace)
    runs.run(runs.experiment("umlp", ["pooled", "random"], 0), workspace)
    runs.run(runs.experiment("unified", ["pooled", "random"], 0), workspace)
    names = [protocols.load(name, settings.rows()).transmitters for name in ("pooled", "random")]
    encoder, umlp, unified = (spy.arguments for spy in spies)
    assert encoder == settings.of("encoder", ["pooled"]) | {"inputs": names[0]}
    assert umlp == settings.of("umlp", ["pooled", "random"], together=True) | {"inputs": names}
    assert unified == settings.of("unified", ["pooled", "random"], together=True)


def test_rows_of_an_experiment_limit_each_environment(environments, spies, workspace):
    runs.run(runs.experiment("knn_sorensen", ["pooled"], None, rows=100), workspace)
    parts = protocols.pooled(protocols.some_rows(environments["ujiindoorloc"], 100))
    assert_same_rows(spies[0].train[0], parts.train)


# === Controls of the paper's networks ===


def test_controls_start_from_what_they_say(environments, workspace, monkeypatch):
    """The base model before any training, and how long it is trained; the networks have the fewest layers."""
    small = {"encoder": {"hidden": (), "latent": 8}, "base_model": {"hidden": (), "intermediate": 8}}
    monkeypatch.setitem(paper.CONFIGS, paper.DEFAULT, small | {"predictive_head": {"hidden": ()}})
    trainings = []

    def fit(model, train, validation, **settings):
        base = model.get_layer("base_model")
        weights = [weight.copy() for weight in base.get_weights()]
        trainings.append({"weights": weights, "trainable": bool(base.trainable_weights), **settings})
        model.set_weights([weight + 0.25 for weight in model.get_weights()])
        return pd.DataFrame([{"epoch": 1, "rmse": 1.0}])

    monkeypatch.setattr(training, "fit", fit)
    own = {}
    for model in PAPERS:
        experiment = runs.experiment(model, ["pooled"], 0)
        if experiment.source is not None:
            runs.run(experiment.source, workspace)
        before = len(trainings)
        runs.run(experiment, workspace)
        assert len(trainings) == before + 1, "one training for each control, and sources are recalled"
        own[model] = trainings[-1]
    fresh = own["encoder_scratch"]["weights"]
    for model in PAPERS:
        entry = registry.entry(model)
        starts_from_scratch = entry.source is None or "updates_only" in entry.settings
        pairs = zip(own[model]["weights"], fresh, strict=True)
        assert all(np.array_equal(weight, first) for weight, first in pairs) == starts_from_scratch, model
        assert own[model]["trainable"] == ("frozen" not in entry.settings), model
    batches = {}
    for protocol in ("pooled", "random"):
        rows = len(protocols.load(protocol, settings.rows()).train)
        batches[protocol] = -(-rows // settings.of("encoder", [protocol])["batch_size"])
    more = round(3 * batches["random"] / batches["pooled"])
    assert own["encoder_scratch_longer"]["epochs"] == 3 + more > own["encoder_scratch"]["epochs"] == 3
    for model in ("encoder_scratch_constant", "encoder_tl_constant"):
        assert not own[model]["decay"] and own[model]["learning_rate"] == 0.001
    assert own["encoder_tl"]["decay"]


# === Result rows ===


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace in which sources stay for those that start from them."""
    return paths.Workspace(tmp_path_factory.mktemp("outputs"))


def assert_are_result_rows(rows, model, names):
    assert [(row["protocol"], row["model"]) for row in rows] == [(name, model) for name in names]
    for row in rows:
        assert set(results.COLUMNS) <= set(row) and row["share"] == 1.0
        parts = protocols.load(row["protocol"], settings.rows())
        assert (row["environment"], row["release"]) == (parts.environment, str(parts.train.release))
        assert row["n_test"] == len(parts.test) and row["n_train"] <= len(parts.train) + len(parts.validation)
        assert np.isfinite(row["mean_m"]) and row["mean_m"] > 0
        for label in ("building_hit", "floor_hit", "environment_hit"):
            assert row.get(label) is None or 0 <= row[label] <= 1


def assert_recalled(experiment, rows, place, monkeypatch):
    monkeypatch.setattr(runs.registry, "make", lambda *_, **__: pytest.fail("trained again"))
    assert runs.result_rows(experiment, place) == rows


ALONE = [name for name in registry.REGISTRY if name not in TOGETHER]
COMPARATORS = [name for name in ALONE if name not in PAPERS]
REALLY_TRAINED = ("mlp_plain",)  # of the networks, which take seconds


@pytest.fixture
def quick(request, model):
    """Trains few networks."""
    if model not in REALLY_TRAINED:
        request.getfixturevalue("untrained")


@pytest.mark.parametrize("model", ALONE)
def test_every_model_of_one_environment_gives_a_row_and_is_recalled(environments, quick, place, monkeypatch, model):
    (experiment, *_) = runs.experiments([model], ["pooled"], [0])
    rows = runs.result_rows(experiment, place)
    assert_are_result_rows(rows, model, ["pooled"])
    if model in COMPARATORS:
        assert rows[0]["mean_m"] < 300
    assert_recalled(experiment, rows, place, monkeypatch)


@pytest.mark.parametrize("model", TOGETHER)
def test_every_model_of_several_environments_gives_a_row_for_each_and_is_recalled(
    environments, quick, place, monkeypatch, model
):
    (experiment,) = runs.experiments([model], ["pooled"], [0])
    rows = runs.result_rows(experiment, place)
    assert_are_result_rows(rows, model, ["pooled", "random"])
    learns = registry.entry(model).settings.get("learns")
    assert all(("environment_hit" in row) == (learns is None) for row in rows), "one environment is not told apart"
    for number, row in enumerate(rows):
        assert (row["n_train"] > 0) == (learns in (None, number))
    assert_recalled(experiment, rows, place, monkeypatch)


def test_errors_behind_a_row_are_those_of_the_located_rows(environments, place):
    experiment = runs.experiment("knn_sorensen", ["random"], None)
    (row,) = runs.result_rows(experiment, place)
    (located,) = runs.run(experiment, place).located
    test = protocols.load("random", settings.rows()).test
    expected = test.frame.errors(test.position, located.position)
    np.testing.assert_array_equal(results.read_errors(place, row), expected)
    np.testing.assert_array_equal(results.read_errors(place, row, "predicted"), located.position)
    assert row["mean_m"] == pytest.approx(expected.mean())


def test_rows_at_other_places_train_anew(environments, workspace, monkeypatch):
    experiment = runs.experiment("knn_sorensen", ["pooled"], None)
    runs.result_rows(experiment, workspace)
    campus = environments["ujiindoorloc"]
    environments["ujiindoorloc"] = dataclasses.replace(campus, position=campus.position + 1.0)
    protocols.load.cache_clear()
    monkeypatch.setattr(runs.registry, "make", lambda *_, **__: pytest.fail("trained anew"))
    with pytest.raises(pytest.fail.Exception, match="trained anew"):
        runs.result_rows(experiment, workspace)


def test_what_makes_a_model_a_variant_decides_its_run(environments, workspace, monkeypatch):
    """The entry of a model says what it is; another entry under its name is another model."""
    chosen = runs.experiment("knn_sorensen_13", ["official"], None)
    first = runs.run(chosen, workspace)
    changed = dataclasses.replace(registry.entry("knn_sorensen_13"), settings={"metric": "sorensen", "k": 2})
    monkeypatch.setitem(registry.REGISTRY, "knn_sorensen_13", changed)
    assert (runs.run(chosen, workspace).located[0].position != first.located[0].position).any()


def test_a_source_that_is_trained_anew_trains_anew_what_starts_from_it(environments, workspace, quick_fit, monkeypatch):
    experiment = runs.experiment("encoder_tl", ["pooled"], 0)
    first = store.kept_key(runs.run(experiment, workspace).folder)
    settings_of = settings.of

    def source_learns_longer(model, names, **which):
        chosen = settings_of(model, names, **which)
        return chosen | {"epochs": 7} if tuple(names) == ("random",) else chosen

    monkeypatch.setattr(settings, "of", source_learns_longer)
    again = runs.experiment("encoder_tl", ["pooled"], 0)
    assert again.settings == experiment.settings and again.source.settings != experiment.source.settings
    second = store.kept_key(runs.run(again, workspace).folder)
    assert first != second


TINY = {"folds": 1, "epochs": 1, "network": {"hidden": (16,)}, "environments": [{}, {"grid": {"cell": 400.0}}]}


def test_the_unified_network_tests_on_test_rows_and_validates_on_rows_it_did_not_learn(
    environments, workspace, quick_fit
):
    for part in ("test", "validation"):
        experiment = runs.experiment("unified", ["pooled", "random"], 0, part=part, settings=TINY)
        rows = runs.result_rows(experiment, workspace)
        for row in rows:
            parts = protocols.load(row["protocol"], settings.rows())
            learnt = len(parts.train) + (0 if part == "validation" else len(parts.validation))
            assert (row["n_train"], row["n_test"]) == (learnt, len(getattr(parts, part)))
            assert len(results.read_errors(workspace, row)) == row["n_test"]
            assert 0 <= row["environment_hit"] <= 1
        assert rows[0]["floor_hit"] is not None and rows[1]["floor_hit"] is None


def test_a_network_becomes_a_localizer_without_another_training(environments, workspace, quick_fit, monkeypatch):
    experiment = runs.experiment("unified", ["pooled", "random"], 0, settings=TINY | {"folds": 2})
    done = runs.run(experiment, workspace)
    monkeypatch.setattr(training, "fit", None)
    localizer = runs.localizer(experiment, workspace)
    parts = protocols.load("pooled", settings.rows())
    assert 0 < len(localizer.held_out[0].rows) <= len(parts.train) + len(parts.validation)
    assert localizer.predict(parts.test.scans).position == pytest.approx(done.located[0].position, abs=1e-3)
    assert [environment.name for environment in localizer.environments] == ["ujiindoorloc", "lorawan_antwerp"]


def test_a_label_stands_for_the_models_name(environments, workspace):
    experiment = runs.experiment("knn_sorensen", ["random"], None, label="nearest")
    (row,) = runs.result_rows(experiment, workspace)
    assert row["model"] == "nearest"
    assert runs.run(experiment, workspace).folder.name == "nearest-random"
