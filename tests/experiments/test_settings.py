"""The file of settings and profiles names only what there is, and each model gets what it says."""

import ast
import inspect

import nbformat
import pytest
import yaml

from lib import paths
from lib.data import protocols
from lib.experiments import settings, sweep
from lib.models import registry
from lib.report import configuration

CONTENT = yaml.safe_load(settings.SETTINGS.read_text())
PROFILES = list(CONTENT["profiles"])
INHERITED = {entry.inherits for entry in registry.REGISTRY.values() if entry.inherits}
PROTOCOLS = {**protocols.PROTOCOLS, **protocols.CHOOSING}
# What a model may have less of in a smoke run.
SIZES = {"epochs", "folds", "trees", "rounds", "place_rounds", "leaves", "rows"}


@pytest.fixture(autouse=True)
def full(monkeypatch):
    monkeypatch.setenv("PROFILE", "full")


def parameters_of(notebook):
    """The parameters of a notebook and their values, from its parameters cell."""
    content = nbformat.read(paths.ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    (cell,) = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    assignments = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in assignments}


def environments_of(entry):
    """Each protocol, or each pair that an estimator learns together."""
    return protocols.PAIRS if entry.together else [(protocol,) for protocol in protocols.PROTOCOLS]


# === Names ===


def test_models_are_in_the_registry_or_inherited_there():
    assert set(CONTENT["models"]) <= {*registry.REGISTRY, *INHERITED}
    assert set(CONTENT["models"]) >= INHERITED


def test_a_model_has_settings_by_protocol_and_where_they_are_from_and_nothing_else():
    for name, description in CONTENT["models"].items():
        assert set(description) <= {"settings", "by_protocol", "from"}, name
        assert set(description.get("by_protocol", {})) <= set(PROTOCOLS), name


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_name_only_what_there_is(profile):
    changes = CONTENT["profiles"][profile]
    assert set(changes) <= {"rows", "models", "notebooks", "sweep"}
    assert set(changes.get("models", {})) <= {*registry.REGISTRY, *INHERITED}
    for notebook, values in changes.get("notebooks", {}).items():
        assert set(values) <= set(parameters_of(notebook)), notebook


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_name_only_arguments_of_the_sweep(monkeypatch, profile):
    monkeypatch.setenv("PROFILE", profile)
    assert set(settings.sweep()) <= {"models", "protocols", "seeds", "shares", "workers"}
    assert set(settings.sweep().get("models", sweep.MODELS)) <= set(sweep.MODELS)
    assert set(settings.sweep().get("protocols", sweep.PROTOCOLS)) <= set(sweep.PROTOCOLS)


def test_profiles_change_the_kind_of_no_parameter():
    for profile in PROFILES:
        for notebook, values in CONTENT["profiles"][profile].get("notebooks", {}).items():
            known = parameters_of(notebook)
            for name, value in values.items():
                kinds = {type(value), type(known[name])}
                assert len(kinds) == 1 or type(None) in kinds, f"{profile}, {notebook}: {name}"


def test_smoke_changes_only_sizes_of_models():
    for name, description in CONTENT["profiles"]["smoke"]["models"].items():
        assert set(description) == {"settings"}, name
        assert set(description["settings"]) <= SIZES, name


def test_only_smoke_changes_models_and_rows():
    for profile in set(PROFILES) - {"smoke"}:
        assert not {"models", "rows"} & set(CONTENT["profiles"][profile])


def test_an_unknown_profile_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.setenv("PROFILE", "quick")
    with pytest.raises(ValueError, match=r"PROFILE must be one of full, lab, .*Received: PROFILE=quick"):
        settings.rows()


def test_work_by_hand_has_the_settings_of_a_full_run(monkeypatch):
    full = [settings.of("encoder", ["pooled"]), settings.rows(), settings.sweep(), settings.notebook("04_umlp")]
    monkeypatch.delenv("PROFILE")
    by_hand = [settings.of("encoder", ["pooled"]), settings.rows(), settings.sweep(), settings.notebook("04_umlp")]
    assert by_hand == full == [full[0], None, {}, {}]


