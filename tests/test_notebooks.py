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
import yaml

from lib import experiments
from lib.paths import ROOT
from lib.results import CLOCK_COLUMNS

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROFILES = yaml.safe_load((ROOT / "notebooks" / "profiles.yaml").read_text())
NBVAL = ("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600", "-p", "no:cacheprovider", "-q")


def tags(cell) -> list[str]:
    return cell["metadata"].get("tags", [])


def environment(outputs: Path) -> dict[str, str]:
    chosen = {"DATA": "simulated", "PROFILE": "smoke", "FINGERPRINT_OUTPUTS": str(outputs), "PYTHONPATH": str(ROOT)}
    return os.environ | chosen


def run_nbval(folder: Path, outputs: Path) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "pytest",
        *NBVAL,
        "--rootdir",
        str(folder),
        # as make does: 05 takes in the claims of 06 and the results of 07
        *map(str, sorted(folder.glob("*.ipynb"), key=lambda path: path.stem.replace("05_", "07_z"))),
    ]
    return subprocess.run(command, cwd=folder, env=environment(outputs), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param, nbformat.read(request.param, as_version=4)


def test_there_is_a_notebook_for_every_step():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["00", "00", *(f"{number:02d}" for number in range(1, 11))]


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
    assert cells[-1]["cell_type"] == "markdown" and cells[-1]["source"].startswith("## Conclusion")


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


def test_an_unknown_parameter_is_an_error(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "notebooks")
    import run

    with pytest.raises(ValueError, match="PROFILE must be one of full, benchmark, smoke"):
        run.parameters(NOTEBOOKS[0], "huge")
    monkeypatch.setattr(run.yaml, "safe_load", lambda text: {"full": {NOTEBOOKS[0].stem: {"SEEDZ": 1}}})
    with pytest.raises(ValueError, match=r"00_search_comparators.ipynb has no parameter SEEDZ"):
        run.parameters(NOTEBOOKS[0], "full")


@pytest.fixture(scope="module")
def nbval_outputs(tmp_path_factory):
    """Outputs of all notebooks, run by nbval with smoke parameters on the simulator."""
    folder, outputs = tmp_path_factory.mktemp("nbval"), tmp_path_factory.mktemp("nbval-outputs")
    for path in NOTEBOOKS:
        copy = papermill.execute_notebook(
            path, None, PROFILES["smoke"].get(path.stem, {}), prepare_only=True, progress_bar=False
        )
        for cell in copy["cells"]:
            if "keep_output" in tags(cell):
                cell["execution_count"] = 1  # without one, nbval takes the kept output for a mistake
        nbformat.write(copy, folder / path.name)
    finished = run_nbval(folder, outputs)
    assert finished.returncode == 0, finished.stdout[-8000:]
    return outputs / "smoke" / "simulated"


def test_nbval_runs_every_notebook_on_the_simulator(nbval_outputs):
    for name in ("fig2a", "fig2b", "fig3a", "fig3b", "fig4", "fig5", "benchmark"):
        assert list((nbval_outputs / "figures").glob(f"{name}*.png")), name
    assert (nbval_outputs / "tables" / "claims.md").read_text().startswith("**SIMULATED DATA")
    benchmark = pd.read_csv(nbval_outputs / "results" / "benchmark.csv")
    assert benchmark["release"].str.contains("simulated").all()
    assert set(benchmark["model"]) == {*experiments.COMPARATORS, "encoder_scratch", "encoder_tl", "umlp", "unified"}


def test_nothing_is_claimed_from_simulated_data(nbval_outputs):
    verdicts = pd.read_csv(nbval_outputs / "tables" / "claims.csv")["verdict"]
    assert (verdicts == "cannot be checked on this release").all()


def test_same_seed_twice_gives_identical_result_files(nbval_outputs, made):
    """nbval and make run the same notebooks in different processes; only clocks may differ."""
    first, second = nbval_outputs / "results", made / "smoke" / "simulated" / "results"
    names = {path.name for path in first.glob("*.csv")} - {
        "search.csv",
        "search_comparators.csv",
    }  # make all does not search
    assert names == {path.name for path in second.glob("*.csv")}
    for name in names:
        one, other = (
            pd.read_csv(folder / name).drop(columns=list(CLOCK_COLUMNS), errors="ignore") for folder in (first, second)
        )
        pd.testing.assert_frame_equal(one, other, check_exact=True, obj=name)


def test_nbval_really_compares(tmp_path):
    """A kept output that is not what the cell prints makes nbval fail."""
    source = nbformat.read(ROOT / "notebooks" / "02_preprocess.ipynb", as_version=4)
    imports, kept = source["cells"][1], next(cell for cell in source["cells"] if "keep_output" in tags(cell))
    source["cells"], kept["execution_count"] = [imports, kept], 1
    nbformat.write(source, tmp_path / "kept.ipynb")
    assert run_nbval(tmp_path, tmp_path / "outputs").returncode == 0
    text = json.dumps(kept["outputs"])
    assert "0.1" in text
    kept["outputs"] = [nbformat.from_dict(output) for output in json.loads(text.replace("0.1", "0.2"))]
    nbformat.write(source, tmp_path / "kept.ipynb")
    assert run_nbval(tmp_path, tmp_path / "outputs").returncode == 1
