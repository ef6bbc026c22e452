"""Result rows, tables and the claims ledger; and that nothing half-written is ever taken for a result."""

import numpy as np
import pandas as pd
import pytest

from lib import metrics, paths, plots, preprocess, results

MADE = {"n_train": 1234, "fit_seconds": 12.5, "predict_us": 3.25}


@pytest.fixture(scope="module")
def indoor(campus):
    return preprocess.process(campus, "official", np.arange(len(campus)), (0.0, 1.0))


@pytest.fixture(scope="module")
def outdoor(city):
    return preprocess.process(city, "random", np.arange(len(city)), (0.0, 1.0))


def moved(data, east=3.0, north=4.0):
    """A prediction that is off by the same vector everywhere."""
    return data.position[data.split.test] + [east, north]


def result_rows(**changes):
    """Three seeds of one model and one run of another."""
    common = {"environment": "ujiindoorloc", "release": "made (9 rows)", "protocol": "official", "n_test": 3}
    seeds = [{"model": "encoder_tl", "seed": seed, "mean_m": 10.0 + seed, "median_m": 8.0} for seed in range(3)]
    rows = [common | row for row in (*seeds, {"model": "knn_euclidean", "seed": None, "mean_m": 9.61, "median_m": 7.0})]
    return pd.DataFrame([{column: row.get(column) for column in results.COLUMNS} | changes for row in rows])


# === Result rows ===


def test_row_has_the_columns_of_the_contract(indoor, workspace):
    row = results.evaluated(
        indoor, "umlp", 3, moved(indoor), workspace, epochs=20, **MADE, building_hit=1.0, floor_hit=0.9
    )
    assert tuple(row) == results.COLUMNS
    identity = ("environment", "release", "protocol", "model", "seed", "n_train", "n_test")
    release = "simulated campus (seed 0) (800 rows)"
    sizes = (1234, 200)
    assert tuple(row[name] for name in identity) == ("ujiindoorloc", release, "official", "umlp", 3, *sizes)
    assert (row["epochs"], row["fit_seconds"], row["predict_us"]) == (20, 12.5, 3.25)
    assert (row["building_hit"], row["floor_hit"]) == (1.0, 0.9)


def test_errors_of_a_row_are_those_of_eq_6_indoors(indoor, workspace):
    row = results.evaluated(indoor, "umlp", 0, moved(indoor), workspace, **MADE)
    assert [row[name] for name in ("mean_m", "median_m", "p75_m", "p95_m")] == pytest.approx([5.0] * 4)
    scaled = np.array([3.0, 4.0]) / np.ptp(indoor.position[indoor.split.train], axis=0)
    assert row["rmse_normalised"] == pytest.approx(np.sqrt(np.mean(scaled**2)), rel=1e-4)


def test_errors_of_a_row_are_those_of_eq_7_outdoors(outdoor, workspace):
    predicted = moved(outdoor, 30, -40)
    row = results.evaluated(outdoor, "umlp", 0, predicted, workspace, **MADE)
    true = outdoor.position[outdoor.split.test]
    expected = metrics.haversine_errors(outdoor.frame.to_degrees(true), outdoor.frame.to_degrees(predicted))
    assert row["mean_m"] == pytest.approx(expected.mean()) and row["mean_m"] == pytest.approx(50, abs=0.01)


@pytest.mark.parametrize("seed", [0, 7, None])
def test_error_of_every_row_can_be_read_again(indoor, workspace, seed):
    predicted = indoor.position[indoor.split.test] + np.arange(200)[:, None] * [0.6, 0.8]
    row = results.evaluated(indoor, "knn_euclidean", seed, predicted, workspace, **MADE)
    np.testing.assert_allclose(results.read_errors(workspace, row), np.arange(200), atol=1e-9)
    table = results.write([row], workspace.results / "benchmark.csv", results.COLUMNS)
    assert len(results.read_errors(workspace, table.iloc[0])) == 200
    assert len(results.read_errors(workspace, results.read(workspace.results / "benchmark.csv").iloc[0])) == 200


def test_what_a_model_does_not_give_is_left_empty(indoor, workspace):
    row = results.evaluated(indoor, "umlp", 0, moved(indoor), workspace, **MADE)
    assert [row[name] for name in ("building_hit", "floor_hit", "epochs")] == [None] * 3