# === Values ===


@pytest.mark.parametrize("profile", ["full", "smoke"])
@pytest.mark.parametrize("model", registry.REGISTRY)
def test_every_model_takes_its_settings_under_every_protocol(monkeypatch, profile, model):
    monkeypatch.setenv("PROFILE", profile)
    entry = registry.entry(model)
    for names in environments_of(entry):
        chosen = settings.of(model, names, inherits=entry.inherits, together=entry.together)
        registry.make(model, **chosen)
        assert not set(chosen) & set(entry.settings), "what makes it this model is no hyper-parameter"


def test_sizes_of_a_smoke_run_are_all_that_differs(monkeypatch):
    full = {
        name: settings.of(name, ["pooled"], inherits="encoder") for name in ("encoder_scratch", "encoder_tl_constant")
    }
    monkeypatch.setenv("PROFILE", "smoke")
    for name, expected in full.items():
        smoke = settings.of(name, ["pooled"], inherits="encoder")
        assert smoke == expected | {"epochs": 3}
    assert settings.rows() == 800


def test_a_variant_has_the_settings_of_what_it_inherits_and_its_own():
    inherited = settings.of("encoder", ["random"])
    assert inherited["batch_size"] == 512
    assert settings.of("encoder_tl", ["random"], inherits="encoder") == inherited
    constant = settings.of("encoder_tl_constant", ["random"], inherits="encoder")
    assert constant == inherited | {"epochs": 60, "learning_rate": 0.001, "decay": False}


def test_settings_by_protocol_of_one_environment_are_its_settings():
    batch_sizes = {protocol: settings.of("encoder", [protocol])["batch_size"] for protocol in protocols.PAIRS[0]}
    assert batch_sizes == {"pooled": 256, "random": 512}
    assert settings.of("knn_euclidean", ["pooled"]) == {"ks": [1]}
    assert settings.of("knn_euclidean", ["random"]) == {}
    assert settings.of("knn_sorensen", ["pooled"]) == {}


def test_settings_by_protocol_of_several_environments_are_given_for_each_in_order():
    by_protocol = CONTENT["models"]["unified"]["by_protocol"]
    for names in (["pooled", "random"], ["random", "pooled"], ["official"]):
        chosen = settings.of("unified", names, together=True)
        assert chosen == {"environments": [by_protocol[name] for name in names]}
    assert "environments" not in settings.of("umlp", ["pooled", "random"], together=True)


def test_what_somebody_changes_stays_theirs():
    chosen = settings.of("unified", ["pooled", "random"], together=True)
    chosen["environments"][0]["hold_out"] = "areas"
    settings.described("encoder")["settings"]["bounds"].append(7)
    again = settings.of("unified", ["pooled", "random"], together=True)
    assert again["environments"][0]["hold_out"] == "rows"
    assert settings.of("encoder", ["pooled"])["bounds"] == [0.0, 1.0]


# === Table I ===


@pytest.mark.parametrize("model", [name for name, description in CONTENT["models"].items() if "from" in description])
def test_what_is_said_to_be_from_somewhere_is_a_setting(model):
    description = CONTENT["models"][model]
    by_protocol = {name for values in description.get("by_protocol", {}).values() for name in values}
    assert set(description["from"]) <= {*description["settings"], *by_protocol}
    assert all(isinstance(origin, str) and origin for origin in description["from"].values())


@pytest.mark.parametrize(("function", "model"), [("encoder_table", "encoder"), ("umlp_table", "umlp")])
def test_table_1_says_of_each_value_that_it_shows_where_it_is_from(function, model):
    source = inspect.getsource(getattr(configuration, function))
    asked = {
        node.slice.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", None) == "origin"
    }
    assert asked and asked <= set(CONTENT["models"][model]["from"])
    assert set(CONTENT["models"][model]["from"]) >= {"config", "dropout", "learning_rate", "epochs", "batch_size"}
