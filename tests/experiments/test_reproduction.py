"""A run says what it took, on which machine, and whether it agrees with the committed results."""

import json

import nbformat
import pandas as pd
import pytest

from lib import paths
from lib.experiments import reproduction
from lib.paths import ROOT
from lib.report import results

COMMITTED = ROOT / "outputs" / "results"


def benchmark(model: str, errors: dict, release: str = "campus (10 rows)") -> pd.DataFrame:
    """Result rows of one model under one protocol, by seed."""
    panel = {"environment": "campus", "release": release, "protocol": "pooled", "model": model}
    return pd.DataFrame([panel | {"seed": seed, "mean_m": error} for seed, error in errors.items()])


FIVE = {0: 5.0, 1: 5.1, 2: 4.9, 3: 5.2, 4: 4.8}  # standard deviation 0.158


@pytest.mark.parametrize(
    ("committed", "ours", "agrees"),
    [
        ({None: 6.541}, {None: 6.5404}, True),  # the same to the digits that a table shows
        ({None: 6.541}, {None: 6.55}, False),
        (FIVE, FIVE, True),
        (FIVE, {0: 5.4, 1: 5.35, 2: 5.3}, False),  # 3.03 standard errors
        (FIVE, {0: 5.4}, True),  # of one seed: 2.3 standard errors, of 2.78 that are allowed
        (FIVE, {0: 5.5}, False),
    ],
)
def test_agreement(committed, ours, agrees):
    table = reproduction.compared(benchmark("some", committed), benchmark("some", ours))
    assert table["agrees"].tolist() == [agrees]
    assert table["seeds here"].tolist() == [len(ours)]


def test_the_interval_allows_what_a_prediction_interval_allows():
    """An independent reference: with five seeds and m new ones, t(0.975, 4) = 2.776."""
    allowed = 2.776 * 0.15811 * (1 / 5 + 1 / 3) ** 0.5
    for factor, agrees in ((0.99, True), (1.01, False)):
        error = 5.0 + factor * allowed
        ours = benchmark("some", {0: error, 1: error, 2: error})
        table = reproduction.compared(benchmark("some", FIVE), ours)
        assert table["agrees"].tolist() == [agrees]


def test_what_only_one_of_both_has_is_left_out():
    committed = pd.concat([benchmark("both", FIVE), benchmark("committed", FIVE)])
    ours = pd.concat([benchmark("both", FIVE), benchmark("ours", FIVE), benchmark("both", FIVE, "city (3 rows)")])
    assert reproduction.compared(committed, ours)["model"].tolist() == ["both"]


def test_each_share_of_the_rows_is_compared_with_the_same_share():
    committed = pd.concat([benchmark("some", FIVE), benchmark("some", {0: 9.0, 1: 9.1}).assign(share=0.1)])
    committed = committed.fillna({"share": 1.0})
    ours = pd.concat([benchmark("some", {0: 9.05}).assign(share=0.1), benchmark("some", {0: 9.05}).assign(share=1.0)])
    table = reproduction.compared(committed, ours)
    assert dict(zip(table["share"], table["agrees"], strict=True)) == {1.0: False, 0.1: True}


@pytest.mark.parametrize("name", reproduction.COMPARED)
def test_the_committed_results_agree_with_themselves(name):
    committed = results.read(COMMITTED / f"{name}.csv")
    table = reproduction.compared(committed, committed)
    keys = ["protocol", "model", *[column for column in ("share",) if column in committed]]
    assert len(table) == len(committed.groupby(keys))
    assert table["agrees"].all()
    text = reproduction.report(table, json.loads((COMMITTED / "provenance.json").read_text()))
    assert f"{len(table)} of {len(table)} mean errors on test rows agree" in text


def test_a_report_names_what_does_not_agree():
    table = reproduction.compared(benchmark("some", FIVE), benchmark("some", {0: 9.0}))
    provenance = {"commit": "abc", "machine": {"processor": "a processor", "cores": 2, "instructions": ["avx2"]}}
    text = reproduction.report(table, provenance)
    assert "0 of 1 mean errors" in text and "commit abc (a processor, 2 cores, avx2)" in text
    assert "NO" in text
    assert reproduction.report(table[:0], provenance).startswith("Nothing to compare")


