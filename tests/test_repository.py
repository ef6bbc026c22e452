"""Makefile, environment files, README and committed outputs do what they say."""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from benchmarks import speed
from lib import __main__ as command
from lib import experiments, models, results
from lib.paths import ROOT

BUILT = "notebooks/smoke-simulated"


def notebooks_in(output: str) -> list[str]:
    """Numbers of the notebooks that a `make -n` would run."""
    return re.findall(r"run\.py notebooks/(\d\d)_", output)


# === Makefile ===


def test_help_is_the_default_and_names_every_target(make, tmp_path):
    printed = make(outputs=tmp_path).stdout
    targets = (
        "help",
        "setup",
        "data",
        "all",
        "benchmark",
        "smoke",
        "search",
        "sweep",
        "bench",
        "test",
        "lab",
        "lock",
        "clean",
    )
    for target in targets:
        assert re.search(rf"^  {target} ", printed, flags=re.MULTILINE), target


def test_make_all_runs_every_notebook_once(make, made):
    assert sorted(path.stem[:2] for path in (made / BUILT).glob("*.ipynb")) == [
        "01",
        "02",
        "03",
        "04",
        "05",
        "06",
        "07",
        "08",
        "09",
        "10",
    ]
    again = make("all", outputs=made)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout


def test_make_sweep_takes_the_runs_with_all_rows_from_the_notebooks(make, made, tmp_path):
    outputs = tmp_path / "outputs"
    shutil.copytree(made, outputs)
    runs = {path: path.stat().st_mtime_ns for path in outputs.rglob("models/*/run.json")}
    swept = make("sweep", "SWEEP=--shares 1 --workers 1", outputs=outputs)
    assert swept.returncode == 0, swept.stderr
    assert {path: path.stat().st_mtime_ns for path in outputs.rglob("models/*/run.json")} == runs, "trained again"
    (written,) = outputs.rglob("results/sweep.csv")
    assert len(results.read(written)) == 4 + 4 + 2 * 2
    assert swept.stdout.count("run.py") == 0


@pytest.mark.parametrize(
    ("touched", "rerun"),
    [
        ("lib/baselines.py", ["02", "03", "04", "05", "06", "07", "09"]),
        ("lib/models.py", ["02", "03", "04", "05", "06", "07", "08", "09", "10"]),
        ("lib/plots.py", ["01", "02", "03", "04", "05", "06", "07", "08", "09"]),
        ("notebooks/01_explore_rssi.ipynb", ["01", "05"]),
        ("notebooks/04_umlp.ipynb", ["04", "05", "06", "09"]),
    ],
)
def test_a_touched_file_reruns_what_depends_on_it(make, made, touched, rerun):
    would = make("-n", "-W", touched, "all", outputs=made)
    assert sorted(notebooks_in(would.stdout)) == rerun


def test_a_failed_notebook_is_kept_with_its_traceback_and_no_target(make, checkout, tmp_path):
    notebook = checkout / "notebooks" / "01_explore_rssi.ipynb"
    target, whole = tmp_path / BUILT / notebook.name, notebook.read_text()
    try:
        notebook.write_text(whole.replace("datasets.load(", "datasets.lode("))
        finished = make(str(target), outputs=tmp_path)
    finally:
        notebook.write_text(whole)
    assert finished.returncode != 0
    assert not target.exists()
    assert "AttributeError" in target.with_suffix(".failed.ipynb").read_text()
    assert "01_explore_rssi.ipynb failed; see" in finished.stderr


def test_a_killed_run_leaves_no_target(checkout, tmp_path):
    target = tmp_path / "01_explore_rssi.ipynb"
    chosen = {
        "PROFILE": "smoke",
        "DATA": "simulated",
        "FINGERPRINT_OUTPUTS": str(tmp_path),
        "PYTHONPATH": str(checkout),
    }
    command = [sys.executable, "notebooks/run.py", "notebooks/01_explore_rssi.ipynb", str(target)]
    with subprocess.Popen(command, cwd=checkout, env=os.environ | chosen, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("fig2a*.png")) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    assert list(tmp_path.rglob("fig2a*.png")), "the run was killed before it did anything"
    assert not target.exists()


def imported(module: str, seen: set[str]) -> set[str]:
    """Modules of lib/ that one of them imports, directly or not, itself included."""
    if module not in seen:
        seen.add(module)
        for name in imports_of((ROOT / "lib" / f"{module}.py").read_text()):
            imported(name, seen)
    return seen


def imports_of(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "lib":
            found |= {alias.name for alias in node.names if (ROOT / "lib" / f"{alias.name}.py").exists()}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib."):
            found.add(node.module.removeprefix("lib."))
    return found


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_makefile_names_what_a_notebook_imports(make, tmp_path, notebook):
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    needed = set().union(*(imported(name, set()) for cell in cells for name in imports_of("".join(cell["source"]))))
    database = make("-pn", "help", outputs=tmp_path).stdout
    (line,) = re.findall(rf"^\S*/{notebook.stem}\.ipynb: (.*)$", database, flags=re.MULTILINE)
    assert needed | {"__init__"} == {Path(path).stem for path in line.split() if path.startswith("lib/")}


def test_library_imports_go_one_way():
    order = ["paths", "fingerprints", "simulate", "datasets", "splits", "preprocess", "models", "places"]
    order += ["training", "unified", "metrics", "results", "plots", "error_plots", "baselines", "baseline_networks"]
    order += ["experiments", "sweep", "scans", "conformal", "localizer"]
    order += ["stress", "export", "__main__"]
    assert {path.stem for path in (ROOT / "lib").glob("*.py")} == {"__init__", *order}
    for position, module in enumerate(order):
        assert imports_of((ROOT / "lib" / f"{module}.py").read_text()) <= set(order[:position]), module


# === Environments ===


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [f"3.{minor}" for minor in range(20) if SpecifierSet(PROJECT["requires-python"]).contains(f"3.{minor}")]


def pinned(file: str, python: str, system: str) -> dict[str, str]:
    """Versions by package, as pip takes them from a file on one Python and system."""
    where = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system}
    lines = re.findall(r"^[a-z0-9._-]+==[^\\\n]+", (ROOT / file).read_text(), flags=re.MULTILINE)
    pins = [pin for pin in map(Requirement, lines) if pin.marker is None or pin.marker.evaluate(where)]
    assert len({pin.name for pin in pins}) == len(pins), "one version of each"
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}


