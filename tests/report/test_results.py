"""Result rows and tables; and that nothing half-written is ever taken for a result."""

import numpy as np
import pandas as pd
import pytest

from lib import metrics, paths
from lib.models.estimator import Located
from lib.report import results

COSTS = {"n_train": 1234, "fit_seconds": 12.5, "predict_us": 3.25}


def moved(parts, east=3.0, north=4.0, **labels):
    """Predictions that are off by the same vector everywhere."""
    return Located(parts.test.position + np.array([east, north]), **labels)


def result_rows(**changes):
    """Three seeds of one model and one run of another."""
    common = {"environment": "ujiindoorloc", "release": "made (9 rows)", "protocol": "official", "n_test": 3}
    rows = []
    for seed in range(3):
        rows.append({"model": "encoder_tl", "seed": seed, "mean_m": 10.0 + seed, "median_m": 8.0})
    rows.append({"model": "knn_euclidean", "seed": None, "mean_m": 9.61, "median_m": 7.0})
    table = pd.DataFrame(rows).assign(**common)
    return table.reindex(columns=results.COLUMNS).assign(**changes)


# === Result rows ===


def test_row_has_the_columns_of_the_contract(indoor, workspace):
    row = results.evaluated(indoor, moved(indoor), "umlp", 3, workspace, epochs=20, **COSTS)
    assert tuple(row) == results.COLUMNS
    identity = ("environment", "release", "protocol", "model", "seed", "n_train", "n_test")
    release = "simulated campus (seed 0) (800 rows)"
    sizes = (1234, 200)
    assert tuple(row[name] for name in identity) == ("ujiindoorloc", release, "official", "umlp", 3, *sizes)
    assert (row["epochs"], row["fit_seconds"], row["predict_us"]) == (20, 12.5, 3.25)


def test_errors_of_a_row_are_those_of_eq_6_indoors(indoor, workspace):
    row = results.evaluated(indoor, moved(indoor), "umlp", 0, workspace, **COSTS)
    assert [row[name] for name in ("mean_m", "median_m", "p75_m", "p95_m")] == pytest.approx([5.0] * 4)
    scaled = np.array([3.0, 4.0]) / np.ptp(indoor.train.position, axis=0)
    assert row["rmse_normalised"] == pytest.approx(np.sqrt(np.mean(scaled**2)), rel=1e-4)


def test_errors_of_a_row_are_those_of_eq_7_outdoors(outdoor, workspace):
    located = moved(outdoor, 30, -40)
    row = results.evaluated(outdoor, located, "umlp", 0, workspace, **COSTS)
    to_degrees = outdoor.test.frame.to_degrees
    expected = metrics.haversine_errors(to_degrees(outdoor.test.position), to_degrees(located.position))
    assert row["mean_m"] == pytest.approx(expected.mean()) and row["mean_m"] == pytest.approx(50, abs=0.01)


def test_ground_metres_of_a_row_are_those_of_the_frame(indoor, outdoor, workspace):
    scale = indoor.test.frame.ground_scale
    row = results.evaluated(indoor, moved(indoor), "umlp", 0, workspace, **COSTS)
    assert scale < 0.8 and row["ground_m"] == pytest.approx(5 * scale)
    row = results.evaluated(outdoor, moved(outdoor), "umlp", 0, workspace, **COSTS)
    assert row["ground_m"] == row["mean_m"]


def test_evaal_score_of_a_row_counts_ground_metres_floors_and_buildings(indoor, workspace):
    ground = 5 * indoor.test.frame.ground_scale
    building = indoor.test.building.copy()
    floor = indoor.test.floor.copy()
    building[:60] += 1
    floor[40:120] += 2
    for labels, expected in (
        ({}, ground),
        ({"building": building}, ground + 50),
        ({"floor": floor}, ground + 30),
        ({"building": building, "floor": floor}, ground + 50),  # 20 rows have 80 m more, 40 have 50 m and 60 have 30 m
    ):
        row = results.evaluated(indoor, moved(indoor, **labels), "knn", None, workspace, **COSTS)
        assert row["evaal_m"] == pytest.approx(expected)


