"""The Makefile runs what is missing or out of date, once, and nothing else. A stub that touches stands for python."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

BUILT = "notebooks/smoke-simulated"
NOTEBOOKS = [f"{number:02d}" for number in range(1, 13)]
STUB = """#!/usr/bin/env bash
case "$1 $2" in
    "-m lib.experiments.workers") shift 4; exec "$@" ;;
    "-m lib.data.datasets") mkdir -p "$(dirname "$3")"; echo '{"simulated": true}' > "$3" ;;
    "-m lib.experiments.reproduction") echo "summary of $3" ;;
    "-m lib.report.front") echo "filled the pages" ;;
    "notebooks/run.py "*)
        echo "$2" >> "$RAN"
        if [ "$2" = "$FAILS" ]; then exit 1; fi
        if [ "$2" = "$HANGS" ]; then touch "$3.begun"; exec sleep 60; fi
        touch "$3" ;;
    *) echo "$*" >> "$RAN" ;;
esac
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    """A folder with a `python` that does nothing but touch targets."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "python").write_text(STUB)
    (folder / "python").chmod(0o755)
    return folder


@pytest.fixture
def make(checkout, stub, tmp_path):
    """Runs make in a copy of the repository and gives what it printed, its status and the notebooks that it ran."""

    def run(*arguments, wait=True, **variables):
        log = tmp_path / "ran"
        log.unlink(missing_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        chosen = {"PROFILE": "smoke", "DATA": "simulated", "FINGERPRINT_OUTPUTS": str(tmp_path), "RAN": str(log)}
        process = subprocess.Popen(
            ["make", "VENV=", f"BIN={stub}", *arguments],
            cwd=checkout,
            env=inherited | chosen | {"FAILS": "", "HANGS": ""} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if not wait:
            return process
        process.printed, process.problems = process.communicate(timeout=60)
        process.ran = log.read_text().splitlines() if log.exists() else []
        return process

    return run


def numbers(lines: list[str]) -> list[str]:
    """Of the notebooks that were run, ascending."""
    return sorted(re.findall(r"notebooks/(\d\d)_", "\n".join(lines)))


def test_help_is_the_default_and_names_every_target(make):
    printed = make().printed
    targets = ("help", "setup", "data", "all", "benchmark", "smoke", "search", "sweep", "bench", "test", "test-all")
    for target in (*targets, "site", "lab", "lock", "wheels", "tidy", "clean"):
        assert re.search(rf"^  {target} ", printed, flags=re.MULTILINE), target


def test_make_all_runs_every_notebook_once(make, tmp_path):
    first = make("all")
    assert first.returncode == 0, first.problems
    assert numbers(first.ran) == NOTEBOOKS
    assert sorted(path.name[:2] for path in (tmp_path / BUILT).glob("*.ipynb")) == NOTEBOOKS
    again = make("all")
    assert again.returncode == 0
    assert again.ran == []
    assert "Nothing to be done" in again.printed


def test_a_data_file_that_came_is_looked_for(make, tmp_path):
    """Files of the registry count, wherever the folders are; others in the same folders do not."""
    folder = tmp_path / "data" / "wifi_environments"
    folder.mkdir(parents=True)
    measured = {"DATA": "auto", "FINGERPRINT_DATA": str(tmp_path / "data")}
    make("all", **measured)
    (folder / "TUT9.mat").touch()
    assert "lib.data.datasets" not in make("-n", "notebooks", **measured).printed
    (folder / "Training_CETC331.csv.xz").touch()
    assert "lib.data.datasets" in make("-n", "notebooks", **measured).printed


def test_make_all_ends_with_a_summary_of_the_run(make, tmp_path):
    assert make("all").printed.splitlines()[-1] == f"summary of {tmp_path / BUILT}"


def test_search_runs_the_notebooks_that_make_all_leaves_out(make):
    assert numbers(make("search").ran) == ["00", "00"]


RERUN = {
    "lib/models/layers.py": NOTEBOOKS,
    "notebooks/settings.yaml": NOTEBOOKS,
    "notebooks/01_explore_rssi.ipynb": ["01", "07"],
    "notebooks/02_preprocess.ipynb": ["02"],
    "notebooks/03_transfer_learning.ipynb": ["03", "05", "07"],
    "notebooks/05_explain_transfer.ipynb": ["05", "07"],
    "notebooks/06_build_unified.ipynb": ["06", "07"],
    "notebooks/08_use_localizer.ipynb": ["08"],
    "notebooks/04_umlp.ipynb": ["04", "07"],
}


def test_a_touched_file_reruns_what_depends_on_it(make):
    make("all")
    for touched, rerun in RERUN.items():
        planned = re.findall(r"run\.py (\S+)", make("-n", "-W", touched, "notebooks").printed)
        assert numbers(planned) == rerun, touched


def test_a_failed_notebook_fails_the_run_and_is_all_that_is_run_again(make, tmp_path):
    failing = "notebooks/05_explain_transfer.ipynb"
    failed = make("all", "--keep-going", FAILS=failing)
    assert failed.returncode != 0
    assert "summary" not in failed.printed
    assert not (tmp_path / BUILT / Path(failing).name).exists()
    again = make("all")
    assert again.returncode == 0
    assert {"05", "07"} <= set(numbers(again.ran))
    assert not {"01", "03"} & set(numbers(again.ran))


def test_an_ended_run_leaves_no_target_and_is_continued(make, tmp_path):
    """SIGTERM goes to make alone, as from a batch system: it ends the notebook, too."""
    hanging = "notebooks/03_transfer_learning.ipynb"
    process = make("all", wait=False, HANGS=hanging)
    begun = tmp_path / BUILT / "03_transfer_learning.ipynb.begun"
    deadline = time.monotonic() + 30
    while not begun.exists():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert not (tmp_path / BUILT / "03_transfer_learning.ipynb").exists()
    again = make("all")
    assert again.returncode == 0
    assert {"03", "05", "07"} <= set(numbers(again.ran))


@pytest.mark.parametrize(("options", "passed_on"), [((), "-j4"), (("-j3",), "-j3"), (("-j3", "-k"), "-k")])
def test_make_all_passes_on_how_many_jobs_to_run_and_whether_to_keep_going(make, options, passed_on):
    (line,) = [line for line in make("-n", "all", *options).printed.splitlines() if "lib.experiments.workers" in line]
    assert passed_on in line.split()


@pytest.mark.parametrize(("profile", "fills"), [("full", False), ("benchmark", True)])
def test_only_the_benchmark_fills_the_pages(make, profile, fills):
    would = make("-n", "all", PROFILE=profile, FINGERPRINT_OUTPUTS="").printed
    assert ("lib.report.front" in would) == fills
