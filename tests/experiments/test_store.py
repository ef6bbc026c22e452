"""Only a finished run is kept, whole, and it is recalled under the very same data, settings and code alone."""

import dataclasses
import importlib.metadata
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import paths
from lib.data.fingerprints import FingerprintSet, Release
from lib.data.frames import Frame
from lib.experiments import runs, store
from lib.models import registry, training

SMALL = {"epochs": 2, "batch_size": 32}
ENVIRONMENTS = ("office", "yard")


def rows_of(name: str, count: int, seed: int) -> FingerprintSet:
    """Rows on two floors of one building, which hear four transmitters of their own."""
    rng = np.random.default_rng(seed)
    rssi = rng.uniform(-90, -40, (count, 4)).astype(np.float32)
    rssi[rng.random(rssi.shape) < 0.3] = np.nan
    return FingerprintSet(
        rssi=rssi,
        position=rng.uniform(0, 50, (count, 2)),
        frame=Frame(None),
        transmitters=tuple(f"{name} {number}" for number in range(4)),
        name=name,
        release=Release("made", count, None),
        floor=np.arange(count) % 2,
        building=np.zeros(count, dtype=int),
        group=np.arange(count) % 3,
    )


TRAIN, VALIDATION, ASKED = (
    [rows_of(name, count, seed) for name in ENVIRONMENTS] for seed, count in enumerate((60, 20, 10))
)


def run(
    folder, model="encoder_scratch", train=TRAIN[:1], validation=VALIDATION[:1], asked=ASKED[:1], seed=0, **changes
):
    """A run of few rows; settings of a network are small."""
    settings = (SMALL if registry.entry(model).of_the_paper else {}) | changes
    return runs.fit_and_predict(model, train, validation, asked, folder, seed=seed, **settings)


@pytest.fixture
def no_training(monkeypatch):
    """Forbids, when it is called, to make an estimator that would be fitted."""

    def called(*arguments, **settings):
        raise AssertionError("trained again")

    return lambda: monkeypatch.setattr(runs.registry, "make", called)


def assert_same_run(first: store.Run, second: store.Run) -> None:
    assert (first.folder, first.model, first.n_train) == (second.folder, second.model, second.n_train)
    assert (first.seconds, first.predict_us) == (second.seconds, second.predict_us)
    pd.testing.assert_frame_equal(first.curves, second.curves, check_exact=True)
    for located, same in zip(first.located, second.located, strict=True):
        assert located.arrays().keys() == same.arrays().keys()
        for name, values in located.arrays().items():
            np.testing.assert_array_equal(values, getattr(same, name))