def test_prediction_that_does_not_fit_the_test_rows_is_refused(indoor, workspace):
    with pytest.raises(ValueError, match=r"\(n, 2\). Received: \(200, 2\) and \(199, 2\)"):
        results.evaluated(indoor, "umlp", 0, moved(indoor)[:-1], workspace, **MADE)
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
    results.write(result_rows(mean_m=10 / 3), tmp_path / "one.csv")
    results.write(results.read(tmp_path / "one.csv"), tmp_path / "other.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "other.csv").read_bytes()


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
    assert place.processed.is_relative_to(tmp_path / "processed")


# === Tables ===


def test_interval_is_that_of_the_mean():
    """1…5: mean 3, t(0.975, 4) = 2.776, standard error 0.7071."""
    assert results.with_interval([1, 2, 3, 4, 5]) == "3.00 ± 1.96"
    assert results.with_interval([6.654]) == "6.65"


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
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "benchmark.csv"), table, check_dtype=False)
    assert "| encoder_tl | 6.65 ± 0.10 |" in markdown and markdown.endswith("On the official split.\n")
    assert r"encoder\_tl & 6.65 ± 0.10" in latex and "On the official split." in latex
    for text in (csv, markdown, latex):
        assert "nan" not in text.lower() and "None" not in text and "simulated" not in text.lower()


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
    tables = results.benchmark_tables(rows.assign(ground_m=rows["mean_m"] / 2), NAMES, QUOTED)
    assert list(tables) == [("ujiindoorloc", "official"), ("lorawan_antwerp", "random")]
    indoor = tables["ujiindoorloc", "official"].set_index("model")
    assert list(indoor.index) == ["kNN", "encoder-TL", "CNN [9]"]
    assert dict(indoor.loc["encoder-TL"]) == {
        "seeds": 3,
        "n_train": 1234,
        "mean_m": "11.00 ± 2.48",
        "ground_m": "5.50 ± 1.24",
        "median_m": "8.00 ± 0.00",
        "p75_m": "12.00 ± 0.00",
        "p95_m": "30.00 ± 0.00",
        "right_place_m": "",
        "building_hit": "",
        "floor_hit": "",
        "fit_seconds": "62",
        "predict_us": "13",
        "quoted_m": "6.65",
    }
    columns = ["mean_m", "right_place_m", "building_hit", "floor_hit", "predict_us", "quoted_m"]
    assert list(indoor.loc["kNN", columns]) == ["9.61", "7.92", "99.6%", "90.0%", "381", ""]
    assert list(indoor.loc["CNN [9]", ["seeds", "mean_m", "quoted_m"]]) == ["", "", "8"]


def test_benchmark_leaves_out_what_a_protocol_has_no_value_of():
    outdoor = results.benchmark_tables(benchmark_rows(), NAMES, QUOTED)["lorawan_antwerp", "random"]
    errors = ["mean_m", "median_m", "p75_m", "p95_m"]
    assert list(outdoor.columns) == ["model", "seeds", "n_train", *errors, "fit_seconds", "predict_us"]
    assert list(outdoor["model"]) == ["kNN", "encoder-TL"]


def test_benchmark_refuses_a_model_without_a_name():
    with pytest.raises(KeyError, match=r"must have every model\. Received: none for encoder_tl"):
        results.benchmark_tables(benchmark_rows(), {"knn_euclidean": "kNN"}, {})


# === Comparisons ===


@pytest.fixture(scope="module")
def compared(indoor, tmp_path_factory):
    """Rows and workspace of four models: `far` is worse than `near`, `as_near` is as good, `knn` has no seeds."""
    folder = tmp_path_factory.mktemp("compared")
    workspace = paths.Workspace(folder, folder / "processed")
    rng = np.random.default_rng(0)
    test = indoor.position[indoor.split.test]
    rows = [
        results.evaluated(indoor, model, seed, test + rng.normal(0, spread, test.shape), workspace, **MADE)
        for model, spread, seeds in [("near", 3, 5), ("as_near", 3, 5), ("far", 4, 5), ("knn", 3.0, 1)]
        for seed in (range(seeds) if seeds > 1 else [None])
    ]
    return results.write(rows, folder / "benchmark.csv", results.COLUMNS), workspace


