"""Tables for reading: lines, and numbers as texts."""

import pandas as pd

from lib.report import tables


def rows(**columns):
    """Two seeds of one model under two protocols, of which the first is in Mercator metres."""
    common = {"release": "made (9 rows)", "model": "unified", "n_train": 100, "n_test": 10, "seed": [0, 1]}
    common |= {"median_m": 4.0, "p75_m": 8.0, "p95_m": 20.0, "fit_seconds": 1234.5, "predict_us": 12.0}
    indoor = {"environment": "campus", "protocol": "official", "mean_m": [6.0, 7.0], "ground_m": [4.0, 5.0]}
    outdoor = {"environment": "city", "protocol": "random", "mean_m": [230.0, 232.0], "ground_m": [230.0, 232.0]}
    indoor |= {"building_hit": 1.0, "floor_hit": 0.954}
    both = [pd.DataFrame(common | own) for own in (indoor, outdoor)]
    return pd.concat(both, ignore_index=True).assign(**columns)


def test_errors_on_test_rows_lead_with_ground_metres_and_have_hits_only_where_there_are_labels():
    table = tables.on_test_rows(rows()).set_index("protocol")
    names = list(table.columns)
    assert names.index("ground_m") < names.index("map_m")
    assert table.loc["official", "median_m"].startswith("2.7") and table.loc["random", "map_m"] == ""
    assert table.loc["official", ["floor_hit", "fit_seconds"]].tolist() == ["95.4 %", "1,234"]
    assert table.loc["random", "floor_hit"] == ""


def test_steps_are_shown_by_their_names():
    table = tables.steps(rows(), {"unified": "the first step"})
    assert table["network"].unique().tolist() == ["the first step"]
    assert {"n_validation", "mean_m"} <= set(table.columns)


def test_phones_are_averaged_over_folds():
    folds = pd.DataFrame(
        {"model": "alone", "fold": [0, 1], "mean_m": [7.0, 8.0], "median_m": 5.0, "floor_hit": [0.8, 1]}
    )
    (line,) = tables.phones(folds).to_dict("records")
    assert line == {"network": "alone", "mean_m": "7.50", "median_m": "5.00", "floor_hit": "90.0 %"}


def test_recognised_environments_have_their_mean_and_lowest_share():
    table = tables.environments_recognised(rows(environment_hit=[1.0, 0.99, 1.0, 1.0]), {"unified": "own columns"})
    line = table.iloc[0]
    assert (line["inputs"], line["recognised, mean (%)"], line["lowest (%)"]) == ("own columns", "99.500", "99.000")


def test_coverage_is_over_draws_by_protocol_and_way_of_holding_out():
    draws = pd.DataFrame(
        {
            "release": "made",
            "protocol": "official",
            "held_out": "phones",
            "seed": [0, 1, 0, 1],
            "mean_m": [6.0, 8.0] * 2,
        }
        | {"level": [0.5, 0.5, 0.9, 0.9], "coverage": [0.4, 0.5, 0.9, 0.9], "radius_m": [4.0, 5.0, 12.0, 14.0]}
    )
    (line,) = tables.coverage(draws, [0.5, 0.9]).to_dict("records")
    assert line["mean_m"] == "7.0 (6.0 to 8.0)"
    assert line["coverage at 50%"] == "45.0 (40.0 to 50.0)"
    assert line["coverage at 90%"] == "90.0" and line["radius_m at 90%"] == "13.0 (12.0 to 14.0)"


def test_disturbed_scans_have_a_line_a_size_with_units():
    disturbed = pd.DataFrame(
        {"protocol": "official", "stress": "noise", "unit": "dB", "size": [0.0, 0.0, 8.0, 8.0], "silent": 0}
        | {"model": ["unified", "knn"] * 2, "mean_m": [7.0, 6.0, 8.0, 9.0]}
        | {"coverage_90": [0.9, None, 0.8, None], "radius_90": [12.0, None, 13.0, None]}
    )
    names = {"unified": "network", "knn": "kNN"}
    table = tables.disturbances(disturbed, names, "unified")
    assert table["size"].tolist() == ["0", "8"] and table["kNN (m)"].tolist() == ["6.00", "9.00"]
    assert table["within the 90 % radius"].tolist() == ["90.0 %", "80.0 %"]
    attack = tables.attack(disturbed.assign(stress="PGD"), names)
    assert attack.loc[1].tolist() == ["official", "PGD", "8", "8.00", "9.00"]


def test_transfer_has_a_line_a_share_and_a_verdict_a_comparison():
    by_share = rows(share=0.1)[lambda table: table["protocol"] == "random"]
    table = tables.errors_by_start(by_share, {"unified": "scratch"})
    assert table.to_dict("records") == [{"protocol": "random", "share": "10 %", "scratch (m)": "231.0 ± 12.7"}]
    compared = pd.DataFrame([{"protocol": "random", "share": 1.0, "against": "noise", "ratio": 0.9}])
    line = tables.verdicts(compared.assign(low=0.8, high=1.0, p_holm=0.04, verdict="better")).iloc[0]
    assert line["95 % interval"] == "0.800 to 1.000" and line["share"] == "100 %"


def test_searched_settings_have_a_column_an_environment():
    tried = pd.DataFrame(
        {"model": "hadnn", "setting": ["default", "decay=True"], "environment": "campus"}
        | {"validation_mean_m": [16.6, 116.5]}
    )
    assert tables.search(tried, {"campus": "phones"})["campus, phones (m)"].tolist() == ["16.60", "116.5"]


def test_a_notebook_shows_headings_and_the_note():
    shown = tables.styled(pd.DataFrame({"protocol": ["official"], "mean_m": ["6.00"]}), "A note.")
    assert list(shown.columns) == ["protocol", "mean error (m)"] and shown.caption == "A note."
