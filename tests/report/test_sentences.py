"""Conclusions: their numbers and their wording follow the result rows."""

import pandas as pd
import pytest

from lib.paths import ROOT
from lib.report import results, sentences
from lib.report.claims import FAILS, HOLDS

NAMES = {"knn": "kNN", "encoder_tl": "encoder-TL", "unified": "unified network"}


def committed(name):
    """A committed result file; columns that it does not have yet are made up."""
    rows = results.read(ROOT / "outputs" / "results" / f"{name}.csv")
    if "ground_m" not in rows and "environment" in rows and "mean_m" in rows:
        rows["ground_m"] = rows["mean_m"].where(rows["environment"] != "ujiindoorloc", 0.766 * rows["mean_m"])
    return rows


def by_seed(model, errors, protocol="official", **columns):
    """Result rows of a model, one a seed."""
    rows = pd.DataFrame({"model": model, "protocol": protocol, "seed": range(len(errors)), "mean_m": errors})
    return rows.assign(ground_m=rows["mean_m"], **columns)


@pytest.mark.parametrize(
    ("first", "verdict"), [([1.0, 1.1, 1.2], "better"), ([9.0, 9.1, 9.3], "worse"), ([1.0, 9.0, 5.0], "not disting")]
)
def test_a_difference_counts_if_it_is_more_than_seeds_differ(first, verdict):
    assert sentences.by_seeds(pd.Series(first), pd.Series([5.0, 5.2, 5.1])).startswith(verdict)
    assert sentences.by_seeds(pd.Series(first[:1]), pd.Series([5.0])) == "not distinguishable"


def test_the_step_with_the_largest_gain_is_that_of_the_rows():
    names = {"step_umlp": "regression", "step_places": "+ places", "step_median": "+ median", "step_still": "still"}
    errors = {"step_umlp": [17.0, 17.2], "step_places": [9.0, 9.1], "step_median": [8.0, 8.2], "step_still": [9.0, 9.1]}
    rows = pd.concat([by_seed(step, values) for step, values in errors.items()])
    text = sentences.steps(rows, names)
    assert "largest gain is “+ places”, from 17.1 to 9.05 m" in text
    assert "*still*: `official` 9.05 ± 0.64 m where it has 8.10 ± 1.27 m (higher)" in text
    rows.loc[rows["model"] == "step_places", "mean_m"] = 16.9
    assert "largest gain is “+ median”" in sentences.steps(rows, names)


def test_one_run_is_not_compared_with_chance():
    rows = pd.concat([by_seed(step, [9.0]) for step in ("step_umlp", "step_median", "step_votes")])
    text = sentences.steps(rows, dict.fromkeys(rows["model"], "a step"))
    assert "By more than seeds differ" not in text and "(one run)" in text


def test_phones_name_the_kind_with_the_lowest_error():
    rows = pd.DataFrame({"model": ["alone", "votes"] * 2, "fold": [0, 0, 1, 1], "floor_hit": 0.9})
    text = sentences.phones(rows.assign(mean_m=[8.0, 7.0, 8.0, 9.5]))
    assert "The lowest is that of “alone”" in text and "“votes” in 1" in text


def test_ground_metres_lead_where_they_differ():
    rows = by_seed("unified", [6.0, 6.2])
    assert sentences.error(rows.assign(ground_m=[4.0, 4.2])).startswith("4.10 ± 1.27 m on the ground (6.10")
    assert sentences.error(rows) == "6.10 ± 1.27 m"
    rows = rows.assign(ground_m=rows["mean_m"] / 2, median_m=3.0, floor_hit=None, fit_seconds=60.0)
    assert "Mercator m), median 1.50 m" in sentences.on_test_rows(rows)


def test_the_benchmark_says_who_is_lowest_and_what_is_more_than_chance():
    rows = pd.concat([by_seed("knn", [6.5]), by_seed("encoder_tl", [9.8]), by_seed("unified", [6.3])])
    lines = [
        ("unified", "knn", "not distinguishable"),
        ("unified", "encoder_tl", "better"),
        ("knn", "encoder_tl", "better"),
    ]
    compared = pd.DataFrame(lines, columns=["model", "reference", "verdict"]).assign(protocol="official")
    text = sentences.benchmark(rows, compared, NAMES)
    assert "of 3 models: unified network 6.30 m, kNN 6.50 m and encoder-TL 9.80 m" in text
    assert "is better than encoder-TL and not distinguishable from kNN" in text and "2 distinguish" in text
    worse = compared.assign(verdict=["worse", "better", "better"])
    assert "worse than kNN" in sentences.benchmark(rows, worse, NAMES)