def test_labels_that_only_the_model_has_cost_nothing(outdoor, workspace):
    labels = np.ones(len(outdoor.test))
    row = results.evaluated(outdoor, moved(outdoor, building=labels, floor=labels), "knn", None, workspace, **COSTS)
    assert row["evaal_m"] == pytest.approx(row["p75_m"])


def test_validation_rows_are_evaluated_by_their_own_positions(indoor, workspace):
    located = Located(indoor.validation.position + np.array([0.6, 0.8]))
    row = results.evaluated(indoor, located, "umlp", 0, workspace, "validation", **COSTS)
    assert row["n_test"] == len(indoor.validation) != len(indoor.test)
    assert row["mean_m"] == pytest.approx(1.0)


@pytest.mark.parametrize("seed", [0, 7, None])
def test_error_of_every_row_can_be_read_again(indoor, workspace, seed):
    located = Located(indoor.test.position + np.arange(200)[:, None] * [0.6, 0.8])
    row = results.evaluated(indoor, located, "knn_euclidean", seed, workspace, **COSTS)
    np.testing.assert_allclose(results.read_errors(workspace, row), np.arange(200), atol=1e-9)
    np.testing.assert_array_equal(results.read_errors(workspace, row, "predicted"), located.position)
    table = results.write([row], workspace.results / "benchmark.csv", results.COLUMNS)
    assert len(results.read_errors(workspace, table.iloc[0])) == 200
    assert len(results.read_errors(workspace, results.read(workspace.results / "benchmark.csv").iloc[0])) == 200


def test_errors_of_another_run_of_the_same_name_are_refused(workspace, indoor):
    row = results.evaluated(indoor, moved(indoor), "unified", 0, workspace, **COSTS)
    results.evaluated(indoor, moved(indoor, 6, 8), "unified", 0, workspace, **COSTS)
    with pytest.raises(ValueError, match=r"mean of the result row, 5 m\. Received: 10 m\. Another run"):
        results.read_errors(workspace, row)


def test_what_a_model_does_not_give_is_left_empty(indoor, workspace):
    row = results.evaluated(indoor, moved(indoor), "umlp", 0, workspace, **COSTS)
    assert [row[name] for name in ("building_hit", "floor_hit", "epochs")] == [None] * 3
    with pytest.raises(KeyError):
        results.read_errors(workspace, row, "right_place")


def test_building_and_floor_count_alone_and_together(indoor, workspace):
    building = indoor.test.building.copy()
    floor = indoor.test.floor.copy()
    building[:20] = -1
    floor[10:50] = -1
    located = moved(indoor, building=building, floor=floor)
    row = results.evaluated(indoor, located, "knn", None, workspace, **COSTS)
    assert (row["building_hit"], row["floor_hit"]) == (0.9, 0.8)
    right_place = results.read_errors(workspace, row, "right_place")
    np.testing.assert_array_equal(np.flatnonzero(~right_place), np.arange(50))


def test_labels_that_only_the_model_or_only_the_rows_have_are_not_counted(indoor, outdoor, workspace):
    labels = np.zeros(len(outdoor.test))
    located = moved(outdoor, building=labels, floor=labels)
    assert results.evaluated(outdoor, located, "knn", None, workspace, **COSTS)["floor_hit"] is None
    row = results.evaluated(indoor, moved(indoor, floor=indoor.test.floor), "knn", None, workspace, **COSTS)
    assert (row["building_hit"], row["floor_hit"]) == (None, 1.0)
    assert results.read_errors(workspace, row, "right_place").all()


def test_rows_of_shares_have_a_column_more_and_files_of_their_own(indoor, workspace):
    row = results.evaluated(indoor, moved(indoor), "umlp", 0, workspace, share=1.0, **COSTS)
    few = results.evaluated(indoor, moved(indoor, 6, 8), "umlp", 0, workspace, share=0.05, **COSTS)
    assert tuple(row) == tuple(few) == (*results.COLUMNS, "share")
    assert (row["share"], few["share"]) == (1.0, 0.05)
    assert results.read_errors(workspace, row).mean() == pytest.approx(5)
    assert results.read_errors(workspace, few).mean() == pytest.approx(10)


