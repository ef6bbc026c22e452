"""Environment files, pages and committed outputs do what they say."""

import ast
import re
import shlex
import shutil
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
from lib.report import claims, document, front, results

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


# === Pages ===

PAGES = [*front.pages(), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "data" / "README.md"]
README = ROOT / "README.md"
SCREEN = 120  # characters that a table of the front page may be wide
CODE = re.compile(r"^( *)```.*?^\1```$", flags=re.DOTALL | re.MULTILINE)


def named(path) -> str:
    return str(path.relative_to(ROOT))


def test_pages_show_the_tables_and_figures_as_they_are_in_outputs():
    texts = {page: page.read_text() for page in front.pages()}
    marks = document.marks("".join(texts.values()))
    assert {"findings", "front_table", "claims"} <= set(marks["table"])
    for page, text in texts.items():
        shown = [*marks["table"], *marks["figure"]]
        assert document.fill(text, ROOT / "outputs", page.parent, elsewhere=shown) == text, named(page)


def test_a_mark_names_what_is_there_or_what_some_code_writes():
    code = "".join(path.read_text() for path in sorted(ROOT.glob("notebooks/*.ipynb")))
    code += "".join(path.read_text() for path in sorted(ROOT.glob("lib/report/**/*.py")))
    marks = document.marks("".join(page.read_text() for page in front.pages()))
    for kind, suffix in {"table": "md", "figure": "png"}.items():
        for name in marks[kind]:
            assert (ROOT / "outputs" / f"{kind}s" / f"{name}.{suffix}").exists() or name in code, name


def test_the_front_page_is_short_and_its_tables_fit_a_screen():
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    assert len(text.encode()) <= 14 * 1024
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.sub(r"\]\([^)]+\)", "]", line)) <= SCREEN, line


@pytest.mark.parametrize("page", ["README.md", "docs/model_card.md", "docs/performance.md", "docs/use.md"])
def test_no_result_is_typed(page):
    text = CODE.sub("", (ROOT / page).read_text())
    typed = re.sub(r"<!-- (table|figure): .*?<!-- end -->", "", text, flags=re.DOTALL)
    assert not re.findall(r"± *\d.*|\d+\.\d+ (?:m|%|s|ms|times)\b.*", typed)


def test_every_committed_figure_is_shown_by_a_page():
    listed = subprocess.run(
        ["git", "ls-files", "outputs/figures"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    text = "".join(page.read_text() for page in PAGES)
    for figure in listed.stdout.split():
        assert figure in text, figure


def test_the_front_page_links_every_notebook():
    text = README.read_text()
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert f"notebooks/{notebook.name})" in text, notebook.name


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_of_a_page_exist(page):
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|^|[A-Z]=\S+ )make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets
    for module in re.findall(r"python -m (lib\.[a-z_.]+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
    for line in re.findall(r"^\.venv/bin/python -m lib (.*)$", text, flags=re.MULTILINE):
        name, *arguments = shlex.split(line)
        if name != "fit" or "NAME" not in arguments:  # CONTRIBUTING's is an environment that is still to come
            command.main.commands[name].make_context(name, arguments)  # raises what the user would see


def test_the_front_page_and_its_companions_show_every_command():
    text = README.read_text() + (ROOT / "docs" / "use.md").read_text()
    shown = re.findall(r"^\.venv/bin/python -m lib ([a-z]+)", text, flags=re.MULTILINE)
    assert set(shown) == set(command.main.commands)
    assert {"setup", "all", "test"} <= set(re.findall(r"make ([a-z]+)", README.read_text()))


def without_digits(text: str) -> list[list[str]]:
    """Words of each line, digits masked: they differ between processors."""
    return [re.sub(r"\d+", "0", line).split() for line in text.strip().splitlines()]


@pytest.mark.slow
def test_the_commands_of_the_front_page_print_what_it_shows(checkout, tmp_path):
    section = README.read_text().split("## Locate in five minutes")[1].split("\n## ")[0]
    commands, printed = re.findall(r"^```\w*\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
    folder = tmp_path / "clone"
    shutil.copytree(checkout, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    finished = subprocess.run(["bash", "-e", "-c", commands], cwd=folder, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    lines = without_digits(printed)
    assert without_digits(finished.stdout)[-len(lines) :] == lines


# === Committed outputs ===

BENCHMARKED = {
    *("knn_euclidean", "knn_sorensen", "knn_sorensen_13", "knn_anagnostopoulos", "knn_weighted"),
    *("extra_trees", "random_forest", "gradient_boosting", "mlp_plain", "mlp_anagnostopoulos"),
    *("hierarchical_dnn", "hadnn", "ea_cnn", "encoder_scratch", "encoder_tl", "umlp", "unified"),
}
OF_THE_PAPER = ("encoder_scratch", "encoder_tl", "umlp")  # with five seeds; all else that chance decides has three


def test_committed_results_are_of_measured_data_and_of_the_promised_columns():
    for path in sorted((ROOT / "outputs" / "results").glob("*.csv")):
        text = path.read_text()
        assert "simulated" not in text, path.name
    benchmark = results.read(ROOT / "outputs" / "results" / "benchmark.csv")
    assert tuple(benchmark.columns) == results.COLUMNS
    seeds = benchmark.dropna(subset="seed").groupby(["model", "environment", "protocol"])["seed"].nunique()
    assert (seeds >= 3).all() and (seeds.loc[list(OF_THE_PAPER)] >= 5).all()
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
    *("times as fast as PyTorch", "times as fast as Keras defaults", "p", "p (Holm)", "ratio of mean errors"),
    *("validation RMSE, × lowest from scratch", "exponent of time (s)", "exponent of peak memory (MB)"),
    *("paper", "ours", "month", "new scans"),
}


def test_every_column_of_numbers_has_a_unit_or_is_a_count():
    for path in sorted((ROOT / "outputs" / "tables").glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for name in table.columns[table.apply(results.column_of_numbers)]:
            in_percent = table[name].str.endswith("%").any()
            is_ratio = " / " in name
            has_unit = in_percent or is_ratio or UNIT.search(name)
            assert has_unit or name in WITHOUT_UNIT, f"{path.name}: {name}"
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


@pytest.mark.parametrize("model", ["mlp_anagnostopoulos", "hierarchical_dnn"])
def test_networks_of_others_have_the_best_setting_of_the_search(model):
    tried = pd.read_csv(ROOT / "outputs" / "results" / "search_comparators.csv")
    protocol_of = {"ujiindoorloc": "official", "lorawan_antwerp": "random"}
    for environment, panel in tried[tried["model"] == model].groupby("environment"):
        best = panel.groupby("setting")["validation_mean_m"].mean().idxmin()
        used = settings.of(model, [protocol_of[environment]])
        assert best == (", ".join(f"{name}={value}" for name, value in used.items()) or "default")


def test_bounds_of_eq_5_are_what_the_search_chose():
    trials = pd.read_csv(ROOT / "outputs" / "results" / "scaling_bounds.csv")
    means = trials.pivot_table("validation_mean_m", ["lower", "upper"], "environment", sort=False)
    relative = (means / means.min()).mean(axis=1).round(2)
    for name in ("encoder", "umlp"):
        assert settings.described(name)["settings"]["bounds"] == list(relative.idxmin())