def test_resampled_means_are_about_the_measured_ones(compared):
    rows, workspace = compared
    (draws,) = results.resampled_means(rows, workspace, resamples=2000).values()
    means = rows.groupby("model", sort=False)["mean_m"].mean()
    assert list(draws.columns) == list(means.index) and len(draws) == 2000
    np.testing.assert_allclose(draws.mean(), means, atol=0.05)


def test_comparisons_tell_better_worse_and_alike(compared):
    rows, workspace = compared
    draws = results.resampled_means(rows, workspace)
    table = results.comparisons(rows, draws, ["near", "far"])
    assert tuple(table.columns) == results.COMPARISON_COLUMNS
    verdicts = {(line.model, line.reference): line.verdict for line in table.itertuples()}
    assert verdicts == {
        ("as_near", "near"): results.ALIKE,
        ("far", "near"): results.WORSE,
        ("knn", "near"): results.ALIKE,
        ("as_near", "far"): results.BETTER,
        ("knn", "far"): results.BETTER,
    }
    assert (table["comparisons"] == 5).all()
    np.testing.assert_allclose(table["p_holm"], metrics.holm(table["p_value"]))
    means = rows.groupby("model")["mean_m"].mean()
    np.testing.assert_allclose(table["difference_m"], [means[m] - means[r] for m, r in verdicts])
    assert ((table["low_m"] < table["difference_m"]) & (table["difference_m"] < table["high_m"])).all()


def test_comparisons_are_corrected_over_all_protocols(compared):
    rows, workspace = compared
    both = pd.concat([rows, rows.assign(protocol="pooled")])
    (draws,) = results.resampled_means(rows, workspace).values()
    table = results.comparisons(both, {("ujiindoorloc", name): draws for name in ("official", "pooled")}, ["far"])
    assert (table["comparisons"] == 6).all() and list(table["protocol"].unique()) == ["official", "pooled"]


def test_groups_of_test_rows_widen_what_they_share(compared):
    rows, workspace = compared
    errors = results.read_errors(workspace, rows.iloc[0])
    groups = {("ujiindoorloc", "official"): np.argsort(np.argsort(errors)) // 10}  # alike within a group
    (single,), (grouped,) = (results.resampled_means(rows[:1], workspace, which).values() for which in (None, groups))
    assert grouped["near"].std() > 2 * single["near"].std()


def test_a_reference_that_was_not_run_is_named(compared):
    rows, workspace = compared
    draws = results.resampled_means(rows, workspace, resamples=10)
    with pytest.raises(ValueError, match=r"official: `references` must be among near, .*Received: umlp"):
        results.comparisons(rows, draws, ["umlp"])


# === Figures ===


def test_forest_has_a_line_for_every_model_run_or_quoted(compared):
    rows, _ = compared
    names = {"knn": "kNN", "near": "near", "as_near": "as near", "far": "far away", "unused": "unused"}
    families = dict.fromkeys(names, "networks") | {"knn": "nearest fingerprints"}
    rows = rows.assign(mean_m=rows["mean_m"].where(rows["model"] != "far", 100.0))
    quoted = {("ujiindoorloc", "official"): {"near": 6.65, "CNN [9]": 8.0}}
    figure = plots.forest(rows, names, families, quoted, "knn")
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "kNN",
        "near",
        "as near",
        "far away",
        "CNN [9], not run",
    ]
    beside = [text.get_text() for text in axis.texts]
    assert {"6.65", "8"} < set(beside) and "100 ± 0" in beside
    assert axis.get_xlim()[1] < 15, "a model that is far off does not press the others together"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:3] == ["nearest fingerprints", "networks", "published, on other rows"]


def test_many_distributions_are_grey_but_for_the_chosen():
    errors = {name: np.arange(5.0) for name in "abcd"}
    legend = plots.error_cdf(errors, "m", "four", highlighted=["b", "a"]).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "b (mean 2, median 2)",
        "a (mean 2, median 2)",
        "2 others",
    ]
    assert len(plots.error_cdf(errors, "m", "four").axes[0].get_legend().get_texts()) == 4


# === Claims ===