def test_environment_hit_is_the_share_of_rows_located_in_their_environment(indoor, workspace):
    environment = np.repeat([0, 1], [50, 150])
    located = moved(indoor, environment=environment)
    for number, hit in ((0, 0.25), (1, 0.75)):
        row = results.evaluated(indoor, located, "unified", 0, workspace, environment_number=number, **COSTS)
        assert row["environment_hit"] == hit
    assert "environment_hit" not in results.evaluated(indoor, located, "unified", 0, workspace, **COSTS)
    alone = results.evaluated(indoor, moved(indoor), "unified", 0, workspace, environment_number=0, **COSTS)
    assert "environment_hit" not in alone


def test_prediction_that_does_not_fit_the_test_rows_is_refused(indoor, workspace):
    with pytest.raises(ValueError, match=r"\(n, 2\). Received: \(200, 2\) and \(199, 2\)"):
        results.evaluated(indoor, moved(indoor)[:-1], "umlp", 0, workspace, **COSTS)
    assert list(workspace.errors.iterdir()) == []


# === Files ===


def test_written_table_reads_as_it_was(tmp_path):
    rows = result_rows(epochs=20, fit_seconds=0.1)
    written = results.write(rows, tmp_path / "deep" / "benchmark.csv", results.COLUMNS)
    read = results.read(tmp_path / "deep" / "benchmark.csv")
    assert list(read.columns) == list(results.COLUMNS)
    assert read["seed"].dtype == read["epochs"].dtype == "Int64"
    assert read["seed"].tolist()[:3] == [0, 1, 2] and read["seed"].isna().tolist() == [False] * 3 + [True]
    for column in ("environment", "model", "seed", "mean_m", "epochs", "fit_seconds"):
        pd.testing.assert_series_equal(read[column], written[column], check_dtype=False)


def test_write_returns_the_numbers_that_the_file_has(tmp_path):
    written = results.write(result_rows(mean_m=10 / 3), tmp_path / "benchmark.csv")
    np.testing.assert_array_equal(written["mean_m"], results.read(tmp_path / "benchmark.csv")["mean_m"])


def test_writing_what_was_read_gives_the_same_file(tmp_path):
    results.write(result_rows(mean_m=10 / 3), tmp_path / "first.csv")
    results.write(results.read(tmp_path / "first.csv"), tmp_path / "second.csv")
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


@pytest.mark.parametrize(
    "table",
    [
        result_rows().drop(columns="mean_m"),
        result_rows().assign(extra=1),
        result_rows()[list(reversed(results.COLUMNS))],
    ],
    ids=["missing", "more", "another order"],
)
def test_other_columns_are_refused_and_the_old_table_stays(tmp_path, table):
    path = tmp_path / "benchmark.csv"
    results.write(result_rows(), path, results.COLUMNS)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"benchmark\.csv must have columns .*Received: "):
        results.write(table, path, results.COLUMNS)
    assert path.read_bytes() == before


def test_reading_what_was_not_written_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"benchmark\.csv does not exist.*make all"):
        results.read(tmp_path / "benchmark.csv")


def test_a_file_is_replaced_whole(tmp_path):
    target = tmp_path / "deep" / "table.csv"
    with paths.replacing(target) as temporary:
        assert temporary.suffix == ".csv" and temporary.parent == target.parent
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt])
def test_an_exception_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, interruption):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(interruption), paths.replacing(target) as temporary:
        temporary.write_text("half of the n")
        raise interruption
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


# === Where outputs go ===


@pytest.mark.parametrize(
    ("profile", "simulated", "expected"),
    [
        ("benchmark", False, ""),
        ("benchmark", True, "benchmark/simulated"),
        ("full", False, "full"),
        ("full", True, "full/simulated"),
        ("smoke", False, "smoke"),
        ("smoke", True, "smoke/simulated"),
        (None, False, "lab"),
    ],
)
def test_only_the_benchmark_on_measured_data_writes_to_the_committed_outputs(
    tmp_path, monkeypatch, profile, simulated, expected
):
    monkeypatch.setenv("FINGERPRINT_OUTPUTS", str(tmp_path))
    monkeypatch.delenv("PROFILE", raising=False)
    if profile:
        monkeypatch.setenv("PROFILE", profile)
    place = paths.workspace(simulated)
    assert place.outputs == tmp_path / expected
    assert place.tables == tmp_path / expected / "tables" and place.tables.is_dir()


# === Tables ===