@pytest.mark.parametrize("system", ["linux", "darwin"])
@pytest.mark.parametrize("python", PYTHONS)
def test_lock_pins_what_pyproject_asks_for(python, system):
    lock = pinned("requirements.lock", python, system)
    asked = [(lock, requirement) for requirement in PROJECT["dependencies"]]
    for group, requirements in PROJECT["optional-dependencies"].items():
        added = pinned(f"requirements-{group}.txt", python, system)
        assert not set(lock) & set(added), group
        asked += [(added, requirement) for requirement in requirements]
    for pins, requirement in asked:
        name, _, version = requirement.partition("==")
        assert name in pins, name
        assert version in ("", pins[name]), name


def test_conda_environment_installs_the_same_lock_on_the_same_python():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = environment["dependencies"]
    assert python == "python" + PROJECT["requires-python"]
    assert pip == {"pip": ["-r requirements.lock"]}


# === Style ===


def test_ruff_finds_nothing():
    for arguments in (["check"], ["format", "--check"]):
        ruff = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "."], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ruff.returncode == 0, ruff.stdout


# === README and committed outputs ===


def test_readme_shows_the_tables_as_they_are_in_outputs():
    readme = (ROOT / "README.md").read_text()
    assert "<!-- table: claims -->" in readme
    assert results.fill(readme, ROOT / "outputs" / "tables") == readme


def test_readme_commands_and_links_exist():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = set(re.findall(r"(?:`|^)make ([a-z]+)", readme, flags=re.MULTILINE))
    assert {"all", "test"} <= commands <= targets
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_readme_shows_commands_of_the_command_line_that_there_are():
    readme = (ROOT / "README.md").read_text()
    shown = re.findall(r"^\.venv/bin/python -m lib (.*)$", readme, flags=re.MULTILINE)
    assert {line.split()[0] for line in shown} == {"fit", "predict", "evaluate"}
    for line in shown:
        command.parser().parse_args(shlex.split(line))


def test_committed_results_are_of_measured_data_and_of_the_promised_columns():
    for path in sorted((ROOT / "outputs" / "results").glob("*.csv")):
        text = path.read_text()
        assert "simulated" not in text, path.name
    benchmark = results.read(ROOT / "outputs" / "results" / "benchmark.csv")
    assert tuple(benchmark.columns) == results.COLUMNS
    seeds = benchmark.dropna(subset="seed").groupby(["environment", "protocol", "model"])["seed"].nunique()
    assert (seeds >= 5).all()
    networks = {"encoder_scratch", "encoder_tl", "umlp", "unified"}
    assert set(experiments.COMPARATORS) | networks == set(benchmark["model"])


def test_tables_are_rendered_from_the_result_files():
    tables, measured = ROOT / "outputs" / "tables", ROOT / "outputs" / "results"
    shown = pd.concat([pd.read_csv(path, dtype=str) for path in sorted(tables.glob("table2_*.csv"))])
    summary = results.summarise(results.read(measured / "benchmark.csv"))
    assert sorted(shown["mean_m"].dropna()) == sorted(summary["mean_m"])
    ledger = results.read(measured / "claims.csv")
    parts = [results.read(path) for path in sorted(measured.glob("claims_*.csv"))]
    pd.testing.assert_frame_equal(ledger, pd.concat(parts, ignore_index=True), check_dtype=False)
    table = pd.read_csv(tables / "claims.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(table, results.shown_claims(ledger), check_dtype=False)


def test_tables_of_the_benchmark_are_rendered_from_its_times():
    times, tried = (results.read(ROOT / "outputs" / "results" / f"{name}.csv") for name in ("speed", "speed_variants"))
    assert tuple(times.columns) == tuple(tried.columns) == speed.COLUMNS
    for name, expected in (speed.shown(times) | {"speed_variants": speed.shown_variants(tried)}).items():
        table = pd.read_csv(ROOT / "outputs" / "tables" / f"{name}.csv", dtype=str, keep_default_na=False)
        pd.testing.assert_frame_equal(table, expected.reset_index(drop=True), check_dtype=False)


def test_configuration_is_what_the_search_chose():
    search = pd.read_csv(ROOT / "outputs" / "results" / "search.csv")
    chosen = search[search["chosen"]].set_index("model")
    for model, notebook in {"localizer": "03_transfer_learning", "umlp": "04_umlp"}.items():
        source = "".join(
            "".join(cell["source"]) + "\n"
            for cell in json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
            if "parameters" in cell["metadata"].get("tags", [])
        )
        used = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}
        row = chosen.loc[model]
        assert (used["CONFIG"], used["DROPOUT"], used["LEARNING_RATE"]) == (
            row["config"],
            row["dropout"],
            row["learning_rate"],
        )
    assert chosen.loc["localizer", "config"] == models.DEFAULT
