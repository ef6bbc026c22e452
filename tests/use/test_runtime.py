"""Locating without TensorFlow gives the table that the localizer gives, from files that are checked."""

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lib.paths import ROOT
from lib.use.localizer import Localizer
from lib.use.runtime import DESCRIPTION, ONNX_FILE, Runtime

METRES = {"ujiindoorloc": 1e-3, "lorawan_antwerp": 0.1}  # that two implementations of float32 may differ
LOCATE = """
import json, sys
from lib.use.runtime import Runtime
scans = json.load(sys.stdin)
located = Runtime.load(sys.argv[1]).locate(scans)
json.dump({name: values.tolist() for name, values in located.items()}, sys.stdout)
"""
REFUSE = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"tensorflow", "keras", "pandas", "pyproj", "scipy", "sklearn"}:
            raise ImportError(f"{name} is refused")

sys.meta_path.insert(0, Refusing())
"""


@pytest.fixture(scope="module")
def scans(apart):
    """50 scans of each environment as dicts, and of what hears nothing known."""
    made = [{}, {"a stranger": -50.0}]
    for fingerprints in apart[1]:
        for levels in fingerprints.rssi[:50]:
            heard = ~np.isnan(levels)
            names = np.array(fingerprints.transmitters)[heard]
            made.append(dict(zip(names.tolist(), levels[heard].tolist(), strict=True)))
    return made


def check_alike(located, expected):
    """Whether a table by columns is the table of the localizer, within what float32 allows."""
    located = dict(located)
    assert list(located.pop("scan")) == list(expected.index)
    assert list(located) == list(expected.columns)
    for name in ("located", "environment", "building", "floor", "heard", "unknown"):
        column = expected[name].astype(object)
        np.testing.assert_array_equal(list(located[name]), column.where(column.notna(), None).tolist(), err_msg=name)
    for environment, metres in METRES.items():
        rows = (expected["environment"] == environment).fillna(False).to_numpy(dtype=bool)
        assert rows.any()
        for name in ("x", "y"):
            np.testing.assert_allclose(np.array(located[name])[rows], expected[name][rows], rtol=0, atol=metres)
        for name in ("latitude", "longitude"):
            np.testing.assert_allclose(np.array(located[name])[rows], expected[name][rows], atol=metres / 50_000)
        for name in ("radius_50", "radius_90"):
            np.testing.assert_allclose(np.array(located[name])[rows], expected[name][rows], rtol=1e-3)
    nowhere = ~expected["located"].to_numpy()
    for name in ("x", "y", "latitude", "longitude", "radius_50", "radius_90"):
        assert np.isnan(np.array(located[name])[nowhere]).all()


def as_lists(located):
    return {name: values.tolist() for name, values in located.items()}


def test_it_gives_the_table_of_the_localizer(localizer, saved_localizer, scans):
    check_alike(as_lists(Runtime.load(saved_localizer).locate(scans)), localizer.locate(scans))


def test_so_does_it_where_stored_fingerprints_vote(apart, scans, tmp_path):
    votes = [{"neighbours": {}}, {"neighbours": None}]
    settings = {"epochs": 2, "batch_size": 64, "network": {"hidden": (32,)}}
    localizer = Localizer.of(apart[0], environments=votes, **settings)
    voting = [layer.name for layer in localizer.model.layers if layer.name.startswith("neighbours")]
    assert voting == ["neighbours_0"]
    localizer.save(tmp_path / "localizer")
    check_alike(as_lists(Runtime.load(tmp_path / "localizer").locate(scans)), localizer.locate(scans))


def located_by(python, code, folder, scans, cwd):
    """What a process of its own, which runs that code with a Python in a folder, locates."""
    process = subprocess.run(
        [python, "-c", code, folder],
        input=json.dumps(scans),
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_it_needs_neither_tensorflow_nor_pandas_nor_pyproj(localizer, saved_localizer, scans):
    located = located_by(sys.executable, REFUSE + LOCATE, saved_localizer, scans, ROOT)
    check_alike(located, localizer.locate(scans))


@pytest.mark.slow
def test_what_it_needs_is_in_the_requirements_file(localizer, saved_localizer, scans, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    requirements = ROOT / "requirements-runtime.txt"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", requirements], check=True)
    located = located_by(python, LOCATE, saved_localizer, scans, tmp_path)
    check_alike(located, localizer.locate(scans))


def test_scans_that_are_missing_a_label_say_none(saved_localizer, scans):
    located = Runtime.load(saved_localizer).locate(scans[:1])
    for name in ("environment", "building", "floor"):
        assert located[name].tolist() == [None]
    assert {name: len(values) for name, values in Runtime.load(saved_localizer).locate([]).items()}["x"] == 0


def test_levels_name_the_radii(saved_localizer, scans):
    located = Runtime.load(saved_localizer).locate(scans, levels=(0.8,))
    assert "radius_80" in located and "radius_50" not in located
    with pytest.raises(ValueError, match=r"`levels` must be between 0 and 1. Received: 80"):
        Runtime.load(saved_localizer).locate(scans, levels=(80,))


# === Markers of what is not heard ===


def test_markers_that_were_declared_at_the_fit_are_not_heard(apart, tmp_path):
    settings = {"epochs": 1, "batch_size": 64, "network": {"hidden": (8,)}}
    made = Localizer.of(apart[0][:1], not_heard=[100, "lost", -np.inf], **settings)
    made.save(tmp_path / "localizer")
    first, second, *_ = made.transmitters
    scan = {first: -60, second: 100}
    for locator in (made, Localizer.load(tmp_path / "localizer"), Runtime.load(tmp_path / "localizer")):
        assert locator.not_heard == (100, "lost", -np.inf)
        assert locator.locate([scan])["heard"].tolist() == [1]
        assert locator.locate([{first: "lost", second: -np.inf}])["heard"].tolist() == [0]
        assert locator.locate([{first: -60, second: 101}], not_heard=[101])["heard"].tolist() == [1]


@pytest.mark.parametrize("marker", [None, True, [100]])
def test_other_markers_are_refused(marker):
    with pytest.raises(ValueError, match="`not_heard` must be numbers or text"):
        Localizer(not_heard=[marker])


# === Files ===


def test_files_of_earlier_releases_declare_no_markers():
    assert Localizer.load(Path(__file__).with_name("version_1")).not_heard == ()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "holds no localizer"),
        (lambda folder: (folder / ONNX_FILE).unlink(), "expected localizer.onnx beside localizer.json, found none"),
        (lambda folder: (folder / ONNX_FILE).write_bytes(b"of another time"), r"localizer\.onnx is damaged"),
        (lambda folder: (folder / DESCRIPTION).write_text("{"), "holds no localizer"),
        (lambda folder: (folder / DESCRIPTION).write_text("{}"), "expected a description of the format"),
    ],
)
def test_what_is_no_whole_localizer_is_refused(saved_localizer, tmp_path, spoil, message):
    folder = shutil.copytree(saved_localizer, tmp_path / "localizer")
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        Runtime.load(folder)


def test_a_changed_description_is_noticed(saved_localizer, tmp_path):
    folder = shutil.copytree(saved_localizer, tmp_path / "localizer")
    description = json.loads((folder / DESCRIPTION).read_text())
    description["environments"][0]["origin"][0] += 1
    (folder / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"localizer\.json is damaged"):
        Runtime.load(folder)


def test_requirements_are_those_of_the_lock():
    lines = (ROOT / "requirements-runtime.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert {pin.partition("==")[0] for pin in pins} == {"numpy", "onnxruntime"}
    locked = (ROOT / "requirements.lock").read_text()
    for pin in pins:
        assert f"\n{pin} ;" in locked, pin


# === Other processes ===


@pytest.mark.parametrize("of", [Localizer, Runtime], ids=lambda of: of.__name__)
def test_what_locates_can_be_pickled_and_forked_after_use(of, saved_localizer):
    locator = of.load(saved_localizer)
    scan = [{name: -60 for name in locator.transmitters[:5]}]
    expected = locator.locate(scan)["x"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(locator)).locate(scan)["x"], expected)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()
    child = context.Process(target=lambda: sender.send(np.asarray(locator.locate(scan)["x"])))
    child.start()
    assert receiver.poll(60), "the forked process does not answer"
    np.testing.assert_allclose(receiver.recv(), expected, atol=1e-3)
    child.join()
