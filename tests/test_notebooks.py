"""The notebooks keep their contract, run on the simulator, and give the same results every time."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest

from lib import paths
from lib.data import datasets, protocols
from lib.experiments import runs, sweep
from lib.models import training
from lib.paths import ROOT
from lib.report.results import CLOCK_COLUMNS
from tests.running import NOTEBOOKS, OF_BENCHMARK, PROFILES, SEARCHES, environment, prepared, run_nbval, tags

FINDS_LIBRARY = """
import importlib.util, json, sys

for cell in json.load(sys.stdin):
    before = list(sys.path)
    exec(cell)
    found = importlib.util.find_spec("lib")
    print(found.origin if found else "none")
    sys.path[:] = before
"""


def without_path(outputs: Path) -> dict[str, str]:
    """The environment of a program that knows nothing of the repository, such as VS Code."""
    variables = environment(outputs)
    del variables["PYTHONPATH"]
    return variables


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param, nbformat.read(request.param, as_version=4)


def test_there_is_a_notebook_for_every_step():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["00", "00", *(f"{number:02d}" for number in range(1, 13))]


def test_one_parameters_cell_of_literals(notebook):
    _, content = notebook
    (cell,) = [cell for cell in content["cells"] if "parameters" in tags(cell)]
    for statement in ast.parse(cell["source"]).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


def test_profiles_name_only_parameters_that_exist(notebook):
    path, _ = notebook
    known = set(papermill.inspect_notebook(path))
    for profile in PROFILES.values():
        assert set(profile.get(path.stem, {})) <= known


def test_reads_as_an_essay(notebook):
    _, content = notebook
    cells = content["cells"]
    assert len(cells) <= 30
    assert cells[0]["cell_type"] == "markdown" and cells[0]["source"].startswith("# ")
    assert "**Writes**" in cells[0]["source"]
    *_, last = (cell for cell in cells if cell["cell_type"] == "markdown")  # cells below it may render its sentences
    assert last["source"].startswith("## Conclusion")


def test_committed_without_outputs_but_the_kept_ones(notebook):
    _, content = notebook
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            assert cell["execution_count"] is None
            assert bool(cell["outputs"]) == ("keep_output" in tags(cell))
            assert ("keep_output" in tags(cell)) == ("nbval-check-output" in tags(cell))


def test_definitions_over_ten_lines_live_in_the_library(notebook):
    _, content = notebook
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            for node in ast.walk(ast.parse(cell["source"])):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    assert node.end_lineno - node.lineno <= 10, node.name


def without_packages(source: str) -> str:
    """What puts the library on the path, without the packages that take seconds to import."""
    lines = source.splitlines()
    return "\n".join(line for line in lines if line.startswith(("import sys", "from pathlib", "sys.path")))


def test_each_finds_the_library_in_its_own_folder_and_in_the_root(tmp_path):
    cells = []
    for path in NOTEBOOKS:
        content = nbformat.read(path, as_version=4)
        first = next(cell for cell in content["cells"] if cell["cell_type"] == "code")
        before_library, _, _ = first["source"].partition("\nfrom lib")
        cells.append(without_packages(before_library))
    for folder in (ROOT / "notebooks", ROOT):
        finished = subprocess.run(
            [sys.executable, "-c", FINDS_LIBRARY],
            input=json.dumps(cells),
            cwd=folder,
            env=without_path(tmp_path),
            capture_output=True,
            text=True,
            check=True,
        )
        assert finished.stdout.split() == [str(ROOT / "lib" / "__init__.py")] * len(NOTEBOOKS), folder


def test_an_unknown_parameter_is_an_error(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "notebooks")
    import run

    monkeypatch.setenv("PROFILE", "lab")
    with pytest.raises(ValueError, match="PROFILE must be one of full, lab, benchmark, smoke"):
        run.parameters(NOTEBOOKS[0], "huge")
    monkeypatch.setattr(run.settings, "notebook", lambda name: {"SEEDZ": 1})
    with pytest.raises(ValueError, match=r"00_search_comparators.ipynb has no parameter SEEDZ"):
        run.parameters(NOTEBOOKS[0], "full")


# === Run on the simulator ===


@pytest.fixture(scope="module")
def nbval_outputs(tmp_path_factory):
    """Outputs of the notebooks of the benchmark, run by nbval with smoke parameters on the simulator."""
    folder, outputs = tmp_path_factory.mktemp("nbval"), tmp_path_factory.mktemp("nbval-outputs")
    chosen = [path for path in prepared(folder, PROFILES["smoke"]) if path.stem[:2] in OF_BENCHMARK]
    finished = run_nbval(chosen, outputs)
    assert finished.returncode == 0, finished.stdout[-8000:]
    return outputs / "smoke" / "simulated"


@pytest.fixture(scope="module")
def outputs_of_all(nbval_outputs, tmp_path_factory):
    """The same, and outputs of the other notebooks."""
    folder = tmp_path_factory.mktemp("nbval-others")
    others = [path for path in prepared(folder, PROFILES["smoke"]) if path.stem[:2] not in OF_BENCHMARK + SEARCHES]
    finished = run_nbval(others, nbval_outputs.parent.parent)
    assert finished.returncode == 0, finished.stdout[-8000:]
    return nbval_outputs


def test_nbval_runs_the_notebooks_of_the_benchmark_on_the_simulator(nbval_outputs):
    for name in ("fig2a", "fig2b", "fig3a", "fig3b", "fig4", "fig5", "benchmark"):
        assert list((nbval_outputs / "figures").glob(f"{name}*.png")), name
    assert (nbval_outputs / "tables" / "claims.md").read_text().startswith("**SIMULATED DATA")
    benchmark = pd.read_csv(nbval_outputs / "results" / "benchmark.csv")
    assert benchmark["release"].str.contains("simulated").all()
    assert {"knn_sorensen", "extra_trees", "ea_cnn", "encoder_scratch", "encoder_tl"} < set(benchmark["model"])
    assert benchmark["model"].nunique() == 17


def test_nothing_is_claimed_from_simulated_data(nbval_outputs):
    verdicts = pd.read_csv(nbval_outputs / "tables" / "claims.csv")["verdict"]
    assert (verdicts == "cannot be checked on this release").all()


def test_a_sweep_takes_the_runs_with_all_rows_from_the_notebooks(nbval_outputs, monkeypatch, request):
    def fit(*arguments, **settings):
        raise AssertionError("trained again")

    monkeypatch.setenv("PROFILE", "smoke")
    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setenv("DATA", "simulated")
    for cached in (datasets.simulated, protocols.load):
        cached.cache_clear()
        request.addfinalizer(cached.cache_clear)
    place = paths.Workspace(nbval_outputs)
    experiments = runs.experiments(sweep.MODELS, sweep.PROTOCOLS, [0])
    rows = [row for experiment in experiments for row in runs.result_rows(experiment, place)]
    assert len(rows) == 4 + 4 + 2 * 2


def test_nbval_really_compares(tmp_path):
    """A kept output that is not what the cell prints makes nbval fail."""
    source = nbformat.read(ROOT / "notebooks" / "02_preprocess.ipynb", as_version=4)
    imports, kept = source["cells"][1], next(cell for cell in source["cells"] if "keep_output" in tags(cell))
    source["cells"], kept["execution_count"] = [imports, kept], 1
    nbformat.write(source, tmp_path / "kept.ipynb")
    no_pool = {"DASK_SCHEDULER_ADDRESS": "tcp://127.0.0.1:1"}  # nothing is trained
    text = json.dumps(kept["outputs"])
    assert "0.1" in text
    kept["outputs"] = [nbformat.from_dict(output) for output in json.loads(text.replace("0.1", "0.2"))]
    nbformat.write(source, tmp_path / "wrong.ipynb")
    notebooks = [tmp_path / "kept.ipynb", tmp_path / "wrong.ipynb"]
    finished = run_nbval(notebooks, tmp_path / "outputs", **no_pool)
    assert finished.returncode == 1
    failed = [line for line in finished.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1 and "wrong.ipynb" in failed[0], finished.stdout[-4000:]


# === Whole runs ===


@pytest.mark.slow
def test_a_notebook_runs_in_its_own_folder_by_nbconvert(tmp_path):
    convert = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", str(tmp_path)]
    finished = subprocess.run(
        [*convert, "01_explore_rssi.ipynb"],
        cwd=ROOT / "notebooks",
        env=without_path(tmp_path / "outputs"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert (tmp_path / "01_explore_rssi.ipynb").exists()


def run_make(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run make in a checkout with the packages of this environment."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "VENV=", f"BIN={Path(sys.executable).parent}", *arguments],
        cwd=checkout,
        env=inherited | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def clone(checkout):
    """A copy of the repository in which everything is committed, after a whole `make all` with smoke parameters."""
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    for command in (["init", "-q"], ["add", "--all"], [*who, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    finished = run_make(checkout, "all", PROFILE="smoke", DATA="simulated")
    assert finished.returncode == 0, finished.stderr[-8000:]
    assert "trainings done" in finished.stdout
    return checkout


@pytest.mark.slow
def test_same_seed_twice_gives_identical_result_files(outputs_of_all, clone):
    """nbval and make run the same notebooks in different processes; only clocks may differ."""
    first, second = outputs_of_all / "results", clone / "outputs" / "smoke" / "simulated" / "results"
    names = {path.name for path in first.glob("*.csv")}
    assert names == {path.name for path in second.glob("*.csv")}
    for name in names:
        by_nbval, by_make = (
            pd.read_csv(folder / name).drop(columns=list(CLOCK_COLUMNS), errors="ignore") for folder in (first, second)
        )
        pd.testing.assert_frame_equal(by_nbval, by_make, check_exact=True, obj=name)


@pytest.mark.slow
def test_nbval_runs_both_searches(tmp_path):
    chosen = [path for path in prepared(tmp_path, PROFILES["smoke"]) if path.stem[:2] in SEARCHES]
    finished = run_nbval(chosen, tmp_path / "outputs")
    assert finished.returncode == 0, finished.stdout[-8000:]
    made = tmp_path / "outputs" / "smoke" / "simulated" / "results"
    assert {"search.csv", "search_comparators.csv", "scaling_bounds.csv"} <= {path.name for path in made.glob("*.csv")}


@pytest.mark.slow
def test_a_run_leaves_the_work_tree_clean_and_the_committed_results_as_they_were(clone):
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == ""
    checks = ["tests/test_repository.py", "tests/experiments/test_reproduction.py", "-p", "no:cacheprovider"]
    tested = subprocess.run([sys.executable, "-m", "pytest", *checks], cwd=clone, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout[-4000:]


@pytest.mark.slow
def test_a_second_run_does_nothing(clone):
    again = run_make(clone, "all", PROFILE="smoke", DATA="simulated")
    assert again.returncode == 0, again.stderr
    assert "Nothing to be done" in again.stdout


@pytest.mark.slow
def test_a_sweep_by_make_trains_nothing_that_the_notebooks_trained(clone):
    runs = {path: path.stat().st_mtime_ns for path in clone.rglob("models/*/run.json")}
    swept = run_make(clone, "sweep", "SWEEP=--shares 1 --workers 1", PROFILE="smoke", DATA="simulated")
    assert swept.returncode == 0, swept.stderr
    assert {path: path.stat().st_mtime_ns for path in clone.rglob("models/*/run.json")} == runs, "trained again"
    (written,) = clone.rglob("results/sweep.csv")
    assert len(pd.read_csv(written)) == 4 + 4 + 2 * 2
    assert swept.stdout.count("run.py") == 0


@pytest.mark.slow
def test_what_only_the_benchmark_has_runs_too(tmp_path):
    """Its seeds, steps, folds, shares and controls, in the sizes of the smoke profile."""
    left_to_it = {
        "05_explain_transfer": PROFILES["benchmark"]["05_explain_transfer"] | {"SEEDS": [0], "SHARES": [0.1, 1.0]},
        "06_build_unified": PROFILES["benchmark"]["06_build_unified"]
        | {"SEEDS": [0], "STEP_SEEDS": [100, 101], "FOLDS": [0]},
    }
    parameters = {
        name: PROFILES["smoke"].get(name, {}) | left_to_it.get(name, {}) for name in (path.stem for path in NOTEBOOKS)
    }
    chosen = [path for path in prepared(tmp_path, parameters) if path.stem[:2] in ("03", "05", "06")]
    finished = run_nbval(chosen, tmp_path / "outputs")
    assert finished.returncode == 0, finished.stdout[-8000:]
    made = tmp_path / "outputs" / "smoke" / "simulated" / "results"
    steps = pd.read_csv(made / "unified_steps.csv")["model"]
    assert set(steps) == {*PROFILES["benchmark"]["06_build_unified"]["STEP_NAMES"], "step_ensemble"}
    assert len(pd.read_csv(made / "unified_folds.csv")) == 5
    assert "unified_shared" in set(pd.read_csv(made / "unified_environment.csv")["model"])
    controls = PROFILES["benchmark"]["05_explain_transfer"]["CONTROLS"]
    assert set(controls) < set(pd.read_csv(made / "transfer_controls.csv")["model"])


@pytest.mark.slow
def test_notebooks_run_on_measured_data(tmp_path, measured_campus, measured_city):
    """All of them, in the sizes of the smoke profile."""
    chosen = [path for path in prepared(tmp_path, PROFILES["smoke"]) if path.stem[:2] != "00"]
    finished = run_nbval(chosen, tmp_path / "outputs", DATA="real")
    assert finished.returncode == 0, finished.stdout[-8000:]
    benchmark = pd.read_csv(tmp_path / "outputs" / "smoke" / "results" / "benchmark.csv")
    releases = {str(measured_campus.release), str(measured_city.release)}
    assert set(benchmark["release"]) == releases