def test_the_papers_figures_are_beside_what_was_measured():
    rows = pd.concat([by_seed("knn", [2.5], "pooled"), by_seed("encoder_tl", [5.9], "pooled")])
    text = sentences.against_paper(rows, {"encoder_tl": 6.65}, NAMES, "knn")
    assert "below the paper's 6.65 m" in text and "lower error than that: none" in text
    rows.loc[rows["model"] == "knn", "mean_m"] = 7.0
    rows.loc[rows["model"] == "encoder_tl", "mean_m"] = 6.9
    text = sentences.against_paper(rows, {"encoder_tl": 6.65}, NAMES, "knn")
    assert "not below the paper's" in text and "lower error than that: encoder-TL" in text
    assert sentences.against_paper(rows[:0], {"encoder_tl": 6.65}, NAMES, "knn") == ""


def test_the_ledger_names_what_does_not_hold():
    rows = pd.DataFrame({"claim": ["a", "b"], "verdict": [HOLDS, FAILS]})
    assert "1 do not hold: b." in sentences.ledger(rows)
    assert "0 do not hold: none." in sentences.ledger(rows[:1])


def coverage_rows(covered, as_asked=True):
    rows = pd.DataFrame({"level": [0.5, 0.9], "coverage": covered, "as_asked": as_asked})
    return rows.assign(protocol="official", held_out="whole phones" if as_asked else "single rows")


@pytest.mark.parametrize(
    ("covered", "said"),
    [
        ([0.48, 0.93], ": as promised."),
        ([0.2, 0.7], ": fewer than promised."),
        ([0.6, 0.99], ": more than promised."),
        ([0.3, 0.9], ": fewer than promised, then as promised."),
    ],
)
def test_radii_hold_what_they_promise_or_not(covered, said):
    assert said in sentences.radii(coverage_rows(covered))


def test_holding_rows_out_as_they_come_is_compared_with_another_way():
    both = pd.concat([coverage_rows([0.5, 0.9]), coverage_rows([0.2, 0.7], as_asked=False)])
    assert "under `official`, of `official`" in sentences.radii(both)
    both = pd.concat([coverage_rows([0.2, 0.7]), coverage_rows([0.5, 0.9], as_asked=False)])
    assert "under none, of `official`" in sentences.radii(both)


def test_an_attack_and_its_defence_are_told_with_their_sign():
    rows = pd.DataFrame(
        [("PGD", 0.0, 7.0, 7.3), ("PGD", 10.0, 11.0, 10.5), ("by chance", 10.0, 7.5, 7.4)],
        columns=["stress", "size", "unified", "unified_smoothed"],
    )
    rows = rows.melt(["stress", "size"], var_name="model", value_name="mean_m").assign(protocol="official")
    names = {"unified": "the network"}
    text = sentences.attacks(rows, names)
    assert "the network from 7.00 to 11.0 m, by chance to 7.50 m" in text
    assert "takes back 0.50 m under this attack, and costs 0.30 m" in text
    rows.loc[(rows["model"] == "unified_smoothed") & (rows["size"] == 0), "mean_m"] = 6.0
    assert "gains 1.00 m where nobody attacks" in sentences.attacks(rows, names)


def test_transfer_is_knowledge_only_if_it_beats_every_control():
    rows = pd.DataFrame({"protocol": "tut1", "share": 1.0, "against": ["scratch", "noise"], "ratio": [0.9, 0.95]})
    text = sentences.transfer(rows.assign(verdict=["better", "not distinguishable"]), "scratch")
    assert "helps in 1 of 1 pairs. In 0 " in text
    assert "In 1 " in sentences.transfer(rows.assign(verdict="better"), "scratch")


def test_a_setting_is_named_that_is_better_everywhere():
    tried = pd.DataFrame({"environment": ["in", "out"] * 2, "model": "net", "seed": 0})
    tried["setting"] = ["default", "default", "wide", "wide"]
    assert "`net` with wide (1.00 where" in sentences.search(tried.assign(validation_mean_m=[2.0, 2.0, 1.0, 1.5]))
    assert "tried: none." in sentences.search(tried.assign(validation_mean_m=[2.0, 2.0, 1.0, 2.5]))


def test_sentences_are_told_of_the_committed_results():
    compared, benchmark = committed("comparisons"), committed("benchmark")
    names = {model: model for model in benchmark["model"].unique()}
    steps = committed("unified_steps")
    stress = committed("stress")
    stressed = {"unified": "ours", "umlp": "U-MLP", "knn_sorensen": "kNN"}
    attacks = stress[stress["stress"].isin(["PGD", "by chance"])]
    texts = [
        sentences.steps(steps, {model: model for model in steps["model"].unique()}),
        sentences.phones(committed("unified_folds")),
        sentences.on_test_rows(committed("unified")),
        sentences.environments(committed("unified_environment")),
        sentences.benchmark(benchmark, compared, names),
        sentences.published_networks(compared, ["hadnn", "ea_cnn"], names),
        sentences.right_place(benchmark, committed("right_place"), 7.9),
        sentences.ledger(committed("claims")),
        sentences.disturbances(stress, stressed),
        sentences.attacks(attacks, stressed),
        sentences.search(committed("search_comparators")),
        sentences.averages(committed("search_comparators")),
    ]
    for text in texts:
        assert text and "nan" not in text