@pytest.mark.parametrize(
    ("rule", "ours", "tolerance", "verdict"),
    [
        ("equal", 249, 0, results.HOLDS),
        ("equal", 248, 0, results.FAILS),
        ("equal", 248, 1, results.HOLDS),
        ("equal", 251, 1, results.FAILS),
        ("at most", 249, 0, results.HOLDS),
        ("at most", 10, 0, results.HOLDS),
        ("at most", 249.1, 0, results.FAILS),
        ("at most", 249.1, 0.2, results.HOLDS),
        ("at least", 249, 0, results.HOLDS),
        ("at least", 300, 0, results.HOLDS),
        ("at least", 248.9, 0, results.FAILS),
        ("at least", 248.9, 0.2, results.HOLDS),
    ],
)
def test_verdict_follows_the_rule(rule, ours, tolerance, verdict):
    line = results.claim("access points left", 249, ours, rule=rule, tolerance=tolerance)
    assert tuple(line) == results.CLAIM_COLUMNS
    assert (line["paper"], line["ours"], line["verdict"], line["seeds"]) == (249, ours, verdict, 1)
    assert line["ci95"] is None and line["note"] == ""


@pytest.mark.parametrize("ours", [None, [], 361.0])
def test_what_the_data_cannot_answer_is_not_judged(ours):
    line = results.claim("MDE outdoors", 361.21, ours, rule="at most", checkable=False, note="another release")
    assert line["verdict"] == results.UNCHECKED == "cannot be checked on this release"
    assert line["ours"] == (361.0 if ours else None) and line["note"] == "another release"


def test_no_value_of_ours_cannot_be_checked_either():
    assert results.claim("MDE", 6.65, None, rule="at most")["verdict"] == results.UNCHECKED


def test_claim_over_seeds_has_mean_interval_and_count():
    line = results.claim("MDE indoors", 20.0, [1, 2, 3, 4, 5], rule="at most", unit="m", release="made", protocol="p")
    assert (line["ours"], line["seeds"], line["verdict"]) == (3.0, 5, results.HOLDS)
    assert line["ci95"] == pytest.approx(1.9632, abs=1e-4)
    assert (line["unit"], line["release"], line["protocol"], line["note"]) == ("m", "made", "p", "")


@pytest.mark.parametrize("rule", ["at most", "at least"])
def test_interval_across_the_papers_value_is_noted(rule):
    line = results.claim("MDE indoors", 3.5, [1, 2, 3, 4, 5], rule=rule, note="Five seeds")
    assert line["verdict"] == (results.HOLDS if rule == "at most" else results.FAILS)
    assert line["note"] == "Five seeds; the 95 % interval reaches across the paper's value"


def test_unknown_rule_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"`rule` must be one of equal, at most, at least\. Received: about"):
        results.claim("MDE", 6.65, 6.6, rule="about")


# === README ===


def test_tables_of_a_document_are_filled_from_the_files(tmp_path):
    (tmp_path / "one.md").write_text("| 1 |\n")
    (tmp_path / "two.md").write_text("| a \\1 |\n\nNote.\n")
    document = "A\n<!-- table: one -->\nold\n\nolder\n<!-- end -->\nB\n<!-- table: two -->\n<!-- end -->\nC\n"
    filled = results.fill(document, tmp_path)
    assert filled == (
        "A\n<!-- table: one -->\n| 1 |\n<!-- end -->\nB\n<!-- table: two -->\n| a \\1 |\n\nNote.\n<!-- end -->\nC\n"
    )
    assert results.fill(filled, tmp_path) == filled


def test_document_that_names_no_existing_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        results.fill("<!-- table: none -->\n<!-- end -->\n", tmp_path)


def test_a_count_is_not_rounded_in_the_ledger(tmp_path):
    lines = [
        results.claim("messages", 130_429, 130_429, rule="equal"),
        results.claim("MDE", 6.65, [5.31, 5.42, 5.33], rule="at most", unit="m"),
    ]
    shown = results.shown_claims(results.write(lines, tmp_path / "claims.csv", results.CLAIM_COLUMNS))
    assert list(shown["paper"]) == ["130429", "6.65"]
    assert list(shown["ours"]) == ["130429", "5.353 ± 0.15"]
    assert list(shown["claim"]) == ["messages", "MDE (m)"]


def test_a_claim_about_the_subset_cannot_be_checked(indoor, outdoor):
    """Simulated sets are of another release than the paper's too."""
    for data in (indoor, outdoor):
        line = results.claim_about(data, "MDE", 1e6, [1.0, 2.0], rule="at most")
        assert line["verdict"] == results.UNCHECKED and line["protocol"] == data.protocol