def test_summary_has_a_row_a_model_with_mean_and_interval_over_seeds():
    table = results.summarise(result_rows(), values=("mean_m", "median_m")).set_index("model")
    assert list(table.index) == ["encoder_tl", "knn_euclidean"]
    assert list(table["seeds"]) == [3, 1] and list(table["n_test"]) == [3, 3]
    assert table.loc["encoder_tl", "mean_m"] == "11.00 ± 2.48"  # t(0.975, 2) = 4.303 times 1 / √3
    assert table.loc["encoder_tl", "median_m"] == "8.00 ± 0.00"
    assert table.loc["knn_euclidean", "mean_m"] == "9.61"


def test_summary_keeps_environments_releases_and_protocols_apart():
    rows = pd.concat([result_rows(), result_rows(protocol="pooled"), result_rows(release="another")])
    assert len(results.summarise(rows, values=("mean_m",))) == 6


def test_table_is_written_in_three_forms(tmp_path):
    table = pd.DataFrame({"model": ["encoder_tl", "knn"], "mean_m": ["6.65 ± 0.10", None]})
    results.write_table(table, tmp_path, "benchmark", "On the official split.", simulated=False)
    csv, markdown, latex = ((tmp_path / f"benchmark.{suffix}").read_text() for suffix in ("csv", "md", "tex"))
    expected = table.rename(columns={"mean_m": "mean error (m)"})
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "benchmark.csv"), expected, check_dtype=False)
    assert "| encoder_tl |      6.65 ± 0.10 |" in markdown and markdown.endswith("On the official split.\n")
    assert r"encoder\_tl & 6.65 ± 0.10" in latex and "On the official split." in latex
    for text in (csv, markdown, latex):
        assert "nan" not in text.lower() and "None" not in text and "simulated" not in text.lower()


def test_tables_have_plain_headings_and_numbers_to_the_right(tmp_path):
    table = pd.DataFrame(
        {"model": ["a", "b"], "n_test": [1111, 7], "floor_hit": ["95.4%", ""], "note": ["1 of 2", "x"]}
    )
    results.write_table(table, tmp_path, "plain", "Note.", simulated=False)
    heading, sides, first, *_ = (tmp_path / "plain.md").read_text().splitlines()
    assert [cell.strip() for cell in heading.split("|")[1:-1]] == ["model", "test rows", "floor hit (%)", "note"]
    assert [cell.endswith(":") for cell in sides.split("|")[1:-1]] == [False, True, True, False]
    assert [cell.strip() for cell in first.split("|")[1:-1]] == ["a", "1,111", "95.4", "1 of 2"]
    assert r"\begin{tabular}{lrrl}" in (tmp_path / "plain.tex").read_text()


@pytest.mark.parametrize(
    ("protocols", "n_train", "explained"),
    [(["p", "p"], [10, 10], False), (["p", "p"], [10, 9], True), (["p", "q"], [10, 9], False)],
)
def test_caption_explains_training_rows_where_models_differ(tmp_path, protocols, n_train, explained):
    table = pd.DataFrame({"model": ["a", "b"], "protocol": protocols, "n_train": n_train})
    results.write_table(table, tmp_path, "rows", "Note.", simulated=False)
    assert (results.TRAINING_ROWS in (tmp_path / "rows.md").read_text()) == explained


def test_table_of_simulated_data_says_so_in_every_form(tmp_path):
    results.write_table(pd.DataFrame({"model": ["umlp"]}), tmp_path, "benchmark", "Note.", simulated=True)
    assert (tmp_path / "benchmark.md").read_text().startswith("**SIMULATED DATA")
    assert (tmp_path / "benchmark.tex").read_text().startswith("% SIMULATED DATA")
    assert set(pd.read_csv(tmp_path / "benchmark.csv")["data"]) == {"simulated"}


def benchmark_rows():
    """Two protocols; of the first, a building and floor for kNN alone and times."""
    hits = {"building_hit": [None] * 3 + [0.996], "floor_hit": [None] * 3 + [0.9], "right_place_m": [None] * 3 + [7.92]}
    times = {"fit_seconds": [60.0, 62.0, 64.0, 0.1], "predict_us": [12.0, 13.0, 14.0, 381.25]}
    times |= {"p75_m": 12.0, "p95_m": 30.0, "n_train": 1234}
    outdoor = result_rows(environment="lorawan_antwerp", protocol="random", release="city (7 rows)").assign(**times)
    return pd.concat([result_rows().assign(**times, **hits), outdoor], ignore_index=True)


