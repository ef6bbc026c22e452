"""Environment files, README and committed outputs do what they say."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib

import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from benchmarks import speed
from lib import __main__ as command
from lib.experiments import settings
from lib.models import paper
from lib.paths import ROOT
from lib.report import claims, document, results

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


# === Rooms ===

ROOMS = ["", "data", "models", "use", "report", "experiments"]  # each may import itself and those before it


def test_rooms_of_the_library_import_one_way():
    for path in sorted((ROOT / "lib").rglob("*.py")):
        if path.name == "__main__.py":
            continue
        room = path.relative_to(ROOT / "lib").parts[0] if path.parent.name != "lib" else ""
        allowed = set(ROOMS[: ROOMS.index(room) + 1])
        for imported in re.findall(r"^ *from lib\.([a-z_]+)", path.read_text(), flags=re.MULTILINE):
            target = imported if imported in ROOMS else ""
            assert target in allowed, f"{path} imports {imported}"


def test_no_environments_name_decides_anything_outside_its_loader():
    """Names stand where sets are loaded, simulated and parted, and in labels of figures."""
    free = {"datasets.py", "loaders.py", "simulate.py", "protocols.py", "style.py"}
    for path in sorted((ROOT / "lib").rglob("*.py")):
        if path.name not in free:
            code = ast.parse(path.read_text())
            compared = [node for node in ast.walk(code) if isinstance(node, ast.Constant)]
            assert not {"ujiindoorloc", "lorawan_antwerp"} & {str(node.value) for node in compared}, path


# === README and committed outputs ===

BENCHMARKED = {
    *("knn_euclidean", "knn_sorensen", "knn_sorensen_13", "knn_anagnostopoulos", "knn_weighted"),
    *("extra_trees", "random_forest", "gradient_boosting", "mlp_plain", "mlp_anagnostopoulos"),
    *("hierarchical_dnn", "hadnn", "ea_cnn", "encoder_scratch", "encoder_tl", "umlp", "unified"),
}


def test_readme_shows_the_tables_as_they_are_in_outputs():
    readme = (ROOT / "README.md").read_text()
    assert "<!-- table: claims -->" in readme
    assert document.fill(readme, ROOT / "outputs" / "tables") == readme


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
        name, *arguments = shlex.split(line)
        command.main.commands[name].make_context(name, arguments)  # raises what the user would see


NOT_YET_COMMITTED = ("ground_m", "evaal_m")  # the next benchmark run writes these columns


def test_committed_results_are_of_measured_data_and_of_the_promised_columns():
    for path in sorted((ROOT / "outputs" / "results").glob("*.csv")):
        text = path.read_text()
        assert "simulated" not in text, path.name
    benchmark = results.read(ROOT / "outputs" / "results" / "benchmark.csv")
    promised = tuple(name for name in results.COLUMNS if name in benchmark or name not in NOT_YET_COMMITTED)
    assert tuple(benchmark.columns) == promised
    seeds = benchmark.dropna(subset="seed").groupby(["environment", "protocol", "model"])["seed"].nunique()
    assert (seeds >= 5).all()
    assert set(benchmark["model"]) == BENCHMARKED


def test_tables_are_rendered_from_the_result_files():
    tables, measured = ROOT / "outputs" / "tables", ROOT / "outputs" / "results"
    shown = pd.concat([pd.read_csv(path, dtype=str) for path in sorted(tables.glob("table2_*.csv"))])
    summary = results.summarise(results.read(measured / "benchmark.csv"), ["ground_m"])
    assert sorted(shown[results.HEADINGS["ground_m"]].dropna()) == sorted(summary["ground_m"])
    ledger = results.read(measured / "claims.csv")
    parts = [results.read(path) for path in sorted(measured.glob("claims_*.csv"))]
    pd.testing.assert_frame_equal(ledger, pd.concat(parts, ignore_index=True), check_dtype=False)
    table = pd.read_csv(tables / "claims.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(table, claims.shown_claims(ledger), check_dtype=False)


UNIT = re.compile(r"\((m|s|ms|µs|MB|%|dB|dBm|1/s)[ ,)]|\bseconds\b|\bepochs\b")
WITHOUT_UNIT = {  # counts, ratios, probabilities; `paper` and `ours` have the unit of their claim
    *("seeds", "training rows", "test rows", "validation rows", "transmitters", "count", "of", "silent scans"),
    *("scans with another building or floor", "scans in the batch", "trainings done", "trainings recalled"),
    *("times as fast as PyTorch", "times as fast as Keras defaults", "together / alone", "p", "p (Holm)"),
    *("validation RMSE, × lowest from scratch", "exponent of time (s)", "exponent of peak memory (MB)"),
    *("paper", "ours", "month", "new scans"),
}


def test_every_column_of_numbers_has_a_unit_or_is_a_count():
    for path in sorted((ROOT / "outputs" / "tables").glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for name in table.columns[table.apply(results.column_of_numbers)]:
            in_percent = table[name].str.endswith("%").any()
            assert in_percent or name in WITHOUT_UNIT or UNIT.search(name), f"{path.name}: {name}"
            assert not table[name].str.contains(r"\de[+-]\d").any(), f"{path.name}: {name} has an exponent"


def test_no_committed_table_has_names_or_numbers_for_machines():
    for path in sorted((ROOT / "outputs" / "tables").glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert not set(results.HEADINGS) & set(table.columns), path.name


def test_the_ledger_has_only_claims_of_the_paper_and_their_rules():
    ledger = results.read(ROOT / "outputs" / "results" / "claims.csv")
    assert tuple(ledger.columns) == claims.CLAIM_COLUMNS and ledger["rule"].notna().all()
    assert not ledger["claim"].str.contains("base model from|−120").any()


def test_tables_of_the_benchmark_are_rendered_from_its_times():
    times, tried = (results.read(ROOT / "outputs" / "results" / f"{name}.csv") for name in ("speed", "speed_variants"))
    assert tuple(times.columns) == tuple(tried.columns) == speed.COLUMNS
    for name, expected in (speed.shown(times) | {"speed_variants": speed.shown_variants(tried)}).items():
        table = pd.read_csv(ROOT / "outputs" / "tables" / f"{name}.csv", dtype=str, keep_default_na=False)
        pd.testing.assert_frame_equal(table, expected.reset_index(drop=True), check_dtype=False)


def test_configuration_is_what_the_search_chose():
    search = pd.read_csv(ROOT / "outputs" / "results" / "search.csv")
    chosen = search[search["chosen"]].set_index("model")
    for searched, name in {"localizer": "encoder", "umlp": "umlp"}.items():
        used = settings.described(name)["settings"]
        row = chosen.loc[searched]
        for value in ("config", "dropout", "learning_rate"):
            assert used[value] == row[value], (name, value)
    assert chosen.loc["localizer", "config"] == paper.DEFAULT


def test_bounds_of_eq_5_are_what_the_search_chose():
    trials = pd.read_csv(ROOT / "outputs" / "results" / "scaling_bounds.csv")
    means = trials.pivot_table("validation_mean_m", ["lower", "upper"], "environment", sort=False)
    relative = (means / means.min()).mean(axis=1).round(2)
    for name in ("encoder", "umlp"):
        assert settings.described(name)["settings"]["bounds"] == list(relative.idxmin())
