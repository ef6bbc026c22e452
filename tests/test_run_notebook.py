"""The runner of one notebook leaves a target only of one that ran to its end, and says what that took."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from lib.paths import ROOT

TRAINS = """
import os, sys
print("noise of a library", file=sys.__stderr__, flush=True)
os.system("echo 'more noise' >&2")
from pathlib import Path
with open(os.environ["TRAINING_LOG"], "a") as log:
    log.write("trained,1.50,a\\nrecalled,2.00,a\\nrecalled,2.00,b\\nrecalled,2.00,b\\n")
"""


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook of one cell."""

    def write(source: str) -> Path:
        path = tmp_path / "notebook.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
        return path

    return write


def command(notebook: Path) -> dict:
    target = notebook.parent / "built" / notebook.name
    return {
        "args": [sys.executable, str(ROOT / "notebooks" / "run.py"), str(notebook), str(target)],
        "env": os.environ | {"PROFILE": "smoke", "PYTHONPATH": str(ROOT)},
        "text": True,
    }


def test_a_run_says_in_one_line_how_long_it_took_and_what_it_trained(notebook, tmp_path):
    finished = subprocess.run(**command(notebook(TRAINS)), capture_output=True, check=True)
    record = json.loads((tmp_path / "built" / "notebook.json").read_text())
    assert record == record | {"notebook": "notebook", "trained": 1, "recalled": 1}
    assert 0 < record["seconds"] < 120
    assert finished.stdout == f"notebook: {record['seconds']:.0f} s, 1 trainings done, 1 recalled\n"
    assert finished.stderr == "", "noise of libraries goes to the log"
    log = (tmp_path / "built" / "notebook.log").read_text()
    assert "noise of a library" in log and "more noise" in log


def test_a_failed_notebook_is_kept_with_its_traceback_and_no_target(notebook, tmp_path):
    finished = subprocess.run(**command(notebook("{}['nowhere']")), capture_output=True, check=False)
    assert finished.returncode != 0
    assert sorted(path.name for path in (tmp_path / "built").glob("*.ipynb")) == ["notebook.failed.ipynb"]
    assert "KeyError" in (tmp_path / "built" / "notebook.failed.ipynb").read_text()
    assert "notebook.ipynb failed; see" in finished.stderr
    assert "nowhere" in finished.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_target(notebook, tmp_path, number):
    begun = tmp_path / "begun"
    source = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(120)"
    with subprocess.Popen(**command(notebook(source)), start_new_session=True, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not begun.exists():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)
        os.killpg(process.pid, number)
    assert not (tmp_path / "built" / "notebook.ipynb").exists()
    assert not (tmp_path / "built" / "notebook.json").exists()