NAMES = {"knn_euclidean": "kNN", "unused": "not run", "encoder_tl": "encoder-TL"}
QUOTED = {("ujiindoorloc", "official"): {"encoder_tl": 6.65, "CNN [9]": 8.0}}


def test_benchmark_has_a_table_for_every_protocol_in_the_order_of_the_names():
    rows = benchmark_rows()
    ground = {"ground_m": rows["mean_m"] / 2, "evaal_m": rows["mean_m"] / 2 + 3}
    tables = results.benchmark_tables(rows.assign(**ground), NAMES, QUOTED)
    assert list(tables) == [("ujiindoorloc", "official"), ("lorawan_antwerp", "random")]
    indoor = tables["ujiindoorloc", "official"].set_index("model")
    assert list(indoor.index) == ["kNN", "encoder-TL", "CNN [9]"]
    assert dict(indoor.loc["encoder-TL"]) == {
        "seeds": 3,
        "training rows": "1,234",
        "mean error (m, ground)": "5.50 ± 1.24",
        "EvAAL score (m, ground)": "8.50 ± 1.24",
        "mean error (m, Web Mercator)": "11.00 ± 2.48",
        "median error (m, ground)": "4.00 ± 0.00",
        "75th percentile (m, ground)": "6.00 ± 0.00",
        "95th percentile (m, ground)": "15.00 ± 0.00",
        "mean error on the right floor (m, ground)": "",
        "building hit (%)": "",
        "floor hit (%)": "",
        "training (s)": "62.0",
        "prediction (µs a row)": "13.0",
        "published (m, Web Mercator)": "6.65",
    }
    columns = ["building hit (%)", "floor hit (%)", "prediction (µs a row)", "published (m, Web Mercator)"]
    assert list(indoor.loc["kNN", columns]) == ["99.6", "90.0", "381", ""]
    assert list(indoor.loc["CNN [9]", ["seeds", "mean error (m, ground)", columns[-1]]]) == ["", "", "8"]


def test_benchmark_leaves_out_what_a_protocol_has_no_value_of_and_what_repeats_a_column():
    rows = benchmark_rows()
    outdoor = results.benchmark_tables(rows, NAMES, QUOTED)["lorawan_antwerp", "random"]
    errors = ["mean error (m)", "median error (m)", "75th percentile (m)", "95th percentile (m)"]
    costs = ["training (s)", "prediction (µs a row)"]
    assert list(outdoor.columns) == ["model", "seeds", "training rows", *errors, *costs]
    assert list(outdoor["model"]) == ["kNN", "encoder-TL"]
    same = results.benchmark_tables(rows.assign(ground_m=rows["mean_m"]), NAMES, QUOTED)["lorawan_antwerp", "random"]
    assert [name for name in same if name.startswith("mean error")] == ["mean error (m, ground)"]


def test_benchmark_refuses_a_model_without_a_name():
    with pytest.raises(KeyError, match=r"must have every model\. Received: none for encoder_tl"):
        results.benchmark_tables(benchmark_rows(), {"knn_euclidean": "kNN"}, {})


def test_table_of_environments_has_a_line_for_each_and_a_column_for_every_model():
    lines = []
    for environment, protocol in (("ujiindoorloc", "official"), ("tut1", "tut1")):
        for model, ground_m in {"knn": 8.0, "net": 6.0}.items():
            line = {"environment": environment, "protocol": protocol, "model": model, "ground_m": ground_m}
            lines.append({**line, "ratio": ground_m / 8, "low": 0.5, "high": 1.0, "best": "knn"})
    table = pd.DataFrame(lines)
    shown = results.environments_table(table, table, {"knn": "kNN", "absent": "absent", "net": "network"}, "net")
    assert list(shown.columns) == ["environment", "kNN (m)", "network (m)", "best baseline", "network / best baseline"]
    assert list(shown.iloc[0]) == ["ujiindoorloc, official", "8.00", "6.00", "kNN", "0.75 (0.50 … 1.00)"]
    assert shown.loc[1, "environment"] == "tut1"