# === What a run leaves ===


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was really trained."""
    return run(tmp_path_factory.mktemp("runs") / "encoder")


def test_a_run_holds_what_the_fit_left(finished):
    assert finished.curves["epoch"].tolist() == [1, 2]
    assert {"loss", "rmse", "val_loss", "val_rmse"} < set(finished.curves)
    assert finished.n_train == [60]
    assert finished.seconds > 0 and finished.predict_us > 0
    assert [path.name for path in finished.folder.parent.iterdir()] == [finished.folder.name]


def test_the_fitted_estimator_can_be_read_again(finished):
    estimator = finished.estimator()
    assert estimator.n_train == [60]
    (located,) = finished.located
    np.testing.assert_array_equal(estimator.predict(ASKED[0].scans).position, located.position)


def test_the_same_run_is_recalled(finished, no_training):
    no_training()
    assert_same_run(finished, run(finished.folder))


@pytest.mark.slow  # another TensorFlow
def test_another_process_recalls_it(finished, tmp_path):
    log = tmp_path / "log"
    variables = {"TRAINING_LOG": str(log), "PYTHONHASHSEED": "7", "PYTHONPATH": str(paths.ROOT)}
    source = (
        "import importlib.util, pathlib, sys\n"
        f"spec = importlib.util.spec_from_file_location('again', {__file__!r})\n"
        "again = importlib.util.module_from_spec(spec)\n"
        "sys.modules['again'] = again\n"
        "spec.loader.exec_module(again)\n"
        f"again.run(pathlib.Path({str(finished.folder)!r}))\n"
    )
    subprocess.run([sys.executable, "-c", source], cwd=paths.ROOT, env=os.environ | variables, check=True)
    assert log.read_text() == f"recalled,{finished.seconds:.2f},encoder\n"


def test_each_environment_gets_its_rows_back(tmp_path, no_training):
    asked = [ASKED[0], ASKED[1][:4]]
    together = run(tmp_path / "run", "umlp", TRAIN, VALIDATION, asked)
    assert [len(located) for located in together.located] == [10, 4]
    no_training()
    assert_same_run(together, run(tmp_path / "run", "umlp", TRAIN, VALIDATION, asked))


def test_what_has_no_files_keeps_its_answers_alone(tmp_path, no_training):
    nearest = run(tmp_path / "run", "knn_sorensen")
    assert nearest.curves.empty and nearest.located[0].floor is not None
    no_training()
    assert_same_run(nearest, run(tmp_path / "run", "knn_sorensen"))
    with pytest.raises(FileNotFoundError, match="knn_sorensen has no files"):
        nearest.estimator()


def test_a_log_counts_what_was_trained_and_what_was_recalled(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINING_LOG", str(tmp_path / "log"))
    for _ in range(2):
        run(tmp_path / "nearest", "knn_sorensen")
    lines = [line.split(",") for line in (tmp_path / "log").read_text().splitlines()]
    assert [(what, name) for what, _, name in lines] == [("trained", "nearest"), ("recalled", "nearest")]
    assert lines[0][1] == lines[1][1]


# === Whole or not at all ===


def test_another_seed_takes_the_place_of_the_run_in_its_folder(tmp_path, quick_fit, no_training):
    first, second = run(tmp_path / "run"), run(tmp_path / "run", seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert np.any(first.located[0].position != second.located[0].position)
    no_training()
    assert_same_run(second, run(tmp_path / "run", seed=1))
    with pytest.raises(AssertionError, match="trained again"):
        run(tmp_path / "run")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_a_run_interrupted_in_training_leaves_nothing(tmp_path, monkeypatch, interruption):
    def interrupted(model, *arguments, **settings):
        model.set_weights([weight * 2 for weight in model.get_weights()])
        raise interruption

    monkeypatch.setattr(training, "fit", interrupted)
    for _ in range(2):  # the second attempt does not take the first for a result either
        with pytest.raises(interruption):
            run(tmp_path / "run")
    assert list(tmp_path.rglob("*")) == []


def test_a_run_interrupted_in_writing_leaves_nothing_and_keeps_the_run_before(
    tmp_path, quick_fit, no_training, monkeypatch
):
    before = run(tmp_path / "run")

    def full(*arguments, **contents):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez_compressed", full)
        with pytest.raises(OSError, match="no space"):
            run(tmp_path / "run", seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    no_training()
    assert_same_run(before, run(tmp_path / "run"))


# === What decides a run ===


def changed(sets, **fields):
    """The sets with other values in these fields of the first."""
    return [dataclasses.replace(sets[0], **fields), *sets[1:]]


def scans_changed(sets):
    rssi = sets[0].rssi.copy()
    rssi[3, 2] = -33
    return changed(sets, rssi=rssi)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"epochs": 3},
        {"batch_size": 16},
        {"learning_rate": 0.02},
        {"decay": False},
        {"dropout": 0.3},
        {"bounds": (0.1, 1.0)},
        {"spoilt": "labels"},
        {"transmitters": TRAIN[0].transmitters[:3]},
        {"model": "source_labels"},
        {"train": TRAIN[1:]},
        {"train": [TRAIN[0][:-1]]},
        {"train": scans_changed(TRAIN[:1])},
        {"train": changed(TRAIN[:1], position=TRAIN[0].position + 1e-6)},
        {"train": changed(TRAIN[:1], floor=1 - TRAIN[0].floor)},
        {"train": changed(TRAIN[:1], building=1 + TRAIN[0].building)},
        {"train": changed(TRAIN[:1], group=1 + TRAIN[0].group)},
        {"train": changed(TRAIN[:1], not_heard=-128.0)},
        {"train": changed(TRAIN[:1], transmitters=TRAIN[0].transmitters[::-1])},
        {"validation": scans_changed(VALIDATION[:1])},
        {"validation": changed(VALIDATION[:1], position=VALIDATION[0].position + 1)},
        {"asked": scans_changed(ASKED[:1])},
        {"asked": changed(ASKED[:1], transmitters=ASKED[0].transmitters[::-1])},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_anything_that_decides_a_run_trains_anew(finished, no_training, changes):
    no_training()
    with pytest.raises(AssertionError, match="trained again"):
        run(finished.folder, **changes)
    assert_same_run(finished, run(finished.folder))


def test_where_the_located_rows_really_are_decides_nothing(finished, no_training):
    no_training()
    elsewhere = changed(ASKED[:1], position=ASKED[0].position + 100, floor=1 - ASKED[0].floor)
    assert_same_run(finished, run(finished.folder, asked=elsewhere))


@pytest.mark.parametrize("package", store.VERSIONS)
def test_another_version_of_a_package_trains_anew(finished, no_training, monkeypatch, package):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0" if name == package else version(name))
    no_training()
    with pytest.raises(AssertionError, match="trained again"):
        run(finished.folder)


def test_another_backend_or_number_of_threads_trains_anew(finished, no_training, monkeypatch):
    no_training()
    with monkeypatch.context() as patched:
        patched.setenv("KERAS_BACKEND", "another")
        with pytest.raises(AssertionError, match="trained again"):
            run(finished.folder)
    monkeypatch.setattr(store, "THREADS", "2")
    with pytest.raises(AssertionError, match="trained again"):
        run(finished.folder)


# === The code that takes part ===


@pytest.fixture
def source_of(tmp_path, monkeypatch):
    """Copies of the modules of lib, by name, which a test may edit before their digest is taken."""
    importing = importlib.import_module
    copies = {}

    def copied(name):
        module = importing(name)
        if name.split(".")[0] != "lib":
            return module
        if name not in copies:
            copies[name] = tmp_path / f"{name}.py"
            copies[name].write_text(Path(module.__file__).read_text())
        return types.SimpleNamespace(__file__=str(copies[name]))

    monkeypatch.setattr(store.importlib, "import_module", copied)
    return lambda name: Path(copied(name).__file__)


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def test_the_digest_of_code_is_that_of_the_code_as_imported():
    for entry in registry.REGISTRY.values():
        module = entry.factory.__module__
        assert store.CODE[module] == store.code_digest(module)


@pytest.mark.parametrize(
    "module", ["lib.models.neighbours", "lib.models.scaling", "lib.data.fingerprints", "lib.metrics"]
)
def test_a_changed_comment_docstring_or_layout_changes_nothing(source_of, module):
    before = store.code_digest("lib.models.neighbours")
    path = source_of(module)
    text = path.read_text()
    start = text.index('"""') + 3
    commented = text[:start] + "In other words. " + text[start:] + "\n\n# A further comment.\n"
    path.write_text(commented.replace("\ndef ", "\n\n\n# Before a function.\ndef "))
    assert path.read_text() != text
    assert store.code_digest("lib.models.neighbours") == before