# === Provenance ===


@pytest.fixture
def built(tmp_path):
    """What two notebooks left."""
    folder = tmp_path / "built"
    folder.mkdir()
    for number, name in enumerate(("01_first", "02_second")):
        record = {"notebook": name, "started": 100.0 + number, "seconds": 10.0, "trained": 3, "recalled": number}
        (folder / f"{name}.json").write_text(json.dumps(record))
        (folder / f"{name}.ipynb").touch()
    return folder


def test_a_whole_run_leaves_its_provenance_and_the_time_of_each_notebook(built, workspace, capsys):
    reproduction.finish(built, workspace, "smoke", True, 99.0)
    provenance = json.loads((workspace.results / "provenance.json").read_text())
    assert set(provenance) == {"commit", "date", "profile", "seconds", "machine", "threads", "versions", "notebooks"}
    assert provenance["machine"]["cores"] >= 1 and provenance["machine"]["processor"]
    assert [record["notebook"] for record in provenance["notebooks"]] == ["01_first", "02_second"]
    table = pd.read_csv(workspace.tables / "speed_pipeline.csv")
    assert table["notebook"].tolist() == ["01_first", "02_second", "sum"]
    assert table["trainings done"].tolist() == [3, 3, 6]
    assert "compared with nothing" in capsys.readouterr().out


def seconds_of(workspace):
    return json.loads((workspace.results / "provenance.json").read_text())["seconds"]


def test_a_run_that_continued_another_has_a_commit_and_no_time(built, workspace, capsys):
    reproduction.finish(built, workspace, "smoke", True, 99.0)
    assert seconds_of(workspace) > 0
    reproduction.finish(built, workspace, "smoke", True, 100.5)  # the first notebook is older
    assert seconds_of(workspace) is None
    assert "A run that continued another" in capsys.readouterr().out


def test_a_run_that_recalled_what_it_did_not_train_has_no_time(built, workspace):
    log = built / "01_first.trainings.csv"
    for lines, measured in (("trained,1.0,a\nrecalled,1.0,a\n", True), ("trained,1.0,a\nrecalled,1.0,b\n", False)):
        log.write_text(lines)
        reproduction.finish(built, workspace, "smoke", True, 99.0)
        assert (seconds_of(workspace) is not None) == measured


def test_a_run_that_did_nothing_leaves_the_provenance_as_it_was(built, workspace):
    reproduction.finish(built, workspace, "smoke", True, 99.0)
    before = (workspace.results / "provenance.json").read_bytes()
    reproduction.finish(built, workspace, "smoke", True, 200.0)
    assert (workspace.results / "provenance.json").read_bytes() == before


@pytest.mark.parametrize(("simulated", "copies"), [(False, ["01_first.ipynb", "02_second.ipynb"]), (True, [])])
def test_the_committed_run_leaves_its_executed_notebooks(built, workspace, simulated, copies):
    for path in built.glob("*.ipynb"):
        nbformat.write(nbformat.v4.new_notebook(), path)
    reproduction.finish(built, workspace, "benchmark", simulated, 99.0)
    assert sorted(path.name for path in workspace.outputs.glob("notebooks/*.ipynb")) == copies


def test_a_run_of_the_default_profile_is_compared_with_the_committed_results(built, workspace, capsys):
    for name in reproduction.COMPARED:
        committed = results.read(COMMITTED / f"{name}.csv")
        results.write(committed[committed["seed"].isin([0, 1, 2])], workspace.results / f"{name}.csv")
    reproduction.finish(built, workspace, "full", False, 99.0)
    text = (workspace.outputs / "reproduction.md").read_text()
    assert text in capsys.readouterr().out
    assert "NO" not in text


def test_committed_results_say_what_made_them():
    provenance = json.loads((COMMITTED / "provenance.json").read_text())
    assert provenance["profile"] == paths.COMMITTED
    assert provenance["commit"] and provenance["date"] and provenance["machine"]["processor"]
    expected = reproduction.pipeline_table(provenance["notebooks"])
    table = pd.read_csv(ROOT / "outputs" / "tables" / "speed_pipeline.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
