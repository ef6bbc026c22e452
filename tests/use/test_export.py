"""A localizer is exported as a folder that says what it is and locates without TensorFlow."""

import json
import re
import shutil

import numpy as np
import pytest

from lib.models import training
from lib.use import convert, export
from lib.use.localizer import Localizer
from lib.use.runtime import DESCRIPTION, ONNX_FILE, Runtime


@pytest.fixture(scope="module")
def exported(saved_localizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "exported"
    files = export.export(saved_localizer, folder)
    assert set(files) == set(folder.iterdir())
    return folder


def test_the_folder_holds_networks_description_and_instructions(localizer, exported):
    names = {file.name for file in exported.iterdir()}
    assert names == {"localizer.onnx", "localizer.tflite", "localizer.json", "README.md"}
    assert json.loads((exported / DESCRIPTION).read_text())["transmitters"] == list(localizer.transmitters)


def test_its_networks_say_what_the_localizer_says(localizer, exported, apart):
    pytest.importorskip("ai_edge_litert", reason="requirements-export.txt is not installed")
    rssi = apart[1][0].scans[:30].of(localizer.transmitters)
    expected = training.predict(localizer.model, rssi)
    for name in ("localizer.onnx", "localizer.tflite"):
        outputs = convert.read(exported / name)(rssi)
        for label in ("building", "floor"):
            np.testing.assert_array_equal(outputs[label], expected[label])
        np.testing.assert_allclose(outputs["position"], expected["position"], atol=1e-2)


def test_its_instructions_locate_a_scan(localizer, exported, monkeypatch, capsys):
    readme = (exported / "README.md").read_text()
    for environment in localizer.environments:
        assert f"`{environment.name}`" in readme
    (code,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    monkeypatch.chdir(exported.parent)
    exec(code, {})
    printed = capsys.readouterr().out
    assert printed.split()[0] in {environment.name for environment in localizer.environments}
    for column in Runtime.load(exported).locate([{}]):
        assert f"`{column}`" in readme


def test_a_localizer_of_an_earlier_release_is_exported_too(saved_localizer, exported, apart, tmp_path):
    old = shutil.copytree(saved_localizer, tmp_path / "old")
    (old / ONNX_FILE).unlink()
    with pytest.raises(ValueError, match=r"expected localizer\.onnx beside localizer\.json, found none"):
        Runtime.load(old)
    Localizer.load(old)
    export.export(old, tmp_path / "exported", ["onnx"])
    assert not (tmp_path / "exported" / "localizer.tflite").exists()
    scan = dict(zip(apart[1][0].transmitters, apart[1][0].rssi[0].tolist(), strict=True))
    located = Runtime.load(tmp_path / "exported").locate([scan])
    assert located["x"] == pytest.approx(Runtime.load(exported).locate([scan])["x"], abs=1e-3)


def test_an_unknown_format_is_refused_before_anything_is_written(saved_localizer, tmp_path):
    with pytest.raises(ValueError, match=r"`formats` must be among onnx, litert\. Received: pickle"):
        export.export(saved_localizer, tmp_path / "exported", ["onnx", "pickle"])
    assert not list(tmp_path.iterdir())