def test_docstrings_of_classes_and_functions_change_nothing(source_of):
    before = store.code_digest("lib.models.scaling")
    path = source_of("lib.models.scaling")
    edit(path, "For (n, 2) metres: each axis to [0, 1].", "Each axis to [0, 1].")
    edit(path, "Eq. 5: x̃ =", "x̃ =")
    assert store.code_digest("lib.models.scaling") == before


@pytest.mark.parametrize("module", ["lib.models.scaling", "lib.data.fingerprints", "lib.metrics", "lib"])
def test_a_changed_statement_changes_the_digest_also_in_what_is_imported_indirectly(source_of, module):
    before = store.code_digest("lib.models.neighbours")
    path = source_of(module)
    path.write_text(path.read_text() + "\nFURTHER = 1\n")
    assert store.code_digest("lib.models.neighbours") != before


def test_a_text_that_is_no_docstring_counts(source_of):
    before = store.code_digest("lib.models.estimator")
    edit(source_of("lib.models.estimator"), "__name__} has no files", "__name__} is without files")
    assert store.code_digest("lib.models.estimator") != before


@pytest.mark.parametrize(
    "module",
    ["lib.models.trees", "lib.models.paper", "lib.data.datasets", "lib.experiments.runs", "lib.report.results"],
)
def test_code_that_takes_no_part_changes_nothing(source_of, module):
    before = store.code_digest("lib.models.neighbours")
    path = source_of(module)
    path.write_text(path.read_text() + "\nFURTHER = 1\n")
    assert store.code_digest("lib.models.neighbours") == before


def test_the_papers_networks_count_what_trains_them(source_of):
    before = store.code_digest("lib.models.paper")
    for name in ("training", "layers", "network", "scaling", "estimator"):
        path = source_of(f"lib.models.{name}")
        path.write_text(path.read_text() + "\nFURTHER = 1\n")
        after = store.code_digest("lib.models.paper")
        assert after != before, name
        before = after


def test_changed_code_trains_anew(finished, no_training, monkeypatch):
    monkeypatch.setitem(store.CODE, "lib.models.paper", "of other code")
    no_training()
    with pytest.raises(AssertionError, match="trained again"):
        run(finished.folder)
